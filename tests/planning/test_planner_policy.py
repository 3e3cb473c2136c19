"""The planner as a policy that collects data: reproducible, and cached by its weights."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from worldmodel.data.policies import resolve_policy
from worldmodel.errors import RunError
from worldmodel.planning import MPPI, Planned, PlanningPolicy, icem, planner_of
from worldmodel.planning.policy import noisy


def actions(policy, run, seeds=range(12), steps=4):
    """Actions of each episode, (E, T, 2)."""
    env = run.make_env()
    start = policy.bind(env.action_space, env.observation_space, steps)
    episodes = []
    for seed in seeds:
        act = start(seed)
        observation, _ = env.reset(seed=seed)
        taken = []
        for t in range(steps):
            taken.append(act(t, observation))
            observation, *_ = env.step(taken[-1])
        episodes.append(taken)
    return np.array(episodes)


def test_seeds_decide_which_episodes_are_planned(run):
    policy = Planned(run.path, fraction=0.5, noise=0.0)
    some = actions(policy, run)
    assert np.array_equal(some, actions(policy, run))
    all_random = actions(resolve_policy("random"), run)
    planned = (some != all_random).any((1, 2))
    assert 0 < planned.sum() < len(planned)
    assert np.array_equal(actions(Planned(run.path, fraction=0.0), run), all_random)


def test_planned_actions_are_those_of_planning_policy(run):
    optimizer = icem(samples=16, iterations=2, elites=4)
    policy = Planned(run.path, 1.0, 0.0, optimizer, horizon=4)
    planner = PlanningPolicy(run.model, optimizer=optimizer, horizon=4, seed=3)
    env = run.make_env()
    observation, _ = env.reset(seed=3)
    assert np.array_equal(actions(policy, run, [3], 1)[0, 0], planner.predict(observation)[0])
    noise = actions(Planned(run.path, 1.0, 0.3, optimizer, horizon=4), run, [3], 1)
    assert not np.array_equal(noise[0, 0], planner.predict(observation)[0])


def test_identity_names_everything_that_decides_the_actions(run):
    policy = Planned(run.path)
    identity = policy.identity()
    assert set(identity) == {
        *("name", "sha256", "fraction", "noise", "optimizer", "horizon", "random"),
    }
    assert identity["name"] == "planned"
    assert identity["optimizer"]["kept"] == 0.3
    assert resolve_policy(str(run.path)).identity() == identity
    assert Planned(run.path, noise=0.1).identity() != identity
    for part in ("encoder", "predictor", "reward_head", "termination_head"):
        weights = run.path / "models" / f"{part}.pth"
        content = weights.read_bytes()
        weights.write_bytes(content + b"x")
        assert policy.identity()["sha256"] != identity["sha256"]
        weights.write_bytes(content)
    assert policy.identity() == identity


def test_planner_of_a_run_plans_every_step_with_its_configuration(run):
    default = planner_of(run)
    assert (default.fraction, default.noise, default.horizon) == (1.0, 0.0, 20)
    assert default.optimizer == icem()
    changed = planner_of(run.with_settings({"planning": {"method": "mppi", "horizon": 5}}))
    assert changed.horizon == 5
    assert changed.optimizer == MPPI()


def test_other_actions_than_the_models_are_rejected(run):
    policy = Planned(run.path)
    assert policy.frame_input == ((16, 16, 3), 2)
    with pytest.raises(ValueError, match="use policy 'random'"):
        policy.bind(spaces.Discrete(3), spaces.Box(0, 255, (16, 16, 6), np.uint8), 4)


def test_noise_is_in_half_ranges_and_clipped():
    space = gym.spaces.Box(np.float32([-1.0, 0.0]), np.float32([1.0, 8.0]))
    rng = np.random.default_rng(0)
    middle = np.float32([0.0, 4.0])
    drawn = np.stack([noisy(middle, space, 0.1, rng) for _ in range(4000)])
    assert drawn.dtype == np.float32
    assert drawn.std(0) == pytest.approx([0.1, 0.4], rel=0.05)
    far = np.stack([noisy(middle, space, 50.0, rng) for _ in range(10)])
    assert all(space.contains(action) for action in far)
    assert noisy(2, spaces.Discrete(3), 0.1, rng) == 2


def test_directory_that_is_no_run_is_rejected(tmp_path):
    with pytest.raises(RunError, match="is not a run directory"):
        _ = Planned(tmp_path).frame_input
