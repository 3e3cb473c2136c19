"""The loop of acting, fine-tuning and training in the dream."""

import json
import shutil
import tempfile
import threading
from contextlib import contextmanager

import pytest
import torch

import worldmodel
from worldmodel.agent_config import AgentConfig, Loop
from worldmodel.data import ReplayBuffer
from worldmodel.errors import InterruptedRunError, RunError
from worldmodel.rl import agents as agents_module
from worldmodel.rl import loop as loop_module
from worldmodel.rl import train_agent
from worldmodel.rl.agents import results_folder
from worldmodel.rl.explorer import Explorer
from worldmodel.rl.loop import LoopState
from worldmodel.run import Run


def no_video(envs, agent, seed, path, algo):
    path.touch()
    return path


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr("worldmodel.rl.tuned._PPO_ROLLOUT", 256)
    monkeypatch.setattr(agents_module, "record_video", no_video)


def looping(rounds, **settings):
    loop = {
        "rounds": rounds,
        "updates": 20,
        "episodes": 3,
        "max_steps": 40,
        "patience": 10,
        **settings,
    }
    evaluation = {"eval_points": 2, "eval_episodes": 4, "max_eval_steps": 40}
    return AgentConfig(steps=256, num_envs=4, loop=loop, **evaluation)


def trained(path, rounds, **settings):
    return train_agent(Run(path), looping(rounds, **settings))


def folder_of(path, **settings):
    return results_folder(Run(path), looping(1, **settings))


def weights(folder, part):
    return torch.load(folder / "models" / f"{part}.pth", weights_only=True)


def model_files(folder):
    return {path.name: path.read_bytes() for path in (folder / "models").iterdir()}


def test_the_loop_collects_fine_tunes_and_resumes_where_it_stopped(run_path):
    results = trained(run_path, 1)
    folder = folder_of(run_path)
    assert [r["round"] for r in results["rounds"]] == [0, 1]
    assert [r["real_steps"] for r in results["rounds"]] == [120, 240]
    assert results["real_steps"] == 240
    with ReplayBuffer.open(folder / "experience" / "1") as buffer:
        assert buffer.num_transitions == 120
    for part, changed in (
        ("encoder", False),
        ("decoder", False),
        ("predictor", True),
        ("reward_head", True),
        ("termination_head", True),
    ):
        before, after = weights(run_path, part), weights(folder / "model_1", part)
        same = all(torch.equal(before[name], after[name]) for name in before)
        assert same is not changed, part
    assert worldmodel.load(results["model"]).decoder is not None
    before, after = Run(run_path), Run(folder / "model_1")
    assert not torch.equal(before.domain.mean, after.domain.mean)
    assert not torch.equal(before.starts[:9], after.starts[:9])

    first_round = results["rounds"][1]
    more = trained(run_path, 2)
    assert more["rounds"][1] == first_round
    assert [r["round"] for r in more["rounds"]] == [0, 1, 2]
    assert more["real_steps"] == 360
    assert more["steps"] >= results["steps"]


def test_the_identity_of_an_explorer_changes_with_the_encoder_and_the_agent(run_path, tmp_path):
    wm, agent = Run(run_path).model, tmp_path / "agent.zip"
    agent.write_bytes(b"one")
    identity = Explorer(wm, agent, "ppo").identity()
    assert Explorer(wm, agent, "ppo").identity() == identity
    with torch.no_grad():
        next(wm.encoder.parameters()).add_(1)
    assert Explorer(wm, agent, "ppo").identity() != identity
    changed = Explorer(wm, agent, "ppo").identity()
    agent.write_bytes(b"two")
    assert Explorer(wm, agent, "ppo").identity() != changed


def test_every_round_is_logged_and_leaves_no_thread_or_temporary_file(
    run_path, tmp_path, monkeypatch
):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before = threading.active_count()
    trained(run_path, 1)
    assert threading.active_count() == before
    assert list(temporary.iterdir()) == []
    assert len(list((folder_of(run_path) / "tensorboard").rglob("events.*"))) == 2


