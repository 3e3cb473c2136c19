"""Imagined episodes: the contract of Gymnasium, and the predictions of the model's parts."""

import doctest
import sys

import gymnasium as gym
import imageio.v3
import numpy as np
import pygame
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import RecordEpisodeStatistics, RecordVideo, TimeLimit
from numpy.testing import assert_allclose, assert_array_equal
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.monitor import Monitor

from worldmodel import Run
from worldmodel.errors import RunError
from worldmodel.imagination import Domain, LatentEnv, LatentVectorEnv
from worldmodel.models import ModelSpec, WorldModel, describe_actions
from worldmodel.viz.canvas import enlarge

D = 8
BOX, PUSHES = spaces.Box(-2.0, 2.0, (2,)), spaces.Discrete(3)


def model(space=BOX, frame_shape=(16, 16, 1), radius=100.0):
    torch.manual_seed(0)
    spec = ModelSpec(
        frame_shape=frame_shape,
        frame_stack=2,
        actions=describe_actions(space),
        latent_dim=D,
        width=4,
        hidden=16,
        encoder="keypoints" if len(frame_shape) == 3 else "mlp",
    )
    wm = WorldModel(spec).eval().requires_grad_(False)
    torch.nn.init.normal_(wm.predictor.net[-1].weight, std=0.02)
    torch.nn.init.constant_(wm.termination_head.net[-1].bias, -5.0)
    box = torch.full((D,), 9.0)
    wm.domain = Domain(torch.zeros(D), torch.eye(D), radius, -box, box)
    return wm


STARTS = torch.randn(64, D, generator=torch.Generator().manual_seed(1))


def many(num_envs=4, space=BOX, wm=None, radius=100.0, **settings):
    wm = wm or model(space, radius=radius)
    return LatentVectorEnv(wm, num_envs, starts=STARTS, **settings)


def one(space=BOX, wm=None, **settings):
    return LatentEnv(wm or model(space), starts=STARTS, **settings)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("space", [spaces.Box(-1.0, 1.0, (2,)), PUSHES])
def test_passes_the_checkers_of_gymnasium_and_stable_baselines(space):
    check_env(one(space, render_mode="rgb_array"), skip_render_check=True)
    sb3_check_env(one(space))


def test_a_step_is_the_models_prediction_and_outcome():
    env, wm = many(), model()
    before, _ = env.reset(seed=3)
    actions = env.action_space.sample()
    after, rewards, terminated, truncated, info = env.step(actions)
    z = torch.as_tensor(before)
    expected = wm.predict(z, actions)
    reward, _ = wm.outcome(z, actions, expected)
    assert_allclose(after, expected, rtol=1e-5)
    assert_allclose(rewards, reward, rtol=1e-4, atol=1e-6)
    assert not terminated.any()
    assert not truncated.any()
    assert not info["out_of_domain"].any()
    assert env.observation_space.contains(after)


def test_seed_decides_where_episodes_start_and_options_set_the_start():
    env = many(num_envs=16)
    (first, _), (again, _), (other, _) = (env.reset(seed=s) for s in (7, 7, 8))
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert all((torch.as_tensor(z) == STARTS).all(1).any() for z in first)
    at = np.full((16, D), 0.25, np.float32)
    assert_array_equal(env.reset(options={"latents": at})[0], at)
    single = one()
    assert_array_equal(single.reset(seed=7)[0], single.reset(seed=7)[0])
    assert_array_equal(single.reset(options={"latent": at[0]})[0], at[0])


@pytest.mark.parametrize(
    "make", [one, lambda: gym.make("DoublePendulumPixels-v0", start="uniform")]
)
def test_many_resets_without_a_step_leave_no_trace(make):
    env, fresh = make(), make()
    for seed in range(200):
        observation, _ = env.reset(seed=seed)
        assert env.observation_space.contains(observation)
    assert_array_equal(observation, fresh.reset(seed=199)[0])
    action = np.array([1.0, -1.0], np.float32)
    for ours, theirs in zip(env.step(action)[:4], fresh.step(action)[:4], strict=True):
        assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_ended_episodes_reset_as_the_autoreset_mode_says(mode):
    env = many(max_episode_steps=2, autoreset_mode=mode)
    env.reset(seed=0)
    actions = np.zeros((4, 2), np.float32)
    env.step(actions)
    last, _, _, truncated, info = env.step(actions)
    assert truncated.all()
    if mode is AutoresetMode.SAME_STEP:
        assert all((torch.as_tensor(z) == STARTS).all(1).any() for z in last)
        assert len(info["final_obs"]) == 4
        assert not np.array_equal(info["final_obs"][0], last[0])
    elif mode is AutoresetMode.NEXT_STEP:
        first, rewards, _, truncated, _ = env.step(actions)
        assert not truncated.any()
        assert not rewards.any()
        assert all((torch.as_tensor(z) == STARTS).all(1).any() for z in first)
    else:
        with pytest.raises(gym.error.ResetNeeded, match="autoreset is disabled"):
            env.step(actions)
        mask = np.array([True, False, True, True])
        first, _ = env.reset(options={"reset_mask": mask})
        assert_array_equal(first[1], last[1])
        assert not np.array_equal(first[0], last[0])


