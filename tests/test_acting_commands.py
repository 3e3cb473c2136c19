"""`rollout`, `plan` and data from a planner on the command line, with a hardly trained model."""

import importlib
import json
import os

import imageio.v3
import numpy as np
import pygame
import pytest
from PIL import Image
from typer.testing import CliRunner

import worldmodel
from worldmodel.cli import app
from worldmodel.planning.episodes import PlannedEpisode
from worldmodel.viz.viewer import Window

rollout_module = importlib.import_module("worldmodel.viz.rollout")


def invoke(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def succeed(*arguments):
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_rollout_shows_the_real_and_the_imagined_episode(driven_run, tmp_path):
    result = succeed("rollout", driven_run, "--steps", 12, "--output", tmp_path / "a.mp4")
    video = imageio.v3.imread(tmp_path / "a.mp4")
    assert video.shape[0] == result["steps"] + 1 == 13
    assert result["policy"] == "random"
    assert set(result["error"]) == {"0", "5", "10", "12"}
    again = succeed("rollout", driven_run, "--steps", 12, "--output", tmp_path / "b.gif")
    assert again["error"] == result["error"]
    other = succeed(
        *("rollout", driven_run, "--steps", 12, "--policy", "passive"),
        *("--seed", 5, "--output", tmp_path / "c.mp4"),
    )
    assert other["error"] != result["error"]


def test_rollout_starts_in_a_given_state(driven_run, tmp_path, monkeypatch):
    played = []
    original = rollout_module.forecast_clip
    monkeypatch.setattr(
        rollout_module,
        "forecast_clip",
        lambda wm, f, a: played.append((f, a)) or original(wm, f, a),
    )
    video = tmp_path / "a.mp4"
    succeed(
        *("rollout", driven_run, "--state", "3.14159265 3.14159265 0 0", "--policy", "passive"),
        *("--steps", 5, "--output", video),
    )
    frames, actions = played[0]
    env = worldmodel.make_env(driven_run)
    expected, _ = env.reset(options={"state": [np.pi, np.pi, 0, 0]})
    assert np.array_equal(frames[0], expected[..., -3:])
    assert not actions.any()


def test_rollout_plans_at_every_step_if_a_run_is_the_policy(driven_run, tmp_path):
    few = ("--steps", 6, "--output", tmp_path / "a.mp4", "--seed", 3)
    planned = succeed("rollout", driven_run, "--policy", driven_run, *few)
    random = succeed("rollout", driven_run, "--policy", "random", *few)
    assert planned["error"] != random["error"]
    longer = succeed("rollout", driven_run, "--policy", "random", *few[2:], "--steps", 9)
    assert longer["error"]["5"] == pytest.approx(random["error"]["5"], rel=1e-4)


def test_rollout_in_a_window_stays_until_a_key(driven_run, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    waits = []

    class Hand(Window):
        def wait(self, fps):
            waits.append(fps)
            if len(waits) == 10:
                pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_x))

    monkeypatch.setattr(rollout_module, "Window", Hand)
    assert succeed("rollout", driven_run, "--steps", 5, "--window")["video"] is None
    assert waits == [20.0] * 10


def test_plan_acts_in_the_real_environment_and_records_it(driven_run, tmp_path):
    few = ("--episodes", 2, "--steps", 15, "--horizon", 4, "--samples", 16, "--iterations", 1)
    result = succeed("plan", driven_run, *few, "--output", tmp_path / "plan.mp4")
    assert result["goal"] == "upright"
    assert [a["seed"] for a in result["attempts"]] == [20_000, 20_001]
    assert all(a["steps"] == 15 for a in result["attempts"])
    assert result["return_mean"] == pytest.approx(
        np.mean([a["return"] for a in result["attempts"]])
    )
    assert result["successes"] == sum(a["steps_to_success"] is not None for a in result["attempts"])
    assert len(imageio.v3.imread(result["video"])) == 15
    assert json.loads((driven_run / "plan.json").read_text()) == result
    for method in ("cem", "mppi"):
        other = succeed("plan", driven_run, *few, "--goal", "reward", "--method", method)
        assert other["successes"] is None


def test_plan_says_what_its_figures_mean(driven_run):
    few = ("--episodes", 2, "--horizon", 2, "--samples", 4, "--iterations", 1)
    for words, sentence in (
        (("--steps", 3), "The goal 'upright' was reached in 0 of 2 episodes; steps_to_success is"),
        (("--steps", 3, "--goal", "reward"), "The goal 'reward' has no test of success, so succ"),
        (
            ("--goals", "validation", "--goal-offset", 3, "--budget", 2, "--tolerance", 100),
            "Planning reached 2 of 2 goals and uniform random actions 2; 2 were reached at the st",
        ),
    ):
        result = invoke("plan", driven_run, *few, *words)
        assert result.exit_code == 0, result.output
        assert result.stderr.splitlines()[-1].startswith(sentence)


