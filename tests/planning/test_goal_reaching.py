"""Goal reaching: tasks from recorded episodes, tests of success, and their summary."""

import json

import numpy as np
import pytest
import torch

from worldmodel.checks import check_path
from worldmodel.data import FrameStack, ReplayBuffer, collect
from worldmodel.planning import StepOutcome, draw_tasks, reach_goals
from worldmodel.planning.goal_tasks import choose_success_test

FEW = {"goal_offset": 3, "budget": 4, "episodes": 3, "samples": 8, "iterations": 1, "horizon": 3}
FRAMES = FrameStack(2)


@pytest.fixture(scope="module")
def recorded(driven_run, tmp_path_factory):
    """Episodes of the run's environment, with other seeds than its own."""
    path = tmp_path_factory.mktemp("goals") / "buffer"
    env = {"env_id": "DoublePendulumPixels-v0", "env_kwargs": {"start": "uniform"}}
    seeds = range(500, 504)
    collect(path=path, seeds=seeds, episodes=4, steps=9, policy="random", image_size=16, **env)
    with ReplayBuffer.open(path) as buffer:
        yield buffer


def test_start_and_goal_are_offset_steps_apart_in_one_episode(recorded):
    tasks = draw_tasks(recorded, FRAMES, 4, 12, seed=0)
    assert len({(task.seed, len(task.actions)) for task in tasks}) == 12
    for task in tasks:
        episode, t = np.array([task.seed - 500]), len(task.actions)
        window = recorded.windows(episode, np.array([0]), 10)
        assert np.array_equal(task.start, window.frames[0, t])
        assert np.array_equal(task.actions, window.actions[0, :t])
        assert np.array_equal(task.goal[..., 3:], window.frames[0, t + 4])
        assert np.array_equal(task.goal[..., :3], window.frames[0, t + 3])
        states = recorded.states(episode, np.array([0]), 10)[0]
        assert np.array_equal(task.goal_state, states[t + 4])
    assert [t.seed for t in draw_tasks(recorded, FRAMES, 4, 5, seed=0)] != [
        t.seed for t in draw_tasks(recorded, FRAMES, 4, 5, seed=1)
    ]


def test_a_task_starts_where_the_episode_was(run, recorded):
    env = run.make_env(start="uniform")
    for task in draw_tasks(recorded, FRAMES, 4, 4, seed=0):
        observation, info = task.reset(env, FRAMES)
        states = recorded.states(np.array([task.seed - 500]), np.array([0]), 10)[0]
        assert np.allclose(info["state"], states[len(task.actions)])
        assert np.array_equal(observation[..., 3:], task.start)
    with pytest.raises(ValueError, match=r"does not repeat its episode of seed 50\d"):
        task.reset(run.make_env(start="down"), FRAMES)


def test_reset_options_set_the_true_states(run, recorded):
    env = run.make_env()
    for task in draw_tasks(recorded, FRAMES, 4, 4, 0, start_option="state", goal_option="target"):
        assert len(task.actions) == 0
        assert np.array_equal(task.options["target"], task.goal_state)
        observation, _ = env.reset(seed=task.seed, options={"state": task.options["state"]})
        assert np.array_equal(observation[..., 3:], task.start)
    (task,) = draw_tasks(recorded, FRAMES, 4, 1, 0, start_option="state")
    observation, info = task.reset(env, FRAMES)
    assert np.array_equal(observation[..., 3:], task.start)
    assert np.allclose(info["state"], task.options["state"])
    task.options["state"] = task.options["state"] + 0.5
    with pytest.raises(ValueError, match=r"reset with the options state differs.*whole state"):
        task.reset(env, FRAMES)
    (task,) = draw_tasks(recorded, FRAMES, 9, 1, 0, goal_option="state")
    with pytest.raises(ValueError, match=r"does not repeat its episode of seed 50\d"):
        task.reset(env, FRAMES)


