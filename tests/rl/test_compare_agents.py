"""The comparison of agents on all views."""

import json

import pytest

from worldmodel.agent_config import AgentConfig
from worldmodel.checks import check_path
from worldmodel.errors import InterruptedRunError, RunError
from worldmodel.rl import agents as agents_module
from worldmodel.rl import compare as compare_module
from worldmodel.rl import compare_agents, comparison_table, train_agent
from worldmodel.run import Run
from worldmodel.viz.report import insert_agents


def no_video(envs, agent, seed, path, algo):
    path.touch()
    return path


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr("worldmodel.rl.tuned._PPO_ROLLOUT", 256)
    monkeypatch.setattr(agents_module, "record_video", no_video)


def compared(path, seeds=range(1), **settings):
    return compare_agents(Run(path), AgentConfig(steps=256, **settings), seeds, pixels=False)


def must_not_train(*_, **__):
    raise AssertionError("trained again")


def test_negative_returns_are_compared_as_such():
    def results(mean):
        point = {"steps": 100, "seconds": 1.0, "mean": mean, "reward_per_step": mean / 200}
        last = {**point, "steps": 200, "seconds": 2.0, "mean": -150.0}
        real = {"mean": mean, "reward_per_step": mean / 200}
        more = {"real_steps": 200, "model_data_steps": 0, "seconds": 2.0}
        return [{"real": real, "curve": [point, last], **more}]

    comparison = compare_module._side_by_side({"state": results(-150.0), "dream": results(-600.0)})
    assert comparison["threshold"] == pytest.approx(-165.0)
    assert comparison["views"]["state"]["steps_to_threshold"] == 100
    assert comparison["views"]["dream"]["steps_to_threshold"] == 200
    assert comparison["views"]["dream"]["fraction_of_state"] is None


def test_views_are_compared_once_and_shown_in_the_report(run_path, monkeypatch):
    comparison = compared(run_path, range(2))
    assert list(comparison["views"]) == ["state", "latent", "dream"]
    assert comparison["views"]["state"]["fraction_of_state"] == pytest.approx(1.0)
    for on in comparison["views"]:
        means = [
            json.loads((run_path / "rl" / f"{on}_ppo_256_seed{i}" / "results.json").read_text())[
                "real"
            ]
            for i in (0, 1)
        ]
        assert comparison["views"][on]["mean"] == pytest.approx(sum(m["mean"] for m in means) / 2)
    assert json.loads((run_path / "rl" / "compare.json").read_text()) == comparison
    assert check_path(run_path) == []
    assert comparison_table(comparison).row_count == 3
    page = (run_path / "report.html").read_text()
    assert page.count('<section id="agents">') == 1
    assert f"{comparison['views']['dream']['mean']:.1f}" in page

    broken = run_path / "rl" / "dream_ppo_256_seed1" / "results.json"
    whole = broken.read_text()
    broken.write_text(whole[:60])
    with pytest.raises(RunError, match=r"dream_ppo_256_seed1/results.json is damaged"):
        compared(run_path, range(2))
    broken.write_text(whole)

    monkeypatch.setattr(compare_module, "train_agent", must_not_train)
    assert compared(run_path, range(2)) == comparison
    assert (run_path / "report.html").read_text() == page


def test_a_comparison_reuses_equal_agents_alone(run_path, monkeypatch):
    train_agent(Run(run_path), AgentConfig(on="dream", steps=256, dream_steps=9))
    train_agent(Run(run_path), AgentConfig(on="latent", steps=256))
    trained = []

    def spied(run, config, callbacks):
        trained.append(config.on)
        return train_agent(run, config, callbacks)

    monkeypatch.setattr(compare_module, "train_agent", spied)
    compared(run_path)
    assert trained == ["state", "dream"]
    results = run_path / "rl" / "latent_ppo_256_seed0" / "results.json"
    older = json.loads(results.read_text())
    older["config"]["kwargs"]["n_steps"] += 1  # as the defaults of another version
    results.write_text(json.dumps(older))
    compared(run_path)
    assert trained == ["state", "dream", "latent"]


def test_settings_of_the_dream_apply_to_the_dream_alone(run_path, monkeypatch):
    configs = []

    def spied(run, config, callbacks):
        configs.append(config)
        return train_agent(run, config, callbacks)

    monkeypatch.setattr(compare_module, "train_agent", spied)
    compared(run_path, dream_steps=9, gamma=0.9)
    assert [config.on for config in configs] == ["state", "latent", "dream"]
    assert [config.dream_steps for config in configs] == [50, 50, 9]
    assert [config.gamma for config in configs] == [0.9] * 3


@pytest.mark.parametrize(
    "settings",
    [{"loop": {"rounds": 1}}, {"ensemble": {"penalty": 0.1}}, {"kwargs": {"n_step": 1}}],
)
def test_a_comparison_that_cannot_be_made_fails_before_any_training(
    run_path, monkeypatch, settings
):
    monkeypatch.setattr(compare_module, "train_agent", must_not_train)
    with pytest.raises(ValueError, match=r"loop.rounds is 1|ensemble.size is 0|'n_step'"):
        compared(run_path, **settings)


def test_a_stopped_comparison_says_that_finished_agents_are_kept(run_path, monkeypatch):
    def stopped(*_, **__):
        raise InterruptedRunError("the same command trains from scratch")

    monkeypatch.setattr(compare_module, "train_agent", stopped)
    with pytest.raises(InterruptedRunError, match=r"Stopped with an agent on state; .* keeps"):
        compared(run_path)


def test_a_damaged_comparison_is_reported(run_path):
    (run_path / "rl").mkdir()
    (run_path / "rl" / "compare.json").write_text('{"views": ')
    with pytest.raises(RunError, match=r"compare.json is damaged .* rewrites it"):
        insert_agents(run_path)
    older = {"views": {"state": {"mean": 1.0, "real_steps": 9, "model_steps": 9}}}
    (run_path / "rl" / "compare.json").write_text(json.dumps(older))
    page = (run_path / "report.html").read_text()
    with pytest.raises(
        RunError, match=r"compare.json is damaged: algo .*Field required.* rewrites it"
    ):
        insert_agents(run_path)
    assert (run_path / "report.html").read_text() == page
