"""`benchmarks/public`: a row runs from data to agent, and results are summarized with intervals."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import gymnasium as gym
import numpy as np
import pytest
import torch

from benchmarks.public.__main__ import interval, main, summary
from benchmarks.public.measures import (
    FastRendering,
    PushTGoals,
    Retrained,
    Score,
    TwoRoomExpert,
    WideView,
    dream_agent,
)
from benchmarks.public.peers import PEERS, lewm, pldm
from benchmarks.public.rows import ROWS
from worldmodel.agent_config import AgentConfig
from worldmodel.config import build_config, from_options
from worldmodel.errors import InterruptedRunError
from worldmodel.hyperparameters import ObjectiveConfig
from worldmodel.objectives import Forecast, check_objective
from worldmodel.rl.agents import check_consistent

ROOT = Path(__file__).parents[1]


def lines(values, trials=50):
    return [
        {
            "value": value,
            "trials": trials,
            "cpu_minutes": 12.0,
            "real_steps": 40_000,
            "details": {"random_successes": 13},
        }
        for value in values
    ]


def test_a_success_rate_has_the_wilson_interval_of_all_goals():
    low, high = interval(ROWS["tworoom"], lines([98.0, 100.0, 96.0]))
    assert (low, high) == pytest.approx((94.28, 99.32), abs=0.01)  # 147 of 150


def test_a_return_has_the_interval_of_the_mean_over_seeds():
    low, high = interval(ROWS["cartpole"], lines([400.0, 500.0, 450.0]))
    half = 4.302653 * 50 / np.sqrt(3)
    assert (low, high) == pytest.approx((450 - half, 450 + half), abs=1e-3)
    assert np.isnan(interval(ROWS["cartpole"], lines([400.0]))).all()


def test_the_summary_has_ours_beside_published_results():
    text = summary("tworoom", lines([98.0, 100.0, 96.0]))
    assert "98.0 % of goals (94.3 to 99.3; seeds: 98.0, 100.0, 96.0; random actions: 26.0)" in text
    assert "12 CPU minutes, 40,000 real steps" in text
    assert "LeWM 87; PLDM 97" in text
    assert "754.1 return (one seed, no interval; seeds: 754.1)" in summary(
        "dmc-cup", lines([754.1])
    )


@pytest.mark.parametrize("seed", ["-1", "4294967296", "x"])
def test_seeds_out_of_range_are_refused(seed, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["public", "cartpole", f"--seeds={seed}"])
    with pytest.raises(SystemExit):
        main()
    assert f"'{seed}' is no seed; expected 0 to 4294967295" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ("tworoom", "tworoom needs stable_worldmodel: pip install -e '.[benchmarks]'"),
        ("dmc-cartpole", "needs shimmy, dm_control: pip install 'shimmy[dm-control]' 'mujoco<4'"),
    ],
)
def test_rows_are_listed_and_missing_packages_named(row, hint, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["public"])
    main()
    listed = capsys.readouterr().out
    assert all(name in listed for name in ROWS)
    monkeypatch.setattr("benchmarks.public.__main__.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["public", row])
    with pytest.raises(SystemExit):
        main()
    assert hint in capsys.readouterr().err


def test_the_expert_of_two_room_heads_for_the_door_and_then_for_the_target(monkeypatch):
    monkeypatch.setattr(TwoRoomExpert, "NOISE", 0.0)
    space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    act = TwoRoomExpert().bind(space, None, 100)(0)
    doors = [112, 60, 112, 150, 0, 0]

    def heading(position, target):
        return act(0, np.array([*position, *target, *doors], np.float32))

    np.testing.assert_allclose(heading((20, 60), (200, 60)), [1, 0], atol=1e-6)
    np.testing.assert_allclose(heading((20, 20), (20, 80)), [0, 1], atol=1e-6)
    assert heading((60, 140), (200, 20))[1] > 0  # the closest door is the lower one
    assert heading((110, 150), (200, 20))[1] < 0  # at the door it turns to the target


def test_goals_in_two_room_are_drawn_from_the_expert(tmp_path, monkeypatch):
    reached = {"successes": 49, "interval": [0.9, 1.0], "random_successes": 13}
    reached |= {"successes_at_start": 2, "decision_ms": 80.0, "success_rate": 0.98, "episodes": 50}
    asked: dict[str, Any] = {}
    metrics = SimpleNamespace(data=SimpleNamespace(train_steps=40_000))

    def reach_goals(**settings):
        return asked.update(settings) or reached

    def load_or_collect(env_id, path, **settings):
        asked.update(expert=settings)
        return SimpleNamespace(close=lambda: None)

    config = SimpleNamespace(env=SimpleNamespace(frame_skip=2))
    run = SimpleNamespace(reach_goals=reach_goals, metrics=metrics, config=config)
    monkeypatch.setattr("worldmodel.train", lambda **settings: asked.update(train=settings) or run)
    monkeypatch.setattr("benchmarks.public.measures.load_or_collect", load_or_collect)
    score = ROWS["tworoom-250"].measure(2, tmp_path, False)
    assert (score.value, score.trials, score.real_steps) == (98.0, 50, 80_000)
    assert score.details["random_successes"] == 13
    assert asked["train"]["size"] == 250
    assert asked["train"]["seed"] == asked["seed"] == 2
    assert min(asked["expert"]["seeds"]) >= 20_000
    assert asked["goals"] == tmp_path / "expert"
    assert (asked["goal_offset"], asked["budget"], asked["success"]) == (25, 50, "terminated")


def test_a_goal_in_pusht_is_reached_by_positions_and_angle():
    body = SimpleNamespace
    env = Mock(spec=gym.Env, metadata={})
    env.unwrapped = SimpleNamespace(
        agent=body(position=(100.0, 100.0)), block=body(position=(200.0, 200.0), angle=0.1)
    )
    env.reset.return_value = (0, {"other": 1})
    env.step.return_value = (0, 0.0, False, False, {})
    task = PushTGoals(env)
    assert task.reset()[1]["reached"] is False
    turned = 0.1 + 2 * np.pi + 0.3
    goal = np.array([110.0, 110.0, 210.0, 205.0, np.cos(turned), np.sin(turned)])
    _, info = task.reset(seed=3, options={"goal_state": goal})
    assert info["reached"]
    assert info["other"] == 1
    np.testing.assert_allclose(info["state"], [100, 100, 200, 200, np.cos(0.1), np.sin(0.1)])
    env.unwrapped.block.angle -= 0.1  # 0.4 rad, more than 20 degrees, from the goal
    assert not task.step(0)[4]["reached"]
    env.unwrapped.block.angle += 0.1
    env.unwrapped.agent.position = (88.0, 100.0)  # together 27 pixels from the goal
    assert not task.step(0)[4]["reached"]


@pytest.fixture
def forecast():
    z = torch.randn(4, 8, 5, generator=torch.Generator().manual_seed(0))
    predictions = z + 0.1 * torch.arange(4.0)[:, None, None]
    return Forecast(predictions, 0.7 * z, torch.zeros(3, 8, 2))


def prediction_error(forecast):
    return float(np.mean((forecast.predictions[1:].numpy() - forecast.targets[1:].numpy()) ** 2))


def test_the_objective_of_lewm_is_its_formula(forecast):
    loss, terms = lewm(forecast, ObjectiveConfig(), torch.Generator().manual_seed(3))
    drawn = torch.randn(5, 1024, generator=torch.Generator().manual_seed(3)).numpy()
    directions = drawn / np.linalg.norm(drawn, axis=0)
    t = np.linspace(0, 3, 17)
    statistics = []
    for z in forecast.targets.numpy():
        error = (
            np.abs(np.exp(1j * (z @ directions)[..., None] * t).mean(0) - np.exp(-(t**2) / 2)) ** 2
        )
        statistics.append(8 * 2 * np.trapezoid(error * np.exp(-(t**2) / 2), t, axis=-1).mean())
    assert float(terms["sigreg"]) == pytest.approx(np.mean(statistics), rel=1e-4)
    expected = prediction_error(forecast) + 0.09 * np.mean(statistics)
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_the_objective_of_pldm_is_its_formula(forecast):
    loss, _ = pldm(forecast, ObjectiveConfig(), torch.Generator())
    z = forecast.targets.numpy()
    centred = z - z.mean(1, keepdims=True)
    hinge = np.maximum(0, 1 - np.sqrt(z.var(1, ddof=1) + 1e-4)).mean()
    over_time = np.maximum(0, 1 - np.sqrt(centred.var(0, ddof=1) + 1e-4)).mean()
    covariances = [np.cov(step.T) for step in z]
    pairs = ~np.eye(5, dtype=bool)
    covariance = np.mean([matrix[pairs] ** 2 for matrix in covariances])
    alignment = np.mean(np.diff(z, axis=0) ** 2)
    expected = prediction_error(forecast) + 18 * hinge + 0.7 * over_time
    assert float(loss) == pytest.approx(expected + 12 * covariance + 0.2 * alignment, rel=1e-6)


@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_changes_the_objective_and_nothing_else(peer, tmp_path, monkeypatch):
    settings = ObjectiveConfig(**PEERS[peer])
    check_objective(settings, latent_dim=6, action_dim=2)
    assert not settings.stop_gradient

    def asked(row):
        train = Mock(side_effect=InterruptedError)
        monkeypatch.setattr("worldmodel.train", train)
        with pytest.raises(InterruptedError):
            ROWS[row].measure(0, tmp_path, False)
        return train.call_args.kwargs

    assert asked(f"tworoom-{peer}") == {**asked("tworoom"), "settings": {"objective": PEERS[peer]}}


def test_the_agents_of_one_model_have_seeds_of_their_own_and_real_steps_count_repeats(
    tmp_path, monkeypatch
):
    seeds = []

    def train_agent(seed, **settings):
        seeds.append(seed)
        real = {"mean": 10.0 * seed, "std": 1.0, "returns": [0.0] * 20}
        return {"real": real, "real_steps": 50 * seed, "model_data_steps": 1000}

    config = SimpleNamespace(env=SimpleNamespace(frame_skip=4))
    run = SimpleNamespace(train_agent=train_agent, config=config)
    monkeypatch.setattr("worldmodel.train", lambda **settings: run)
    score = dream_agent("Any-v0", {}, {"steps": 10}, agents=3)(2, tmp_path, False)
    assert seeds == [6, 7, 8]
    assert (score.value, score.trials) == (70.0, 60)
    assert score.real_steps == 4 * (1000 + 50 * 8)


@pytest.mark.parametrize(
    ("finished", "message"),
    [(0, "Stopped before a seed was finished.\n"), (1, "measure the others with --seeds 1 2")],
)
@pytest.mark.parametrize("stop", [KeyboardInterrupt(), InterruptedRunError("Stopped")])
def test_an_interrupted_row_names_the_seeds_that_are_left(
    stop, finished, message, tmp_path, monkeypatch, capsys
):
    def measured(seed, folder, smoke):
        if seed == finished:
            raise stop
        return Score(1.0, 1, 10, {})

    row = replace(ROWS["cartpole"], measure=measured)
    monkeypatch.setitem(ROWS, "cartpole", row)
    monkeypatch.setattr(sys, "argv", ["public", "cartpole"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130
    assert message in capsys.readouterr().err
    written = tmp_path / "results" / "public.jsonl"
    assert written.is_file() == bool(finished)
    assert not finished or len(written.read_text().splitlines()) == finished


def test_dm_control_renders_without_shadows_and_antialiasing():
    quality = SimpleNamespace(shadowsize=2048, offsamples=4)
    physics = SimpleNamespace(model=SimpleNamespace(vis=SimpleNamespace(quality=quality)))
    env = gym.make("CartPole-v1")
    env.unwrapped._env = SimpleNamespace(physics=physics)
    FastRendering(env)
    assert (quality.shadowsize, quality.offsamples) == (0, 0)


def test_the_wide_view_is_that_of_the_first_camera():
    model = SimpleNamespace(cam_fovy=[45.0, 45.0])
    env = gym.make("CartPole-v1")
    env.unwrapped._env = SimpleNamespace(physics=SimpleNamespace(model=model))
    WideView(env)
    assert model.cam_fovy == [60, 45.0]


def collecting(asked):
    """Replace `load_or_collect`: record what is asked, and say that every episode has 10 steps."""

    def load_or_collect(env, path, *, episodes, **options):
        asked.append({"path": str(path), "episodes": episodes, **options})
        return nullcontext(SimpleNamespace(num_transitions=10 * episodes))

    return load_or_collect


def test_models_are_trained_again_on_the_episodes_of_the_best_agents(tmp_path, monkeypatch):
    asked, trained, agents = [], [], []

    def train(**options):
        trained.append((options["updates"], list(options["data"])))
        assert options["settings"] == {"data.heldout_size": 16, "seed": 3}
        config = SimpleNamespace(env=SimpleNamespace(frame_skip=4))
        return SimpleNamespace(train_agent=train_agent, config=config, model=len(trained))

    def train_agent(**settings):
        agents.append((settings["candidates"], settings["eval_episodes"]))
        real = {"mean": float(len(agents)), "std": 1.0, "returns": [0.0] * 10}
        results = {"real": real, "real_steps": 7, "agent": f"{len(agents)}.zip"}
        return results | {"candidates": [{"seed": 2, "mean": -1.0, "real_steps": 7}]}

    monkeypatch.setattr("worldmodel.train", train)
    monkeypatch.setattr("benchmarks.public.measures.load_or_collect", collecting(asked))
    measure = Retrained(
        "Any-v0",
        steps=125,
        make={"frame_skip": 4},
        agent={"steps": 10},
        settings={"seed": 3},
        updates=(7, 8, 9),
        random=40,
        added=16,
        judged=5,
    )
    score = measure(2, tmp_path, False)
    assert [call["episodes"] for call in asked] == [40, 16, 16]
    paths = [call["path"] for call in asked]
    assert trained == [(7, paths[:1]), (8, paths[:2]), (9, paths)]
    explorers = [call["policy"] for call in asked[1:]]
    assert [(each.wm, each.agent.name) for each in explorers] == [(1, "1.zip"), (2, "2.zip")]
    assert {call["frame_skip"] for call in asked} == {4}
    drawn = [seed for call in asked for seed in call["seeds"]]
    assert len(set(drawn)) == 72
    assert min(drawn) >= 1_000_000
    assert agents == [({}, 1), ({}, 1), ({"count": 3, "episodes": 5}, 10)]
    assert (score.value, score.trials, score.real_steps) == (3.0, 10, 4 * (720 + 3 * 7))
    assert score.details["validation"] == [[-1.0]] * 3


@pytest.mark.parametrize(
    ("row", "wrappers"),
    [
        ("dmc-cartpole", ["FastRendering", "WideView"]),
        ("dmc-cup", ["FastRendering"]),
        ("dmc-reacher", ["FastRendering"]),
    ],
)
def test_dm_control_is_rendered_and_encoded_as_documented(row, wrappers, tmp_path, monkeypatch):
    asked: dict[str, Any] = {}

    def train(**settings):
        asked.update(settings)
        raise InterruptedError

    monkeypatch.setattr("worldmodel.train", train)
    monkeypatch.setattr("benchmarks.public.measures.load_or_collect", collecting([]))
    with pytest.raises(InterruptedError):
        ROWS[row].measure(0, tmp_path, False)
    assert [name.partition(":")[2] for name in asked["wrappers"]] == wrappers
    assert asked["env_kwargs"]["render_kwargs"]["camera_id"] == 0
    assert asked["settings"]["model.encoder"] == "keypoints"
    assert asked["settings"]["model.encoder_kwargs"] == {"blur": 2.0}


@pytest.mark.parametrize("smoke", [False, True])
@pytest.mark.parametrize("row", [name for name in ROWS if ROWS[name].metric == "return"])
def test_the_settings_of_a_row_are_valid(row, smoke, tmp_path, monkeypatch):
    configs = []

    def train_agent(**settings):
        configs.append(AgentConfig(**settings))
        real = {"mean": 1.0, "std": 1.0, "returns": [0.0] * 20}
        return {"real": real, "real_steps": 0, "model_data_steps": 1000, "agent": "agent.zip"}

    def train(settings=None, preset="quick", **options):
        config = build_config(from_options(**options), settings or {}, preset=preset)
        return SimpleNamespace(train_agent=train_agent, config=config, model=None)

    monkeypatch.setattr("worldmodel.train", train)
    monkeypatch.setattr("benchmarks.public.measures.load_or_collect", collecting([]))
    ROWS[row].measure(1, tmp_path, smoke)
    assert all(check_consistent(config) is None for config in configs)
    assert configs[0].on == "dream"
    assert not smoke or (configs[0].candidates.count, configs[0].ensemble.size) == (1, 0)


@pytest.mark.slow
def test_a_row_runs_in_its_smallest_form(tmp_path):
    command = [sys.executable, "-m", "benchmarks.public", "cartpole", "--smoke"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| CartPole-v1, agent trained in the dream |" in done.stdout
    (line,) = (tmp_path / "results" / "public.jsonl").read_text().splitlines()
    result = json.loads(line)
    assert result["smoke"]
    assert 1 <= result["value"] <= 500
    assert result["real_steps"] > 100