def test_validation_episodes_choose_the_best_round_and_count_as_real_steps(run_path, monkeypatch):
    evaluated = []

    @contextmanager
    def spied(envs, config, seeds):
        with real_evaluation(envs, config, seeds) as evaluate:

            def judged(agent):
                result = evaluate(agent)
                evaluated.append((seeds, sum(result["steps"])))
                return result | {"mean": 5.0 if len(evaluated) == 1 else 3.0}

            yield judged

    real_evaluation = loop_module.real_evaluation
    monkeypatch.setattr(loop_module, "real_evaluation", spied)
    results = trained(run_path, 1, validation_episodes=2)
    assert evaluated == [(range(10_000, 10_002), 80)] * 2
    assert [r["mean"] for r in results["rounds"]] == [5.0, 3.0]
    assert [r["real_steps"] for r in results["rounds"]] == [120 + 80, 240 + 160]
    assert results["best_round"] == 0


def test_the_statistics_of_normalized_rewards_are_kept_over_the_rounds(run_path):
    config = looping(1).model_copy(update={"normalize_rewards": True})
    train_agent(Run(run_path), config)
    folder = results_folder(Run(run_path), config)
    counts = [
        json.loads((folder / f"reward_statistics_{i}.json").read_text())["count"] for i in range(2)
    ]
    assert counts == pytest.approx([256, 512], abs=1)
    (folder / "reward_statistics_1.json").write_text("{}")
    with pytest.raises(RunError, match=r"reward_statistics_1.json is damaged: mean"):
        train_agent(Run(run_path), looping(2).model_copy(update={"normalize_rewards": True}))


def test_the_best_agent_is_evaluated_as_it_was_trained(run_path, monkeypatch):
    evaluated = []

    def spied(envs, *rest, **more):
        evaluated.append(envs.run.path)
        return finalize(envs, *rest, **more)

    finalize = loop_module.finalize
    monkeypatch.setattr(loop_module, "finalize", spied)
    monkeypatch.setattr(LoopState, "best_round", lambda self, settings: len(self.rounds) - 1)
    results = trained(run_path, 1)
    assert results["best_round"] == 1
    assert evaluated == [folder_of(run_path) / "model_1"]
    assert results["model_data_steps"] == 32 * 16


def test_the_loop_ends_when_it_no_longer_improves(run_path):
    results = trained(run_path, 5, patience=1, min_improvement=1e9)
    assert [r["round"] for r in results["rounds"]] == [0, 1]
    assert results["best_round"] == 0


def test_a_stop_within_a_round_loses_no_round(run_path, monkeypatch):
    whole = trained(run_path, 1)
    shutil.rmtree(run_path / "rl")
    learn = loop_module.learn
    calls = []

    def stopped(*arguments):
        calls.append(1)
        return learn(*arguments) or len(calls) == 2

    monkeypatch.setattr(loop_module, "learn", stopped)
    with pytest.raises(InterruptedRunError, match="same command resumes after them"):
        trained(run_path, 1)
    monkeypatch.setattr(loop_module, "learn", learn)
    again = trained(run_path, 1)
    assert again["real"] == whole["real"]
    assert again["rounds"] == whole["rounds"]
    steps = [json.dumps([point["steps"] for point in each["curve"]]) for each in (whole, again)]
    assert steps[0] == steps[1]  # 512, not 512.0


def killed(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "step",
    [
        "rl.loop.encode_episodes",
        "rl.loop.heads_phase",
        "run.Run.save_imagination",
        "rl.loop.save_agent",
        "rl.loop.collect",
        "rl.loop.write_json",
        "rl.loop.finalize",
    ],
)
def test_a_round_that_was_cut_off_anywhere_is_repeated_to_the_same_result(
    run_path, monkeypatch, step
):
    def stop_at(step):
        with monkeypatch.context() as patch:
            patch.setattr(f"worldmodel.{step}", killed)
            with pytest.raises(InterruptedRunError, match=r"Stopped in round [12]"):
                trained(run_path, 1)

    stop_at("rl.loop.encode_episodes")
    folder = folder_of(run_path)
    assert len(json.loads((folder / "loop.json").read_text())["rounds"]) == 1
    kept = shutil.copytree(folder, run_path / "kept")
    whole = trained(run_path, 1)
    files = model_files(folder / "model_1")
    shutil.rmtree(folder)
    kept.rename(folder)
    stop_at(step)
    again = trained(run_path, 1)
    assert again["rounds"] == whole["rounds"]
    assert again["real"] == whole["real"]
    assert curve_of(again) == curve_of(whole)
    assert model_files(folder / "model_1") == files


