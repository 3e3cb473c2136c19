"""The loop of acting, learning and dreaming, and the comparison of all views."""

import json
import shutil

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import worldmodel
from cli import app
from worldmodel.data import ReplayBuffer
from worldmodel.interrupt import InterruptedRunError
from worldmodel.report.agents import insert_agents
from worldmodel.rl import algorithms
from worldmodel.rl import compare as compare_module
from worldmodel.rl import dyna as dyna_module
from worldmodel.rl import train as train_module
from worldmodel.run import RunError


def unfilmed(worlds, agent, seed, path, algo):
    path.touch()
    return path


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(dyna_module, "_UPDATES", 20)
    monkeypatch.setattr(dyna_module, "_EPISODES", 3)
    monkeypatch.setattr(dyna_module, "PATIENCE", 10)
    monkeypatch.setattr(algorithms, "_ROLLOUT", 256)
    monkeypatch.setattr(train_module, "film", unfilmed)


def taught(*arguments):
    result = CliRunner().invoke(app, ["rl", *(str(a) for a in arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


LOOP = ["--on", "dream", "--steps", 256, "--envs", 4]


def weights(folder, part):
    return torch.load(folder / "models" / f"{part}.pth", weights_only=True)


def test_the_loop_collects_learns_and_goes_on_where_it_stopped(run):
    results = taught(run, *LOOP, "--rounds", 1)
    folder = run / "rl" / "dream_ppo_256_seed0_envs4_dyna"
    assert [r["round"] for r in results["rounds"]] == [0, 1]
    assert [r["real_steps"] for r in results["rounds"]] == [600, 1200]
    assert results["real_steps"] == 1200
    with ReplayBuffer.open(folder / "experience" / "1") as buffer:
        assert buffer.num_transitions == 600
    for part, changed in (("encoder", False), ("decoder", False), ("predictor", True)):
        before, after = weights(run, part), weights(folder / "model_1", part)
        same = all(torch.equal(before[name], after[name]) for name in before)
        assert same is not changed, part
    assert worldmodel.load(results["model"]).decoder is not None

    first_round = results["rounds"][1]
    more = taught(run, *LOOP, "--rounds", 2)
    assert more["rounds"][1] == first_round
    assert [r["round"] for r in more["rounds"]] == [0, 1, 2]
    assert more["real_steps"] == 1800
    assert more["steps"] >= results["steps"]


def test_the_best_agent_is_judged_as_it_was_trained(run, monkeypatch):
    monkeypatch.setattr(dyna_module, "IMPROVEMENT", -1e9)
    judged = []

    def spied(worlds, *rest, **more):
        judged.append(worlds.run)
        return conclude(worlds, *rest, **more)

    conclude = dyna_module.conclude
    monkeypatch.setattr(dyna_module, "conclude", spied)
    results = taught(run, *LOOP, "--rounds", 1)
    assert results["best_round"] == 1
    assert judged == [run / "rl" / "dream_ppo_256_seed0_envs4_dyna" / "model_1"]
    assert results["model_steps"] == 32 * 16


def test_the_loop_ends_when_it_no_longer_improves(run, monkeypatch):
    monkeypatch.setattr(dyna_module, "PATIENCE", 1)
    monkeypatch.setattr(dyna_module, "IMPROVEMENT", 1e9)
    results = taught(run, *LOOP, "--rounds", 5)
    assert [r["round"] for r in results["rounds"]] == [0, 1]
    assert results["best_round"] == 0


def test_a_stop_within_a_round_loses_no_round(run, monkeypatch):
    whole = taught(run, *LOOP, "--rounds", 1)
    shutil.rmtree(run / "rl")
    learn = dyna_module.learn
    calls = []

    def stopped(agent, *rest):
        calls.append(1)
        return learn(agent, *rest) or len(calls) == 2

    monkeypatch.setattr(dyna_module, "learn", stopped)
    result = CliRunner().invoke(app, ["rl", str(run), *map(str, LOOP), "--rounds", "1"])
    assert result.exit_code == 1
    assert "goes on from there" in " ".join(result.output.split())
    monkeypatch.setattr(dyna_module, "learn", learn)
    again = taught(run, *LOOP, "--rounds", 1)
    assert again["real"] == whole["real"]
    assert again["rounds"] == whole["rounds"]


def killed(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["write_dream", "save_agent", "replacing"])
def test_a_round_that_was_cut_off_anywhere_is_done_again(run, monkeypatch, step):
    def loop(rounds):
        lesson = train_module.Lesson(on="dream", algo="ppo", steps=256, seed=0, envs=4)
        return dyna_module.dyna(run, lesson, rounds, device="cpu", console=Console(stderr=True))

    loop(0)
    kept = shutil.copytree(run / "rl", run / "kept")
    whole = loop(1)
    shutil.rmtree(run / "rl")
    kept.rename(run / "rl")
    with monkeypatch.context() as patch:
        patch.setattr(dyna_module, step, killed)
        with pytest.raises(InterruptedRunError, match="Stopped in round 1"):
            loop(1)
    again = loop(1)
    assert again["rounds"] == whole["rounds"]
    assert again["real"] == whole["real"]


def test_a_loop_without_its_last_model_is_told(run):
    folder = run / "rl" / "dream_ppo_256_seed0_envs4_dyna"
    folder.mkdir(parents=True)
    rounds = [{"round": 0, "real_steps": 600, "mean": 1.0}]
    (folder / "dyna.json").write_text(json.dumps({"rounds": rounds}))
    result = CliRunner().invoke(app, ["rl", str(run), *map(str, LOOP), "--rounds", "1"])
    assert result.exit_code == 1
    told = " ".join(result.output.split())
    assert "model_0 is damaged or incomplete; delete" in told
    assert "model.tmp" not in told


def test_without_its_state_a_loop_begins_anew(run):
    first = taught(run, *LOOP, "--rounds", 1)
    folder = run / "rl" / "dream_ppo_256_seed0_envs4_dyna"
    learned = (folder / "model_1" / "models" / "predictor.pth").stat().st_mtime_ns
    (folder / "dyna.json").unlink()
    assert taught(run, *LOOP, "--rounds", 1)["rounds"] == first["rounds"]
    assert (folder / "model_1" / "models" / "predictor.pth").stat().st_mtime_ns > learned


@pytest.mark.parametrize(
    ("file", "content"),
    [("dyna.json", "[]"), ("dyna.json", '{"other": 1}'), ("agent_0.zip", "PK")],
)
def test_a_damaged_loop_is_told(run, file, content):
    folder = run / "rl" / "dream_ppo_256_seed0_envs4_dyna"
    folder.mkdir(parents=True)
    rounds = [{"round": 0, "real_steps": 600, "mean": 1.0}]
    (folder / "dyna.json").write_text(json.dumps({"rounds": rounds}))
    (folder / file).write_text(content)
    shutil.copytree(run / "models", folder / "model_1" / "models")
    shutil.copy(run / "config.yaml", folder / "model_1")
    result = CliRunner().invoke(app, ["rl", str(run), *map(str, LOOP), "--rounds", "1"])
    assert result.exit_code == 1
    told = " ".join(result.output.split())
    assert file in told
    assert "damaged" in told
    assert "the loop begins anew" in told


@pytest.mark.parametrize(
    ("means", "best", "going_on"),
    [
        ([10.0], 0, True),
        ([10.0, 10.05], 0, True),
        ([10.0, 10.05, 10.09], 0, False),
        ([10.0, 10.05, 10.2], 2, True),
        ([-10.0, -9.95, -9.0], 2, True),
        ([10.0, 20.0, 15.0, 20.1], 1, False),
    ],
)
def test_a_round_counts_as_better_by_one_percent(monkeypatch, means, best, going_on):
    monkeypatch.setattr(dyna_module, "PATIENCE", 2)
    rounds = [{"round": i, "real_steps": 1, "mean": mean} for i, mean in enumerate(means)]
    state = dyna_module.State(rounds)
    assert state.best == best
    assert state.going_on is going_on


def test_returns_below_zero_are_compared_as_such():
    def results(mean):
        point = {"steps": 100, "seconds": 1.0, "mean": mean, "reward_a_step": mean / 200}
        last = {**point, "steps": 200, "seconds": 2.0, "mean": -150.0}
        real = {"mean": mean, "reward_a_step": mean / 200}
        more = {"real_steps": 200, "model_steps": 0, "seconds": 2.0}
        return [{"real": real, "curve": [point, last], **more}]

    told = compare_module._side_by_side({"state": results(-150.0), "dream": results(-600.0)})
    assert told["threshold"] == pytest.approx(-165.0)
    assert told["views"]["state"]["steps_to_threshold"] == 100
    assert told["views"]["dream"]["steps_to_threshold"] == 200
    assert told["views"]["dream"]["of_state"] is None


def test_views_are_compared_once_and_shown_in_the_report(run, monkeypatch):
    arguments = ["compare", run, "--steps", 256, "--seeds", 2, "--no-pixels"]
    told = taught(*arguments)
    assert list(told["views"]) == ["state", "latent", "dream"]
    assert told["views"]["state"]["of_state"] == pytest.approx(1.0)
    for on in told["views"]:
        means = [
            json.loads((run / "rl" / f"{on}_ppo_256_seed{i}" / "results.json").read_text())["real"]
            for i in (0, 1)
        ]
        assert told["views"][on]["mean"] == pytest.approx(sum(m["mean"] for m in means) / 2)
    page = (run / "report.html").read_text()
    assert page.count('<section id="agents">') == 1
    assert f"{told['views']['dream']['mean']:.1f}" in page

    def trained(*_, **__):
        raise AssertionError("trained again")

    broken = run / "rl" / "dream_ppo_256_seed1" / "results.json"
    whole = broken.read_text()
    broken.write_text(whole[:60])
    result = CliRunner().invoke(app, ["rl", *(str(a) for a in arguments)])
    assert result.exit_code == 1
    assert "dream_ppo_256_seed1/results.json is damaged" in " ".join(result.output.split())
    broken.write_text(whole)

    monkeypatch.setattr(compare_module, "rl", trained)
    assert taught(*arguments) == told
    assert (run / "report.html").read_text() == page


def test_a_comparison_trains_anew_what_was_trained_otherwise(run, monkeypatch):
    taught(run, "--on", "dream", "--steps", 256, "--dream-steps", 9)
    taught(run, "--on", "latent", "--steps", 256)
    trained = []

    def spied(run, lesson, **how):
        trained.append(lesson.on)
        return train_module.rl(run, lesson, **how)

    monkeypatch.setattr(compare_module, "rl", spied)
    taught("compare", run, "--steps", 256, "--no-pixels", "--seeds", 1)
    assert trained == ["state", "dream"]


def test_a_stopped_comparison_says_that_it_goes_on(run, monkeypatch):
    def stopped(*_, **__):
        raise InterruptedRunError("the same command begins anew")

    monkeypatch.setattr(compare_module, "rl", stopped)
    result = CliRunner().invoke(app, ["rl", "compare", str(run), "--no-pixels"])
    assert result.exit_code == 1
    assert "Stopped with an agent on state; the same command keeps those" in result.output


def test_a_damaged_comparison_is_told(run):
    (run / "rl").mkdir()
    (run / "rl" / "compare.json").write_text('{"views": ')
    with pytest.raises(RunError, match=r"compare.json is damaged .* writes it anew"):
        insert_agents(run)
