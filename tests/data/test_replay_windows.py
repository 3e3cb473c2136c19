"""Windows of a replay buffer hold the stored bytes and never cross the end of an episode."""

import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from episodes import BOX, DISCRETE, FRAME_SHAPE, assert_intact, create, episode, fill
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodel.data import ReplayBuffer, Windows
from worldmodel.data.windows import aligned_empty, one_start_each


def one_window_each(buffer, episodes, length, rng):
    starts = one_start_each(buffer.lengths[episodes], length, rng)
    return buffer.windows(episodes, starts, length)


def buffer_of(path, steps, space=BOX):
    """A closed and reopened buffer with one episode for each number of steps."""
    with create(path, space) as buffer:
        for seed, n in enumerate(steps):
            buffer.add_episode(**episode(seed, n, space))
    return ReplayBuffer.open(path)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    space=st.sampled_from([BOX, DISCRETE]),
    reopen_after=st.integers(0, 8),
)
def test_every_stored_byte_is_read_back(steps, space, reopen_after):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "buffer"
        buffer = create(path, space)
        for seed, n in enumerate(steps):
            if seed == reopen_after:
                buffer.close()
                buffer = ReplayBuffer.open(path, append=True)
            buffer.add_episode(**episode(seed, n, space))
        assert_intact(buffer)
        buffer.close()
        reopened = ReplayBuffer.open(path)
        assert reopened.lengths.tolist() == [n + 1 for n in steps]
        assert reopened.num_frames == sum(steps) + len(steps)
        assert reopened.num_transitions == sum(steps)
        assert len(reopened) == reopened.num_episodes == len(steps)
        assert reopened.action_space == space
        assert_intact(reopened)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    length=st.integers(1, 13),
    seed=st.integers(0, 2**32 - 1),
)
def test_windows_never_cross_the_end_of_an_episode(steps, length, seed):
    with tempfile.TemporaryDirectory() as directory:
        wide = gym.spaces.Box(-100.0, 100.0, (2,))
        buffer = ReplayBuffer.create(
            directory, frame_shape=(2,), frame_dtype="float32", action_space=wide, metadata={}
        )
        for i, n in enumerate(steps):  # a frame is (episode, time), and so is a transition
            times = np.stack([np.full(n + 1, i), np.arange(n + 1)], axis=-1).astype(float)
            buffer.add_episode(times, times[:-1], times[:-1, 1], True)
        rng = np.random.default_rng(seed)
        if max(steps) + 1 < length:
            with pytest.raises(ValueError, match="no window of"):
                buffer.sample(4, length, rng)
            return
        for windows in (
            buffer.sample(16, length, rng),
            one_window_each(buffer, buffer.episodes_of_at_least(length), length, rng),
        ):
            assert (windows.frames[..., 0] == windows.frames[:, :1, 0]).all()
            first = windows.frames[:, :1, 1]
            assert (windows.frames[..., 1] - first == np.arange(length)).all()
            np.testing.assert_array_equal(windows.actions, windows.frames[:, :-1])
            np.testing.assert_array_equal(windows.rewards, windows.frames[:, :-1, 1])
            last = np.array(steps)[windows.frames[:, :-1, 0].astype(int)] - 1
            np.testing.assert_array_equal(windows.terminated, windows.rewards == last)
        buffer.close()


def test_all_valid_starts_are_drawn_equally_often_the_last_one_included(tmp_path):
    buffer = buffer_of(tmp_path, [2, 5, 9])  # 3, 6 and 10 frames
    count, length = 24_000, 4  # 0 + 3 + 7 = 10 valid windows
    drawn = buffer.sample(count, length, np.random.default_rng(0))
    starts = {}
    for i, last_start in ((1, 2), (2, 6)):
        for start in range(last_start + 1):
            only = buffer.windows([i], [start], length).rewards[0].tobytes()
            starts[only] = 0
    for row in drawn.rewards:
        starts[row.tobytes()] += 1
    assert len(starts) == 10
    assert min(starts.values()) > 2_400 - 5 * 50
    assert max(starts.values()) < 2_400 + 5 * 50