def test_goals_of_a_buffer_need_its_environment(run, recorded, tmp_path):
    """A buffer's own arguments of the environment replace those of the run."""
    hanging = run.with_settings({"env": {"kwargs": {"start": "down", "max_torque": 9.0}}})
    result = reach_goals(hanging, goals=recorded.path, tolerance=100, **FEW)
    assert result["successes"] == 3
    settings = {"steps": 9, "policy": "random", "episodes": 1, "seeds": [1], "image_size": 16}
    collect("Acrobot-v1", tmp_path / "other", **settings).close()
    with pytest.raises(ValueError, match=r"episodes of Acrobot-v1.*trained on DoublePendulum"):
        reach_goals(run, goals=tmp_path / "other", **FEW)
    own = {"env_id": "DoublePendulumPixels-v0", "frame_skip": 2}
    collect(path=tmp_path / "skipped", **own, **settings).close()
    with pytest.raises(ValueError, match=r"frame skip of 2.*collect it with --frame-skip 1"):
        reach_goals(run, goals=tmp_path / "skipped", **FEW)


def test_episodes_without_a_seed_need_a_start_option(recorded, tmp_path):
    whole = recorded.windows(np.arange(4), np.zeros(4, int), 10)
    states = recorded.states(np.arange(4), np.zeros(4, int), 10)
    episodes = [
        {"frames": whole.frames[i], "actions": whole.actions[i], "states": states[i]}
        | ({"seed": 7} if i == 2 else {})
        for i in range(4)
    ]
    with ReplayBuffer.from_episodes(tmp_path / "one", episodes) as buffer:
        assert {task.seed for task in draw_tasks(buffer, FRAMES, 4, 5, seed=0)} == {7}
        with pytest.raises(ValueError, match=r"have 6 starts.*3 episodes without a seed need"):
            draw_tasks(buffer, FRAMES, 4, 7, seed=0)
        any_seed = draw_tasks(buffer, FRAMES, 4, 20, seed=0, start_option="state")
        assert {task.seed for task in any_seed} == {7, None}
    with (
        ReplayBuffer.from_episodes(tmp_path / "none", [episodes[0]]) as buffer,
        pytest.raises(ValueError, match=r"no seeds that an environment could repeat"),
    ):
        draw_tasks(buffer, FRAMES, 4, 1, seed=0)


def test_tasks_that_do_not_fit_are_reported(recorded):
    with pytest.raises(ValueError, match=r"have 4 starts with a goal 9 steps later, and 5 are"):
        draw_tasks(recorded, FRAMES, 9, 5, seed=0)
    with pytest.raises(
        ValueError, match=r"lower --episodes or --goal-offset \(the median episode has 9 steps"
    ):
        draw_tasks(recorded, FRAMES, 10, 1, seed=0)


def test_success_is_judged_as_asked_for(run, recorded):
    (task,) = draw_tasks(recorded, FRAMES, 4, 1, seed=0)
    z = run.model.encode(task.goal[None])
    at, away = {"state": task.goal_state}, {"state": task.goal_state + np.array([0, 0.5, 0, 0])}
    test, criterion = choose_success_test(run, recorded, None, 0.2)
    assert test(task, z)(StepOutcome(at, False, z))
    assert not test(task, z)(StepOutcome(away, True, z))
    assert criterion.startswith("true state within 0.2 standard deviations")
    assert choose_success_test(run, recorded, "distance", 9.0)[0](task, z)(
        StepOutcome(away, False, z)
    )
    turned = {"state": task.goal_state + np.array([2 * np.pi, 0, 0, 0])}
    assert test(task, z)(StepOutcome(turned, False, z))
    test, _ = choose_success_test(run, recorded, "terminated", 0.2)
    assert test(task, z)(StepOutcome(away, True, z))
    assert not test(task, z)(StepOutcome(at, False, z))
    test, _ = choose_success_test(run, recorded, "latent", 0.2)
    assert test(task, z)(StepOutcome({}, False, z))
    assert not test(task, z)(StepOutcome({}, False, z + 100))
    test, _ = choose_success_test(run, recorded, "is_success", 0.2)
    assert test(task, z)(StepOutcome({"is_success": True}, False, z))
    assert not test(task, z)(StepOutcome({"is_success": False}, False, z))
    assert not test(task, z)(StepOutcome({}, False, z, after_reset=True))
    with pytest.raises(ValueError, match="success is 'is_success', and info has 'state'; expected"):
        test(task, z)(StepOutcome(at, False, z))
    test, _ = choose_success_test(run, recorded, "distance", 0.2)
    with pytest.raises(ValueError, match="needs the true state, and info has no 'state'"):
        test(task, z)(StepOutcome({}, False, z))


