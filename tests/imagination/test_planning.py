"""Planning drives a known world to where it is asked, through the model's own parts."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from torch import nn

from worldmodel.imagination import PlanningPolicy, imagined_return, nearness
from worldmodel.imagination.optimizers import CEM, icem
from worldmodel.models import ModelSpec, WorldModel, describe_actions


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


class Predictor(Parts):
    def unroll(self, z, actions):
        steps = []
        for action in actions:
            z = self(z, action)
            steps.append(z)
        return torch.stack(steps)


def model(space=BOX, end=-9.0):
    """The world model that knows `Line`."""
    spec = ModelSpec(
        frame_shape=(1,),
        frame_stack=1,
        actions=describe_actions(space),
        latent_dim=2,
        width=4,
        hidden=8,
    )
    wm = WorldModel(spec)

    def push(a):
        return a[:, 2] - a[:, 0] if isinstance(space, spaces.Discrete) else a[:, 0]

    def move(z, a):
        return z + 0.2 * torch.stack([push(a), torch.zeros(len(a))], 1)

    wm.encoder = Parts(lambda obs: torch.cat([obs, torch.zeros_like(obs)], 1))
    wm.predictor = Predictor(move)
    wm.reward_head = Parts(lambda z, a, following: -(following[:, 0] - 1).abs())
    wm.termination_head = Parts(lambda z, a, following: torch.full((len(z),), end))
    return wm


@pytest.mark.parametrize("space", [BOX, PUSHES])
@pytest.mark.parametrize("objective", [imagined_return, nearness(torch.tensor([1.0, 0.0]))])
def test_it_reaches_the_goal_and_stays(space, objective):
    policy = PlanningPolicy(model(space), objective, icem(64, 3), horizon=5)
    env = Line(space)
    observation, _ = env.reset()
    for _ in range(20):
        action, _ = policy.predict(observation)
        assert env.action_space.contains(action)
        observation, *_ = env.step(action)
    assert observation[0] == pytest.approx(1.0, abs=0.11)


def test_stable_baselines_evaluates_it_as_one_of_its_own():
    policy = PlanningPolicy(model(), optimizer=icem(64, 3), horizon=5)
    mean, spread = evaluate_policy(policy, Line(BOX), n_eval_episodes=2, warn=False)
    assert -13.0 < mean < -9.0  # ten steps of a fifth bring it there: -(1.8 + 1.6 + ... + 0.2)
    assert spread < 1.0


def test_problems_of_a_batch_are_planned_side_by_side():
    policy = PlanningPolicy(model(), optimizer=CEM(200, 4, 20), horizon=4)
    observations = np.array([[-1.0], [3.0], [1.0]], np.float32)
    actions, _ = policy.predict(observations)
    assert actions.shape == (3, 1)
    assert actions[0, 0] > 2.0
    assert actions[1, 0] < -2.0
    assert abs(actions[2, 0]) < 1.5


def test_an_episodes_start_forgets_the_last_plan_of_that_problem_alone():
    policy = PlanningPolicy(model(), optimizer=icem(64, 3), horizon=5)
    z = torch.tensor([[-1.0, 0.0], [-1.0, 0.0]])
    policy.plan(z)
    begin = policy._begin(z, np.array([True, False]))
    assert not begin.mean[:, 0].any()
    assert begin.mean[:, 1].any()


def test_what_a_plan_leads_to_is_the_models_rollout():
    policy = PlanningPolicy(model(), optimizer=icem(64, 3), horizon=5)
    z = torch.tensor([[-1.0, 0.0]])
    actions = policy.plan(z)
    expected = -1.0 + 0.2 * actions[:, 0, 0].cumsum(0)
    assert torch.allclose(policy.imagine(z)[:, 0, 0], expected, atol=1e-5)


def test_rewards_after_a_likely_end_do_not_count():
    latents = torch.zeros(4, 1, 2)
    latents[:, 0, 0] = torch.tensor([0.0, 1.0, 3.0, 5.0])
    actions = torch.zeros(3, 1, 1)
    going, ended = model(end=-50.0), model(end=50.0)
    assert imagined_return(going, latents, actions).item() == pytest.approx(-(0 + 2 + 4))
    assert imagined_return(ended, latents, actions).item() == pytest.approx(0.0)
    halfway = model(end=0.0)
    assert imagined_return(halfway, latents, actions).item() == pytest.approx(-(0 + 1 + 1))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="horizon is 0"):
        PlanningPolicy(model(), horizon=0)
    with pytest.raises(ValueError, match="there is no plan yet"):
        PlanningPolicy(model()).imagine(torch.zeros(1, 2))
