"""Stacked observations against a plain loop, and the choice of what is stored."""

import gymnasium as gym
import numpy as np
import pytest
import tiny_env  # noqa: F401
import torch
from episodes import create, episode
from numpy.testing import assert_array_equal

from worldmodel.data.frames import FrameStack, frame_source, resize

STACK = FrameStack(3)


def frames_of(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def stacked(frames, time):
    """The observation that ends at `time`, by concatenation."""
    return np.concatenate([frames[:, time - 2], frames[:, time - 1], frames[:, time]], axis=-1)


@pytest.mark.parametrize("shape", [(5, 7, 4, 6, 3), (5, 7, 4)])
def test_an_observation_is_the_newest_frames_joined_oldest_first(shape):
    frames = frames_of(*shape)
    for time in range(STACK.first, 7):
        assert_array_equal(STACK.observe(frames, time), stacked(frames, time))
        tensor = STACK.observe(torch.from_numpy(frames), time)
        assert tensor.dtype == torch.uint8
        assert_array_equal(tensor.numpy(), stacked(frames, time))


@pytest.mark.parametrize("time", [-1, 1, 7])
def test_times_without_an_observation_are_refused(time):
    with pytest.raises(IndexError, match="expected 2 to 6"):
        STACK.observe(frames_of(5, 7, 4), time)


def test_windows_shapes_and_steps_fit_together():
    assert STACK.window(4) == 7
    assert STACK.steps(STACK.window(4)) == 4
    assert STACK.shape((8, 8, 3)) == (8, 8, 9)
    assert STACK.shape((4,)) == (12,)


def test_the_newest_frame_is_the_last_that_was_joined():
    frames = [frames_of(4, 4, 3) + i for i in range(3)]
    joined = STACK.join(frames)
    assert_array_equal(STACK.newest(joined), frames[2])
    assert_array_equal(STACK.newest(torch.from_numpy(joined)), frames[2])
    assert_array_equal(STACK.newest(STACK.repeat(frames[0])), frames[0])


def test_every_time_with_an_observation_can_be_read_from_a_buffer(tmp_path):
    lengths = [5, 2, 3, 9]  # frames; the second has no observation of three
    with create(tmp_path) as buffer:
        for seed, length in enumerate(lengths):
            buffer.add_episode(**episode(seed, length - 1))
        episodes, times = STACK.times(buffer)
        expected = [(e, t) for e, n in enumerate(lengths) for t in range(2, n)]
        assert list(zip(episodes.tolist(), times.tolist())) == expected
        observations = STACK.read(buffer, episodes, times)
        for observation, e, t in zip(observations, episodes, times):
            frames = episode(int(e), lengths[e] - 1)["frames"]
            assert_array_equal(observation, stacked(frames[None], t)[0])
        some = list(zip(*STACK.sample_times(buffer, 6, seed=0)))
        assert len(some) == 6
        assert some == sorted(set(some))
        assert set(some) <= set(zip(episodes, times))
        assert len(STACK.sample_times(buffer, 99, seed=0)[0]) == len(expected)


@pytest.mark.parametrize(
    ("env_id", "kwargs", "kind", "shape"),
    [
        ("Tiny-v0", {}, "image", (32, 32, 3)),
        ("Tiny-v0", {"channels": 1}, "image", (32, 32, 1)),
        ("Tiny-v0", {"observation": "vector"}, "render", (32, 32, 3)),
        ("CartPole-v1", {}, "render", (32, 32, 3)),
        ("DoublePendulum-v0", {"frame_stack": 1}, "render", (32, 32, 3)),
    ],
)
def test_images_are_preferred_to_renderings_and_those_to_vectors(env_id, kwargs, kind, shape):
    env = gym.make(env_id, **kwargs)
    source = frame_source("auto", env, env.observation_space, 32)
    assert (source.kind, source.shape) == (kind, shape)
    assert source.dtype == np.uint8


def test_a_vector_is_stored_as_it_is():
    env = gym.make("CartPole-v1")
    source = frame_source("vector", env, env.observation_space, 32)
    assert (source.kind, source.shape, source.dtype) == ("vector", (4,), np.float32)
    batch = np.arange(12.0).reshape(3, 4)
    assert_array_equal(source(lambda: None, batch, np.array([2, 0])), batch[[2, 0]])


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((400, 600), slice(10, 53), slice(0, 64)),
        ((50, 25), slice(0, 64), slice(16, 48)),
        ((4, 4000), slice(31, 32), slice(0, 64)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_that_are_not_square_keep_their_aspect_ratio_between_black_bars(
    shape, rows, columns, channels
):
    frame = resize(np.full((*shape, channels), 9, np.uint8), 64)
    expected = np.zeros((64, 64, channels), np.uint8)
    expected[rows, columns] = 9
    assert_array_equal(frame, expected)


def test_square_images_are_stretched_by_averaging_areas_without_bars():
    image = frames_of(6, 6, 3)
    means = image.reshape(3, 2, 3, 2, 3).mean((1, 3))
    assert np.abs(resize(image, 3) - means).max() <= 1
    assert resize(image, 6) is image