def test_result_is_written_and_repeatable(run):
    result = reach_goals(run, tolerance=0.7, **FEW)
    assert json.loads((run.path / "goals.json").read_text()) == result
    assert check_path(run.path) == []
    assert (result["goals"], result["success"], result["tolerance"]) == ("heldout", None, 0.7)
    steps = [attempt["steps_to_success"] for attempt in result["attempts"]]
    assert result["successes"] == sum(s is not None for s in steps)
    assert result["success_rate"] == result["successes"] / 3
    rate, z = result["success_rate"], 1.959964
    center = (rate + z**2 / 6) / (1 + z**2 / 3)
    half = z / (1 + z**2 / 3) * np.sqrt(rate * (1 - rate) / 3 + z**2 / 36)
    assert result["interval"] == pytest.approx([center - half, center + half], abs=1e-6)
    assert all(a["seed"] >= 20_000 for a in result["attempts"])
    assert (run.path / "goals.mp4").stat().st_size > 1000
    again = run.reach_goals(tolerance=0.7, **FEW)
    assert again["attempts"] == result["attempts"]
    tuned = reach_goals(run, goals="validation", **FEW)
    assert all(10_000 <= a["seed"] < 20_000 for a in tuned["attempts"])


def test_a_task_ends_at_its_goal_and_within_the_budget(run, recorded):
    everything = reach_goals(run, goals=recorded.path, tolerance=100, **FEW)
    assert [a["steps_to_success"] for a in everything["attempts"]] == [1, 1, 1]
    assert (everything["successes_at_start"], everything["random_successes"]) == (3, 3)
    nothing = reach_goals(run, goals=recorded.path, tolerance=0, **FEW)
    assert [a["steps_to_success"] for a in nothing["attempts"]] == [None, None, None]
    assert nothing["random_successes"] == 0
    assert nothing["steps_median"] is None


def test_a_perfect_model_reaches_its_goals(run, recorded, monkeypatch):
    """With the recorded actions as plan, every start leads to its goal in `offset` steps."""
    tasks = draw_tasks(recorded, FRAMES, 3, 3, seed=0)
    plans = []
    for task in tasks:
        episode = np.array([task.seed - 500])
        plans.append(recorded.windows(episode, np.array([0]), 10).actions[0, len(task.actions) :])

    def recorded_action(policy, observation, **_):
        policy.done = getattr(policy, "done", -1) + 1
        policy._last = policy._initial_search(torch.zeros(1, 8), None)
        return plans[policy._generator.initial_seed()][policy.done], None

    monkeypatch.setattr("worldmodel.planning.PlanningPolicy.predict", recorded_action)
    result = reach_goals(run, goals=recorded.path, tolerance=1e-3, **FEW)
    assert [a["steps_to_success"] for a in result["attempts"]] == [3, 3, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goals": "nowhere"}, "goals is 'nowhere'; expected 'heldout'"),
        ({"goal_offset": 0}, "goal_offset is 0; expected 1 or more"),
        ({"budget": 0}, "budget is 0; expected 1 or more"),
        ({"episodes": 0}, "episodes is 0; expected 1 or more"),
        ({"goal_offset": 300}, "starts with a goal 300 steps later"),
        ({"success": "nokey"}, "success is 'nokey', and info has"),
    ],
)
def test_arguments_that_do_not_fit_are_reported(run, options, message):
    with pytest.raises(ValueError, match=message):
        reach_goals(run, **(FEW | options))


def test_the_training_data_are_not_needed(run, monkeypatch):
    def missing(*_):
        raise AssertionError("the training data were opened")

    monkeypatch.setattr("worldmodel.run.Run.datasets", missing)
    assert reach_goals(run, **FEW)["episodes"] == 3
