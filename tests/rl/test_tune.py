"""Choice of an agent's settings by validation episodes."""

import json

import pytest

from worldmodel.agent_config import AgentConfig
from worldmodel.checks import check_path
from worldmodel.errors import ConfigError, InterruptedRunError, RunError
from worldmodel.rl import agents as agents_module
from worldmodel.rl import ranking_table, tune_agent
from worldmodel.rl import tune as tune_module
from worldmodel.rl.tune import parse_grid
from worldmodel.run import Run

SHORT = AgentConfig(steps=256, eval_episodes=3, max_eval_steps=20)
GRID = {"dream_steps": [5, 9], "ensemble.size": [0, 2]}


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr("worldmodel.rl.tuned._PPO_ROLLOUT", 256)


@pytest.fixture
def scored(monkeypatch):
    """Agents are not trained: longer imagined episodes and later seeds are better."""
    made = []

    def trial(run, config, task, callbacks):
        made.append((config.dream_steps, config.ensemble.size, config.seed))
        mean = config.dream_steps - config.ensemble.size + 10.0 * config.seed
        rates = {"reward_per_step": mean / 2, "training_reward_per_step": mean}
        return tune_module.Trial(config=config.to_json(), mean=mean, **rates)

    monkeypatch.setattr(tune_module, "_train", trial)
    return made


def test_every_combination_is_ranked_by_its_mean_over_the_seeds(run_path, scored):
    tuning = tune_agent(Run(run_path), SHORT, GRID, range(2))
    assert scored == [(d, e, seed) for d in (5, 9) for e in (0, 2) for seed in (0, 1)]
    assert tuning["best"] == {"dream_steps": 9, "ensemble.size": 0}
    assert [row["mean"] for row in tuning["ranking"]] == [14.0, 12.0, 10.0, 8.0]
    assert tuning["ranking"][0]["returns"] == [9.0, 19.0]
    assert tuning["ranking"][0]["std"] == 5.0
    table = ranking_table(tuning)
    assert table.row_count == 4
    assert table.caption == "Best: --set agent.dream_steps=9 --set agent.ensemble.size=0"


def test_by_default_dream_length_and_leaving_are_tried(run_path, scored):
    tuning = tune_agent(Run(run_path), SHORT)
    tried = [tuple(row["settings"].values()) for row in tuning["ranking"]]
    lengths, leaving = (20, 50, 100, 200), (True, False)
    assert sorted(tried) == sorted((d, ends) for d in lengths for ends in leaving)


def test_finished_agents_are_not_trained_again(run_path, scored):
    tune_agent(Run(run_path), SHORT, GRID)
    extended = {**GRID, "dream_steps": [9, 12]}
    tune_agent(Run(run_path), SHORT, extended)
    assert scored[4:] == [(12, 0, 0), (12, 2, 0)]
    tune_agent(Run(run_path), SHORT.model_copy(update={"steps": 300}), {"dream_steps": [9]})
    assert scored[6:] == [(9, 0, 0)]
    assert check_path(run_path) == []
    path = run_path / "rl" / "tune.json"
    trials = json.loads(path.read_text())
    assert len(trials["trials"]) == 7
    del trials["trials"][2]["mean"]
    path.write_text(json.dumps(trials))
    with pytest.raises(RunError, match=r"tune.json is damaged: trials.2.mean"):
        tune_agent(Run(run_path), SHORT, GRID)
    assert [problem.fix for problem in check_path(run_path)] == [
        f"delete it, then run `worldmodel rl tune {run_path}`"
    ]


def test_agents_are_trained_in_the_dream_and_judged_on_validation_seeds(run_path, monkeypatch):
    evaluated = []
    evaluation = agents_module.real_evaluation

    def spied(envs, config, seeds):
        evaluated.append(seeds)
        return evaluation(envs, config, seeds)

    monkeypatch.setattr(agents_module, "real_evaluation", spied)
    tuning = tune_agent(Run(run_path), SHORT, {"dream_steps": [5, 9]})
    assert evaluated == [range(10_000, 10_003)] * 2
    trials = json.loads((run_path / "rl" / "tune.json").read_text())["trials"]
    assert [trial["config"]["dream_steps"] for trial in trials] == [5, 9]
    assert sorted(t["mean"] for t in trials) == sorted(r["mean"] for r in tuning["ranking"])
    assert tuning["episodes"] == 3


def test_a_stopped_tuning_keeps_its_finished_agents(run_path, monkeypatch):
    learn, trained = tune_module.learn, []

    def stopped(*args, **kwargs):
        trained.append(1)
        return learn(*args, **kwargs) or len(trained) == 2

    monkeypatch.setattr(tune_module, "learn", stopped)
    with pytest.raises(InterruptedRunError, match="keeps the finished agents"):
        tune_agent(Run(run_path), SHORT, {"dream_steps": [5, 9]})
    assert len(json.loads((run_path / "rl" / "tune.json").read_text())["trials"]) == 1
    tune_agent(Run(run_path), SHORT, {"dream_steps": [5, 9]})
    assert len(trained) == 3


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"dream_step": [5]}, r"unknown key 'agent.dream_step' \(did you mean"),
        ({"dream_steps": [5, "many"]}, r"agent.dream_steps"),
        ({"seed": [1, 2]}, r"seed cannot be tried: use --seeds"),
        ({"gamma": []}, r"gamma has the values \[\]; expected distinct ones"),
        ({"gamma": [0.9, 0.9]}, r"gamma has the values \[0.9, 0.9\]; expected distinct ones"),
    ],
)
def test_mistakes_in_the_grid_are_reported_before_training(run_path, scored, grid, message):
    with pytest.raises(ConfigError, match=message):
        tune_agent(Run(run_path), SHORT, grid)
    assert scored == []


def test_settings_that_do_not_fit_are_reported_before_training(run_path, scored):
    on_latents = SHORT.model_copy(update={"on": "latent"})
    with pytest.raises(ValueError, match=r"agent.dream_steps: for agents in the dream only"):
        tune_agent(Run(run_path), on_latents, {"gamma": [0.9], "dream_steps": [50, 9]})
    with pytest.raises(ValueError, match=r"loop.rounds is 2"):
        tune_agent(Run(run_path), AgentConfig(loop={"rounds": 2}), GRID)
    assert scored == []


def test_a_grid_of_the_command_line():
    assert parse_grid(None) is None
    assert parse_grid(["dream_steps=20,50", "leaving_terminates=true,false"]) == {
        "dream_steps": [20, 50],
        "leaving_terminates": [True, False],
    }
    for text in ("dream_steps", "=1,2", "dream_steps="):
        with pytest.raises(ConfigError, match="write key=value,value"):
            parse_grid([text])
    with pytest.raises(ConfigError, match="given twice"):
        parse_grid(["gamma=0.9", "gamma=0.99"])