def test_leaving_the_domain_truncates_with_out_of_domain_in_info():
    env = many(radius=0.0)
    env.reset(seed=0)
    _, _, terminated, truncated, info = env.step(env.action_space.sample())
    assert truncated.all()
    assert info["out_of_domain"].all()
    assert not terminated.any()
    diverged = model()
    torch.nn.init.constant_(diverged.predictor.net[-1].bias, float("nan"))
    env = one(wm=diverged)
    env.reset(seed=0)
    z, reward, _, truncated, info = env.step(env.action_space.sample())
    assert truncated
    assert info["out_of_domain"]
    assert env.observation_space.contains(z)
    assert np.isfinite(reward)


def test_start_outside_the_domain_is_in_info():
    far = np.full((4, D), 8.0, np.float32)
    far[1:] = 0.1
    _, info = many(radius=10.0).reset(options={"latents": far})
    assert info["out_of_domain"].tolist() == [True, False, False, False]


def test_actions_outside_the_bounds_are_clipped_and_invalid_ones_rejected():
    env = one()
    env.reset(seed=0)
    within, *_ = env.step(np.array([2.0, -2.0]))
    env.reset(seed=0)
    assert_array_equal(env.step(np.array([9.0, -9.0]))[0], within)
    with pytest.raises(ValueError, match="contain NaN or infinity"):
        env.step(np.array([np.nan, 0.0]))
    with pytest.raises(ValueError, match=r"actions have shape \(1, 1\)"):
        env.step(np.array([1.0]))
    for latent in (np.zeros(3), np.full(D, np.nan)):
        with pytest.raises(ValueError, match="latents to start at"):
            env.reset(options={"latent": latent})


def test_the_termination_head_terminates_an_episode():
    wm = model()
    torch.nn.init.constant_(wm.termination_head.net[-1].bias, 5.0)
    env = one(wm=wm, max_episode_steps=1)
    env.reset(seed=0)
    _, _, terminated, truncated, _ = env.step(env.action_space.sample())
    assert terminated
    assert not truncated


def test_gymnasiums_wrappers_work():
    env = RecordEpisodeStatistics(TimeLimit(one(), 3))
    env.reset(seed=0)
    for _ in range(3):
        *_, truncated, info = env.step(env.action_space.sample())
    assert truncated
    assert info["episode"]["l"] == 3


def test_recording_wrappers_work(tmp_path):
    env = Monitor(
        RecordVideo(
            one(render_mode="rgb_array", max_episode_steps=4),
            str(tmp_path / "videos"),
            episode_trigger=lambda episode: True,
            disable_logger=True,
        )
    )
    env.reset(seed=0)
    for _ in range(4):
        *_, truncated, info = env.step(env.action_space.sample())
    env.close()
    assert truncated
    assert info["episode"]["l"] == 4
    (video,) = (tmp_path / "videos").glob("*.mp4")
    assert imageio.v3.imread(video).shape == (5, 16, 16, 3)


