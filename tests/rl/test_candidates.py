"""Agents of several seeds, of which the best on validation episodes is kept."""

import io
import json
import zipfile
from unittest.mock import Mock

import pytest
import torch

from worldmodel.agent_config import AgentConfig
from worldmodel.callbacks import Callback
from worldmodel.checks import check_path
from worldmodel.data.datasets import split_seeds
from worldmodel.errors import InterruptedRunError, RunError
from worldmodel.rl import agents as agents_module
from worldmodel.rl import candidates as candidates_module
from worldmodel.rl import evaluate_policy, result_summary, train_agent, tune_agent
from worldmodel.rl import evaluation as evaluation_module
from worldmodel.rl.agents import results_folder
from worldmodel.run import Run


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    def no_video(envs, agent, seed, path, algo):
        path.touch()
        return path

    monkeypatch.setattr("worldmodel.rl.tuned._PPO_ROLLOUT", 256)
    monkeypatch.setattr(agents_module, "record_video", no_video)


@pytest.fixture
def played(monkeypatch):
    """The second agent is the best one on validation seeds; the agents and seeds that played."""
    calls = []

    def evaluate(agent, envs, seeds, max_steps):
        result = evaluate_policy(agent, envs, seeds, max_steps)
        if len(seeds) != 3:
            return result  # of the learning curve or the final evaluation
        calls.append((agent.seed, list(seeds)))
        return result | {"mean": 5.0 if agent.seed == 1007 else 1.0}

    monkeypatch.setattr(evaluation_module, "evaluate_policy", evaluate)
    return calls


def config(count=3, **settings):
    evaluation = {"eval_points": 1, "eval_episodes": 4, "max_eval_steps": 20}
    candidates = {"count": count, "episodes": 3}
    return AgentConfig(
        steps=256, num_envs=4, seed=7, candidates=candidates, **evaluation, **settings
    )


def state_of(run_path, chosen):
    return results_folder(Run(run_path), chosen) / "candidates.json"


class Messages(Callback):
    def __init__(self):
        self.texts = []

    def on_message(self, text, *, warning=False):
        self.texts.append(text)


def test_the_best_agent_of_the_validation_episodes_is_kept(run_path, played, monkeypatch):
    made, make = {}, candidates_module.make_agent

    def remember(config, *rest):
        made[config.seed] = make(config, *rest)
        return made[config.seed]

    monkeypatch.setattr(candidates_module, "make_agent", remember)
    results = train_agent(Run(run_path), config())
    assert played == [(seed, list(split_seeds("validation", 3))) for seed in (7, 1007, 2007)]
    assert [each["mean"] for each in results["candidates"]] == [1.0, 5.0, 1.0]
    assert [each["seed"] for each in results["candidates"]] == [7, 1007, 2007]
    assert results["best_candidate"] == 1
    shown = ["1.0 (seed 7)", "5.0 (seed 1007, kept)", "1.0 (seed 2007)"]
    assert result_summary(results)["candidates"] == shown
    assert results["real_steps"] == 3 * 3 * 20
    assert results["seconds"] > results["curve"][-1]["seconds"]
    best = made[1007].policy.state_dict()
    with zipfile.ZipFile(results["agent"]) as archive:
        kept = torch.load(io.BytesIO(archive.read("policy.pth")), weights_only=True)
    assert all(torch.equal(kept[name], value) for name, value in best.items())
    assert not state_of(run_path, config()).exists()
    assert check_path(run_path) == []


def test_a_stop_keeps_the_finished_candidates(run_path, played, monkeypatch):
    whole = train_agent(Run(run_path), config())
    played.clear()
    learn = candidates_module.learn

    def stop_third(agent, envs, config, *rest):
        return config.seed == 2007 or learn(agent, envs, config, *rest)

    monkeypatch.setattr(candidates_module, "learn", stop_third)
    with pytest.raises(InterruptedRunError, match="Stopped after 2 of 3 candidates; they are kept"):
        train_agent(Run(run_path), config())
    monkeypatch.setattr(candidates_module, "learn", learn)
    folder = state_of(run_path, config()).parent
    (folder / ".unfinished.0123456789abcdef.mp4").write_bytes(b"")  # as a killed process leaves it
    messages = Messages()
    again = train_agent(Run(run_path), config(), [messages])
    assert [seed for seed, _ in played] == [7, 1007, 2007]
    assert messages.texts[0] == "2 of 3 candidates are trained"
    assert messages.texts[1] == "Agent of seed 2007: return 1.0 over 3 validation episodes"
    assert not list(folder.glob(".unfinished*"))
    events = sorted(path.parent.parent.name for path in folder.glob("tensorboard/*/*/*"))
    assert events == ["seed1007", "seed2007", "seed7"]
    assert again["candidates"] == whole["candidates"]
    assert again["real"] == whole["real"]


def test_a_stop_in_the_final_evaluation_keeps_the_candidates(run_path, played, monkeypatch):
    with monkeypatch.context() as stopping:
        stopping.setattr(candidates_module, "finalize", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(InterruptedRunError, match="Stopped after 3 of 3 candidates"):
            train_agent(Run(run_path), config())
    assert len(train_agent(Run(run_path), config())["candidates"]) == len(played) == 3


def test_a_damaged_best_candidate_is_an_error_before_more_are_trained(
    run_path, played, monkeypatch
):
    monkeypatch.setattr(candidates_module, "finalize", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(InterruptedRunError):
        train_agent(Run(run_path), config())
    state = state_of(run_path, config())
    record = json.loads(state.read_text())
    state.write_text(json.dumps({"candidates": record["candidates"][:2]}))
    (state.parent / "best_candidate.zip").write_bytes(b"damaged")
    played.clear()
    with pytest.raises(RunError, match=r"best_candidate.zip is damaged"):
        train_agent(Run(run_path), config())
    assert played == []


def test_a_damaged_list_of_candidates_is_an_error(run_path, played):
    state = state_of(run_path, config())
    state.parent.mkdir(parents=True)
    state.write_text('{"candidates": [{"seed": 7}]}')
    with pytest.raises(RunError, match=r"candidates.json is damaged.*delete .* to train all"):
        train_agent(Run(run_path), config())
    assert "candidates.json is damaged" in str(check_path(run_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on": "latent"}, r"agent.candidates: for agents in the dream only"),
        ({"count": 1}, r"agent.candidates.episodes has no effect, as candidates.count is 1"),
    ],
)
def test_settings_that_have_no_effect_are_refused(run_path, settings, message):
    with pytest.raises(ValueError, match=message):
        train_agent(Run(run_path), config(**settings))


def test_candidates_are_refused_with_rounds_and_when_tuning(run_path):
    with pytest.raises(
        ValueError, match=r"\(--rounds\) to 0 or agent.candidates.count \(--candidates\) to 1"
    ):
        config(loop={"rounds": 1})
    with pytest.raises(ValueError, match=r"candidates.count is 3, and tuning trains every agent"):
        tune_agent(Run(run_path), config(), {"gamma": [0.9]})