def test_windows_per_episode_include_the_first_and_the_last_start(tmp_path):
    buffer = buffer_of(tmp_path, [4, 4])
    rng = np.random.default_rng(0)
    both = np.array([1, 0])
    seen = {one_window_each(buffer, both, 3, rng).rewards[0].tobytes() for _ in range(60)}
    wanted = {buffer.windows([1], [start], 3).rewards[0].tobytes() for start in range(3)}
    assert seen == wanted


def test_samples_depend_on_the_seed_alone(tmp_path):
    buffer = buffer_of(tmp_path, [5, 6, 7])
    first, again, other = (buffer.sample(32, 3, np.random.default_rng(s)) for s in (1, 1, 2))
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
    assert (first.frames != other.frames).any()


def test_sampling_from_some_episodes_reads_no_others(tmp_path):
    buffer = buffer_of(tmp_path, [5, 6, 7])
    drawn = buffer.sample(200, 2, np.random.default_rng(0), episodes=[0, 2])
    allowed = {
        buffer.windows([i], [start], 2).frames.tobytes()
        for i in (0, 2)
        for start in range(buffer.lengths[i] - 1)
    }
    assert {frames[None].tobytes() for frames in drawn.frames} == allowed


@pytest.mark.parametrize("space", [BOX, DISCRETE])
def test_out_is_filled_in_place_and_equal(tmp_path, space):
    buffer = buffer_of(tmp_path, [5, 6, 7], space)
    out = buffer.empty_windows(16, 4)
    for array in out:
        array.view(np.uint8)[...] = 0xFF if array.dtype != bool else 1
    given = buffer.sample(16, 4, np.random.default_rng(3), out=out)
    fresh = buffer.sample(16, 4, np.random.default_rng(3))
    assert given is out
    for a, b in zip(given, fresh):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert fresh.actions.dtype == (np.float32 if space is BOX else np.int64)


def test_out_of_another_shape_or_dtype_is_refused(tmp_path):
    buffer = buffer_of(tmp_path, [5])
    with pytest.raises(ValueError, match=r"out\.frames is uint8 \(2, 3"):
        buffer.sample(2, 4, np.random.default_rng(0), out=buffer.empty_windows(2, 3))
    wrong = buffer.empty_windows(2, 4)._replace(rewards=np.empty((2, 3)))
    with pytest.raises(ValueError, match=r"out\.rewards is float64"):
        buffer.sample(2, 4, np.random.default_rng(0), out=wrong)


def test_arrays_for_out_start_on_a_cache_line():
    arrays = [aligned_empty((3, n), np.dtype(np.float32)) for n in range(1, 40)]
    assert all(array.ctypes.data % 64 == 0 for array in arrays)


def test_states_come_from_the_same_rows_as_frames(tmp_path):
    buffer = buffer_of(tmp_path, [5, 6])
    assert "states" not in Windows._fields
    states = buffer.states([1, 0], [2, 0], 3)
    assert states.dtype == np.float64
    np.testing.assert_array_equal(states[0], episode(1, 6)["states"][2:5])
    np.testing.assert_array_equal(states[1], episode(0, 5)["states"][:3])


def test_reading_states_that_are_not_stored_is_refused(tmp_path):
    with create(tmp_path, state_dim=0) as buffer:
        buffer.add_episode(**(episode(0, 3) | {"states": None}))
        with pytest.raises(ValueError, match="stores no states"):
            buffer.states([0], [0], 1)


@pytest.mark.parametrize(
    ("episodes", "starts", "length", "message"),
    [
        ([2], [0], 2, "episode 2 does not exist"),
        ([-1], [0], 2, "episode -1 does not exist"),
        ([0], [-1], 2, "takes frames -1 to 0 of episode 0"),
        ([0, 1], [0, 6], 2, "window 1 takes frames 6 to 7 of episode 1, which has frames 0 to 6"),
        ([0], [0], 0, "length is 0"),
        ([0, 1], [0], 2, "2 episodes but 1 starts"),
        ([[0]], [0], 2, r"episodes is int64 of shape \(1, 1\)"),
        ([0.5], [0], 2, "episodes is float64"),
    ],
)
def test_windows_outside_an_episode_are_refused(tmp_path, episodes, starts, length, message):
    buffer = buffer_of(tmp_path, [5, 6])
    with pytest.raises(ValueError, match=message):
        buffer.windows(episodes, starts, length)