def test_window_shows_the_decoded_frame(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = one(render_mode="human", max_episode_steps=4)
    z, _ = env.reset(seed=0)
    shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    frame = model().decode(torch.as_tensor(z)[None])[0, ..., -1:].numpy()
    assert_array_equal(shown, enlarge(frame))
    assert env.render() is None
    env.close()
    assert pygame.display.get_surface() is None
    env.step(env.action_space.sample())


def test_starts_of_a_runs_environment_are_the_ones_asked_for(driven_run):
    run = Run(driven_run, device="cpu")
    wm, real = run.model, run.make_env()
    observations = np.stack([real.reset(seed=s)[0] for s in range(3)])
    given = gym.make("worldmodel/Latent-v0", run=run, starts=observations)
    assert given.unwrapped.wm is wm
    resets = gym.make_vec("worldmodel/Latent-v0", run=driven_run, num_envs=5, starts="resets")
    low, high = given.observation_space.low, given.observation_space.high
    expected = np.clip(wm.encode(observations).numpy(), low, high)
    for seed in range(4):
        z, _ = given.reset(seed=seed)
        assert np.isclose(expected, z, atol=1e-5).all(1).any()
    every = np.stack([real.reset(seed=s)[0] for s in range(256)])
    every = np.clip(wm.encode(every).numpy(), low, high)
    for z in resets.reset(seed=0)[0]:
        assert np.isclose(every, z, atol=1e-5).all(1).any()
    with pytest.raises(ValueError, match="expected uint8 frames"):
        gym.make("worldmodel/Latent-v0", run=driven_run, starts=observations / 255)
    with pytest.raises(ValueError, match="expected 'data', 'resets'"):
        gym.make("worldmodel/Latent-v0", run=driven_run, starts="reset")
    z, _ = gym.make_vec("worldmodel/Latent-v0", run=run, num_envs=5).reset(seed=0)
    assert all(np.isclose(run.starts, each, atol=1e-5).all(1).any() for each in z)


@pytest.mark.parametrize("starts", ["data", "resets"])
def test_run_that_was_not_evaluated_is_rejected_with_a_hint(run_path, starts):
    (run_path / "models" / "imagination.pt").unlink()
    with pytest.raises(RunError, match="worldmodel evaluate"):
        gym.make("worldmodel/Latent-v0", run=run_path, starts=starts)


@pytest.mark.parametrize("kind", [LatentEnv, LatentVectorEnv])
def test_docstring_examples_run(driven_run, kind):
    results = doctest.testmod(sys.modules[kind.__module__], extraglobs={"run": driven_run})
    assert results.attempted > 4
    assert not results.failed


def test_the_models_own_starts_are_the_default():
    wm = model()
    with pytest.raises(ValueError, match="start_latents"):
        LatentEnv(wm)
    wm.starts = STARTS[:1]
    for env in (LatentEnv(wm), LatentVectorEnv(wm, 3)):
        z, _ = env.reset(seed=0)
        assert_array_equal(z, np.broadcast_to(STARTS[0], z.shape))


def test_model_without_a_domain_is_rejected_with_a_hint():
    wm = model()
    wm.domain = None
    for make in (LatentEnv, LatentVectorEnv):
        with pytest.raises(ValueError, match="fit_domain"):
            make(wm, starts=STARTS)


def test_frames_are_the_decoders_newest():
    env = many(render_mode="rgb_array")
    z, _ = env.reset(seed=0)
    expected = model().decode(torch.as_tensor(z))[..., -1:].numpy()
    frames = env.render()
    assert len(frames) == 4
    assert frames[2].shape == (16, 16, 3)
    assert_array_equal(frames[2], np.repeat(expected[2], 3, -1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0"),
        ({"max_episode_steps": 0}, "max_episode_steps is 0"),
        ({"render_mode": "ansi"}, "render_mode is 'ansi'"),
        ({"wm": model(frame_shape=(3,)), "render_mode": "rgb_array"}, "no decoder"),
    ],
)
def test_invalid_arguments_are_rejected(changes, message):
    with pytest.raises(ValueError, match=message):
        many(**changes)
    with pytest.raises(ValueError, match="expected latents"):
        LatentEnv(model(), starts=torch.zeros(0, D))


@pytest.mark.parametrize("actions", [[0, 1, 2, 3], [0, 1, 2, -1], [0.0, 1.7, 2.0, 1.0]])
def test_actions_outside_a_discrete_space_are_rejected(actions):
    env = many(space=PUSHES)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="are not in MultiDiscrete"):
        env.step(np.array(actions))


def test_the_first_reset_must_reset_all_episodes():
    env = many()
    with pytest.raises(gym.error.ResetNeeded, match="without a mask first"):
        env.reset(options={"reset_mask": np.array([True, False, True, True])})
    assert len(env.reset(options={"reset_mask": np.ones(4, bool)})[0]) == 4


def test_a_run_of_imagined_episodes_has_no_resets(run):
    run.change_config({"env": {"id": "worldmodel/Latent-v0", "kwargs": {"run": str(run.path)}}})
    with pytest.raises(ValueError, match="has no real environment to reset; use starts='data'"):
        gym.make("worldmodel/Latent-v0", run=run, starts="resets")