def curve_of(results):
    return [(point["steps"], point["mean"]) for point in results["curve"]]


def test_a_loop_without_its_last_model_is_an_error(run_path):
    folder = folder_of(run_path)
    folder.mkdir(parents=True)
    rounds = [{"round": 0, "real_steps": 600, "mean": 1.0}]
    (folder / "loop.json").write_text(json.dumps({"rounds": rounds}))
    with pytest.raises(RunError, match="model_0 is damaged or incomplete; delete") as error:
        trained(run_path, 1)
    assert "model.tmp" not in str(error.value)


def test_finished_rounds_are_kept_if_the_state_of_a_loop_is_lost(run_path):
    trained(run_path, 1)
    folder = folder_of(run_path)
    (folder / "loop.json").unlink()
    before = sorted(folder.rglob("*"))
    with pytest.raises(RunError, match=r"loop.json is missing .* start the loop from scratch"):
        trained(run_path, 1)
    assert sorted(folder.rglob("*")) == before


def test_a_loop_that_was_killed_before_its_first_round_starts_over(run_path):
    folder = folder_of(run_path)
    folder.mkdir(parents=True)
    (folder / ".loop.0123.json").write_text("{")
    assert len(trained(run_path, 1)["rounds"]) == 2


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("loop.json", "[]"),
        ("loop.json", '{"rounds": [{"round": 0, "real_steps": "many", "mean": 1.0}]}'),
        ("loop.json", '{"rounds": [{"round": 0, "mean": 1.0}]}'),
        ("loop.json", '{"rounds": [{"round": 7, "real_steps": 600, "mean": 1.0}]}'),
        ("loop.json", '{"rounds": [], "curve": {"points": 3}}'),
        ("agent_0.zip", "PK"),
    ],
)
def test_a_damaged_loop_is_an_error(run_path, file, content):
    folder = folder_of(run_path)
    folder.mkdir(parents=True)
    rounds = [{"round": 0, "real_steps": 600, "mean": 1.0}]
    (folder / "loop.json").write_text(json.dumps({"rounds": rounds}))
    (folder / file).write_text(content)
    shutil.copytree(run_path / "models", folder / "model_1" / "models")
    for name in ("config.yaml", "signature"):
        shutil.copy(run_path / name, folder / "model_1")
    with pytest.raises(RunError, match=rf"{file} .*damaged.* start the loop from scratch"):
        trained(run_path, 1)


@pytest.mark.parametrize(
    ("means", "best", "improving"),
    [
        ([10.0], 0, True),
        ([10.0, 10.05], 0, True),
        ([10.0, 10.05, 10.09], 0, False),
        ([10.0, 10.05, 10.2], 2, True),
        ([-10.0, -9.95, -9.0], 2, True),
        ([10.0, 20.0, 15.0, 20.1], 1, False),
    ],
)
def test_a_round_counts_as_better_by_one_percent(means, best, improving):
    rounds = [{"round": i, "real_steps": 1, "mean": mean} for i, mean in enumerate(means)]
    state = LoopState(rounds)
    assert state.best_round(Loop()) == best
    assert state.improving(Loop()) is improving


def test_patience_and_improvement_follow_the_configuration():
    state = LoopState([{"round": i, "real_steps": 1, "mean": 10.0 + i} for i in range(2)])
    assert state.best_round(Loop()) == 1
    assert state.best_round(Loop(min_improvement=0.2)) == 0
    assert state.improving(Loop(min_improvement=0.2))
    assert not state.improving(Loop(min_improvement=0.2, patience=1))
