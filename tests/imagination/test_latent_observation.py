"""Real environments that observe latents: single and vector environments agree with the encoder."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from numpy.testing import assert_allclose

import worldmodel  # noqa: F401
from worldmodel.imagination import Domain, LatentObservation, VectorLatentObservation
from worldmodel.models import ModelSpec, WorldModel, describe_actions

D, ID = 8, "DoublePendulumPixels-v0"


def model(side=16, high=9.0):
    torch.manual_seed(0)
    spec = ModelSpec(
        frame_shape=(side, side, 3),
        frame_stack=2,
        actions=describe_actions(gym.spaces.Box(-1.0, 1.0, (2,))),
        latent_dim=D,
        width=4,
        hidden=16,
    )
    wm = WorldModel(spec).eval().requires_grad_(False)
    low = torch.full((D,), -9.0) if high == 9.0 else torch.zeros(D)
    wm.domain = Domain(torch.zeros(D), torch.eye(D), 9.0, low, torch.full((D,), high))
    return wm


def test_single_and_vector_environments_observe_the_encoders_latents():
    wm = model()
    one = LatentObservation(gym.make(ID, image_size=16), wm)
    many = VectorLatentObservation(gym.make_vec(ID, num_envs=3, image_size=16), wm)
    raw = gym.make_vec(ID, num_envs=3, image_size=16)
    actions = np.full((3, 2), 0.5, np.float32)
    (z, _), (zs, _), (frames, _) = one.reset(seed=4), many.reset(seed=4), raw.reset(seed=4)
    for _ in range(3):
        assert_allclose(zs, wm.encode(frames), rtol=1e-5)
        assert_allclose(z, zs[0], atol=1e-4)
        assert many.observation_space.contains(zs)
        (z, *_), (zs, *_), (frames, *_) = (
            one.step(actions[0]),
            many.step(actions),
            raw.step(actions),
        )


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped")
def test_passes_gymnasiums_checker():
    env = LatentObservation(gym.make(ID, image_size=16), model())
    check_env(env, skip_render_check=True)


def test_latents_are_clipped_to_the_declared_bounds():
    env = LatentObservation(gym.make(ID, image_size=16), model(high=1e-3))
    assert env.observation_space.contains(env.reset(seed=0)[0])


def test_frames_of_another_size_are_rejected_with_a_hint():
    with pytest.raises(ValueError, match="the same image_size and frame_stack"):
        LatentObservation(gym.make(ID, image_size=32), model())


def test_model_without_a_domain_is_rejected_with_a_hint():
    wm = model()
    wm.domain = None
    for wrapper, env in (
        (LatentObservation, gym.make(ID, image_size=16)),
        (VectorLatentObservation, gym.make_vec(ID, num_envs=2, image_size=16)),
    ):
        with pytest.raises(ValueError, match="fit_domain"):
            wrapper(env, wm)