def test_an_episode_too_short_for_a_window_is_named(tmp_path):
    buffer = buffer_of(tmp_path, [9, 2])
    with pytest.raises(ValueError, match=r"1 of 2 episodes are shorter .*at position 1\) has 3"):
        one_window_each(buffer, np.array([0, 1]), 4, np.random.default_rng(0))
    assert buffer.episodes_of_at_least(4).tolist() == [0]
    assert buffer.episodes_of_at_least(3).tolist() == [0, 1]


def test_there_are_no_windows_of_no_episodes(tmp_path):
    buffer = buffer_of(tmp_path, [5])
    windows = buffer.windows([], [], 3)
    assert windows.frames.shape == (0, 3, *FRAME_SHAPE)
    with pytest.raises(ValueError, match="no window of 3 frames fits"):
        buffer.sample(1, 3, np.random.default_rng(0), episodes=[])


def test_a_writer_reads_what_it_has_just_written(tmp_path):
    with create(tmp_path) as buffer:
        for stop in (1, 5, 80):
            fill(buffer, range(buffer.num_episodes, stop))
            assert_intact(buffer)


def test_samples_include_episodes_that_were_added_after_the_first_sample(tmp_path):
    buffer, rng = fill(create(tmp_path), range(1)), np.random.default_rng(0)
    first = buffer.sample(64, 2, rng).frames
    fill(buffer, range(1, 4))
    later = buffer.sample(64, 2, rng).frames
    assert len(np.unique(later, axis=0)) > len(np.unique(first, axis=0))
    assert buffer.sample(4, 3, rng).frames.shape[1] == 3


def test_public_columns_cannot_be_changed(tmp_path):
    buffer = buffer_of(tmp_path, [5])
    for column in (buffer.lengths, buffer.seeds):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": np.zeros((6, 4, 6, 3), np.float32)}, "frames are float32"),
        ({"frames": np.zeros((6, 4, 6, 1), np.uint8)}, "frames have shape"),
        ({"frames": np.zeros((1, 4, 6, 3), np.uint8)}, "at least 2 frames"),
        ({"frames": 3}, "at least 2 frames"),
        ({"actions": np.zeros((6, 2))}, r"actions have shape \(6, 2\); expected \(5, 2\)"),
        ({"actions": np.full((5, 2), np.nan)}, "actions hold NaN"),
        ({"actions": np.full((5, 2), "up")}, "actions are <U2"),
        ({"actions": np.full((5, 2), 50.0)}, r"action 50 is outside Box\(-1.0, 1.0"),
        ({"terminated": "no"}, "terminated is 'no'; expected True or False"),
        ({"rewards": np.zeros(4)}, "rewards have shape"),
        ({"rewards": np.full(5, np.inf)}, "rewards hold NaN or infinity"),
        ({"states": None}, "states of length 2, but none were given"),
        ({"states": np.zeros((6, 3))}, "states have shape"),
        ({"seed": -4}, "seed is -4"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused_and_nothing_is_written(tmp_path, change, message):
    with create(tmp_path) as buffer:
        with pytest.raises(ValueError, match=message):
            buffer.add_episode(**(episode(0, 5) | change))
        assert len(buffer) == 0
        fill(buffer, range(2))
        assert_intact(buffer)


@pytest.mark.parametrize(
    ("actions", "message"),
    [(np.full(5, 4), "action 4 is outside"), (np.zeros(5), "actions are float64")],
)
def test_discrete_actions_outside_the_space_are_refused(tmp_path, actions, message):
    with create(tmp_path, DISCRETE) as buffer, pytest.raises(ValueError, match=message):
        buffer.add_episode(**(episode(0, 5, DISCRETE) | {"actions": actions}))


def test_box_actions_of_any_shape_are_stored_flat(tmp_path):
    space = gym.spaces.Box(-np.inf, np.array([[1.0, 2.0, 3.0]] * 2), dtype=np.float64)
    with create(tmp_path, space, state_dim=0) as buffer:
        actions = np.arange(30.0).reshape(5, 2, 3) / 32
        frames = episode(0, 5)["frames"]
        buffer.add_episode(frames, actions, np.zeros(5), False)
        np.testing.assert_array_equal(buffer.windows([0], [0], 6).actions[0], actions.reshape(5, 6))
    assert ReplayBuffer.open(tmp_path).action_space == space