def test_a_model_of_one_action_is_reported_before_planning(run_path, tmp_path):
    worldmodel.Run(run_path).change_config({"data": {"policy": "passive"}})
    few = ("--episodes", 1, "--steps", 2, "--horizon", 1, "--samples", 2, "--iterations", 1)
    result = invoke("plan", run_path, *few, "--goal", "reward", "--method", "mppi")
    assert result.exit_code == 0, result.output
    assert "was trained on one action only" in result.stderr


def test_a_goal_image_is_reached_where_the_environment_shows_it(driven_run, tmp_path):
    env = worldmodel.make_env(driven_run)
    hanging, _ = env.reset(options={"state": [0.0, 0.0, 0.0, 0.0]})
    up, _ = env.reset(options={"state": [np.pi, np.pi, 0.0, 0.0]})
    for name, observation in (("down.png", hanging), ("up.png", up)):
        Image.fromarray(observation[..., -3:]).resize((64, 64), 0).save(tmp_path / name)
    few = ("--episodes", 1, "--steps", 25, "--horizon", 1, "--samples", 2, "--iterations", 1)
    up = succeed("plan", driven_run, *few, "--method", "mppi", "--goal", tmp_path / "up.png")
    assert up["successes"] == 0
    assert "closest 1% of training latents" in up["criterion"]


def test_success_is_holding_the_goal_without_a_break():
    attempt = PlannedEpisode(at_goal=[True, True, False, True, True, True, False])
    assert attempt.steps_to_success(2) == 2
    assert attempt.steps_to_success(3) == 6
    assert attempt.steps_to_success(4) is None


def test_a_planner_collects_data_and_records_which_model(driven_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = succeed(
        *("collect", "planned", "--policy", driven_run, "--size", 20, "--steps", 6),
        *("--image-size", 16),
    )
    assert result["episodes"] == 20
    assert result["metadata"]["policy"]["name"] == "planned"
    again = succeed(
        *("collect", "again", "--policy", driven_run, "--size", 20, "--steps", 6),
        *("--image-size", 16),
    )
    assert again["metadata"] == result["metadata"]
    random = succeed(
        *("collect", "random", "--policy", "random", "--size", 20, "--steps", 6),
        *("--image-size", 16),
    )
    assert random["metadata"] != result["metadata"]
    with (
        worldmodel.ReplayBuffer.open("planned") as planned,
        worldmodel.ReplayBuffer.open("again") as twice,
        worldmodel.ReplayBuffer.open("random") as held,
    ):
        every, start = np.arange(20), np.zeros(20, int)
        actions, same, others = (b.actions(every, start, 7) for b in (planned, twice, held))
    assert np.array_equal(actions, same)
    differ = (actions != others).any((1, 2))
    assert 0 < differ.sum() < 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rollout", "--output", "a.avi"), "ends in .mp4 or .gif"),
        (("rollout", "--state", "1 2 x 4"), "expected numbers"),
        (("rollout", "--state", "1 2"), "θ1"),
        (("rollout", "--policy", "clever"), "policy is 'clever'"),
        (("rollout", "--window", "--output", "a.gif"), "give one of them"),
        (("plan", "--goal", "nowhere.png"), "no such file; expected 'reward', 'upright', or"),
        (("plan", "--method", "shooting"), "expected one of icem, cem, mppi"),
        (("collect", "--image-size", "32"), "use the same image_size"),
    ],
)
def test_mistakes_end_in_one_line(driven_run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    command, *rest = arguments
    target = ["there", "--policy", driven_run] if command == "collect" else [driven_run]
    result = invoke(command, *target, *rest)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert isinstance(result.exception, SystemExit)
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_no_run_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    for command in ("rollout", "plan", "play"):
        result = invoke(command, tmp_path)
        assert result.exit_code == 1
        assert "is not a run directory" in result.stderr


def test_of_a_directory_of_runs_the_latest_run_is_suggested(tmp_path):
    for age, name in enumerate(("new", "old")):
        (tmp_path / name).mkdir()
        config = tmp_path / name / "config.yaml"
        config.touch()
        os.utime(config, (1e9 - age, 1e9 - age))
    result = invoke("plan", tmp_path)
    assert result.exit_code == 1
    assert "such as " + str(tmp_path / "new") in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--goal-offset", 5), "--goal-offset requires --goals"),
        (("--goals", "heldout", "--steps", 5), "--steps cannot be used with --goals"),
        (("--goals", "nowhere"), "goals is 'nowhere'; expected 'heldout', 'validation', or"),
    ],
)
def test_options_of_the_other_kind_of_planning_are_refused(driven_run, options, message):
    result = invoke("plan", driven_run, *options)
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.stderr.split())
