"""Model predictive control reaches goals in an environment that the model knows exactly."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from torch import nn

from worldmodel.models import ModelSpec, WorldModel, describe_actions
from worldmodel.planning import CEM, PlanningPolicy, goal_distance, icem, imagined_return


class Line(gym.Env):
    """A point on a line of vectors: an action moves it by a fifth; the reward is -|x - 1|."""

    def __init__(self, space):
        self.observation_space = spaces.Box(-9.0, 9.0, (1,), np.float32)
        self.action_space = space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = -1.0, 0
        return np.array([self.x], np.float32), {}

    def step(self, action):
        if isinstance(self.action_space, spaces.Discrete):
            push = float(action) - self.action_space.start - 1.0
        else:
            push = float(action[0]) / 4.0
        self.x, self.t = self.x + 0.2 * push, self.t + 1
        observation = np.array([self.x], np.float32)
        return observation, -abs(self.x - 1.0), False, self.t == 20, {}


BOX, PUSHES = spaces.Box(-4.0, 4.0, (1,)), spaces.Discrete(3, start=5)


class Parts(nn.Module):
    """A part of the model, as a function."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


def model(space=BOX, end=-9.0):
    """A world model with the dynamics of `Line`."""
    spec = ModelSpec(
        frame_shape=(1,),
        frame_stack=1,
        actions=describe_actions(space),
        latent_dim=2,
        width=4,
        hidden=8,
        encoder="mlp",
    )
    wm = WorldModel(spec)

    def push(a):
        return a[:, 2] - a[:, 0] if isinstance(space, spaces.Discrete) else a[:, 0]

    def move(z, a):
        return z + 0.2 * torch.stack([push(a), torch.zeros(len(a))], 1)

    wm.encoder = Parts(lambda obs: torch.cat([obs, torch.zeros_like(obs)], 1))
    wm.predictor = Parts(move)
    wm.reward_head = Parts(lambda z, a, following: -(following[:, 0] - 1).abs())
    wm.termination_head = Parts(lambda z, a, following: torch.full((len(z),), end))
    return wm


@pytest.mark.parametrize("space", [BOX, PUSHES])
@pytest.mark.parametrize("objective", [imagined_return, goal_distance(torch.tensor([1.0, 0.0]))])
def test_reaches_the_goal_and_stays(space, objective):
    policy = PlanningPolicy(model(space), objective, icem(64, 3), horizon=5)
    env = Line(space)
    observation, _ = env.reset()
    for _ in range(20):
        action, _ = policy.predict(observation)
        assert env.action_space.contains(action)
        observation, *_ = env.step(action)
    assert observation[0] == pytest.approx(1.0, abs=0.11)


def test_stable_baselines_can_evaluate_it():
    policy = PlanningPolicy(model(), optimizer=icem(64, 3), horizon=5)
    mean, spread = evaluate_policy(policy, Line(BOX), n_eval_episodes=2, warn=False)
    assert -13.0 < mean < -9.0  # ten steps of a fifth bring it there: -(1.8 + 1.6 + ... + 0.2)
    assert spread < 1.0


def test_plans_a_batch_of_problems_at_once():
    policy = PlanningPolicy(model(), optimizer=CEM(200, 4, 20), horizon=4)
    observations = np.array([[-1.0], [3.0], [1.0]], np.float32)
    actions, _ = policy.predict(observations)
    assert actions.shape == (3, 1)
    assert actions[0, 0] > 2.0
    assert actions[1, 0] < -2.0
    assert abs(actions[2, 0]) < 1.5


def test_episode_start_discards_the_last_plan_of_that_problem_only():
    policy = PlanningPolicy(model(), optimizer=icem(64, 3), horizon=5)
    z = torch.tensor([[-1.0, 0.0], [-1.0, 0.0]])
    policy.plan(z)
    initial = policy._initial_search(z, np.array([True, False]))
    assert not initial.mean[:, 0].any()
    assert initial.mean[:, 1].any()


def test_imagining_a_plan_is_the_models_rollout():
    policy = PlanningPolicy(model(), optimizer=icem(64, 3), horizon=5)
    z = torch.tensor([[-1.0, 0.0]])
    actions = policy.plan(z)
    expected = -1.0 + 0.2 * actions[:, 0, 0].cumsum(0)
    assert torch.allclose(policy.imagine(z)[:, 0, 0], expected, atol=1e-5)


def test_rewards_after_a_likely_termination_do_not_count():
    latents = torch.zeros(4, 1, 2)
    latents[:, 0, 0] = torch.tensor([0.0, 1.0, 3.0, 5.0])
    actions = torch.zeros(3, 1, 1)
    going, ended = model(end=-50.0), model(end=50.0)
    assert imagined_return(going, latents, actions).item() == pytest.approx(-(0 + 2 + 4))
    assert imagined_return(ended, latents, actions).item() == pytest.approx(0.0)
    halfway = model(end=0.0)
    assert imagined_return(halfway, latents, actions).item() == pytest.approx(-(0 + 1 + 1))


def test_invalid_use_is_rejected():
    with pytest.raises(ValueError, match="horizon is 0"):
        PlanningPolicy(model(), horizon=0)
    with pytest.raises(ValueError, match="there is no plan yet"):
        PlanningPolicy(model()).imagine(torch.zeros(1, 2))
