"""Vector environments against Gymnasium's `SyncVectorEnv` of single environments."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from numpy.testing import assert_array_equal

import worldmodel  # noqa: F401
from worldmodel.envs.vector import DoublePendulumPixelsVectorEnv

STATE, PIXELS = "DoublePendulum-v0", "DoublePendulumPixels-v0"
SMALL = {"image_size": 32, "start": "uniform"}
VARIANTS = [
    (STATE, {}),
    (STATE, {"observation": "state"}),
    (PIXELS, SMALL),
    (PIXELS, {**SMALL, "grayscale": True, "frame_stack": 3, "torque": "elbow"}),
]


def make_pair(env_id, mode, num_envs=4, **kwargs):
    native = gym.make_vec(env_id, num_envs, autoreset_mode=mode, **kwargs)
    options = {"vectorization_mode": "sync", "vector_kwargs": {"autoreset_mode": mode}}
    return native, gym.make_vec(env_id, num_envs, **options, **kwargs)


def assert_same(left, right):
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            mask = left.get(f"_{key}", slice(None))
            if isinstance(left[key], dict):
                assert_same(left[key], right[key])
            else:
                assert_same(left[key][mask], right[key][mask])
    elif isinstance(left, np.ndarray) and left.dtype == object:
        for actual, expected in zip(left, right, strict=True):
            assert_same(actual, expected)
    else:
        assert left.dtype == right.dtype
        assert_array_equal(left, right)


def assert_same_results(left, right):
    for actual, expected in zip(left, right, strict=True):
        assert_same(actual, expected)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(("env_id", "kwargs"), VARIANTS)
def test_vector_env_equals_sync_vector_env_bit_for_bit_across_autoreset(env_id, kwargs, mode):
    native, sync = make_pair(env_id, mode, max_episode_steps=5, **kwargs)
    native.action_space.seed(0)
    assert_same_results(native.reset(seed=11), sync.reset(seed=11))
    for step in range(17):
        actions = native.action_space.sample()
        actual, expected = native.step(actions), sync.step(actions)
        assert_same_results(actual, expected)
        ended = actual[3].copy()
        if step == 2:
            ended = np.array([True, False, True, False])
        if ended.any() and (step == 2 or mode is AutoresetMode.DISABLED):
            masked = [env.reset(options={"reset_mask": ended.copy()}) for env in (native, sync)]
            assert_same_results(*masked)


def test_autoreset_counts_the_steps_of_each_environment():
    env = gym.make_vec(STATE, num_envs=2, max_episode_steps=4)
    env.reset(seed=0)
    actions = np.zeros((2, 2), np.float32)
    ends = []
    for step in range(9):
        if step == 1:
            env.reset(options={"reset_mask": np.array([False, True])})
        ends.append(env.step(actions)[3].tolist())
    assert [e[0] for e in ends] == [step in (3, 8) for step in range(9)]
    assert [e[1] for e in ends] == [step == 4 for step in range(9)]


def test_next_step_autoreset_returns_the_start_with_zero_reward():
    env = gym.make_vec(PIXELS, num_envs=2, max_episode_steps=1, **SMALL)
    env.reset(seed=0)
    actions = env.action_space.sample()
    assert env.step(actions)[3].all()
    observation, reward, _, truncated, _ = env.step(actions)
    assert_array_equal(observation[..., :3], observation[..., 3:])
    assert_array_equal(reward, [0.0, 0.0])
    assert not truncated.any()


def test_same_step_autoreset_returns_the_final_observation_in_info():
    env = gym.make_vec(PIXELS, 2, max_episode_steps=1, autoreset_mode="SameStep", **SMALL)
    env.reset(seed=0)
    observation, reward, _, _, info = env.step(env.action_space.sample())
    assert (reward != 0.0).all()
    assert (info["final_obs"][0] != observation[0]).any()
    assert (info["final_info"]["state"] != info["state"]).all()


def test_disabled_autoreset_raises_on_steps_after_the_end():
    env = gym.make_vec(STATE, 3, max_episode_steps=1, autoreset_mode="Disabled")
    env.reset(seed=0)
    actions = np.zeros((3, 2), np.float32)
    env.step(actions)
    env.reset(options={"reset_mask": np.array([True, False, True])})
    with pytest.raises(ResetNeeded, match=r"environments \[1\] have ended"):
        env.step(actions)


@pytest.mark.parametrize("seed", [7, [3, 1, 4, 1], [3, None, 4, None], np.int64(7)])
def test_seeds_are_distributed_as_in_sync_vector_env(seed):
    native, sync = make_pair(STATE, AutoresetMode.NEXT_STEP)
    for env in (native, sync):
        env.reset(seed=100)
    seed = int(seed) if isinstance(seed, np.integer) else seed
    assert_same_results(native.reset(seed=seed), sync.reset(seed=seed))
    assert native.np_random_seed == sync.np_random_seed
    assert_same_results(native.reset(), sync.reset())


def test_unseeded_environments_start_differently():
    _, info = gym.make_vec(STATE, num_envs=2, start="uniform").reset()
    assert (info["state"][0] != info["state"][1]).all()


def test_state_option_accepts_one_state_for_all_or_one_per_environment():
    env = gym.make_vec(STATE, num_envs=3)
    _, info = env.reset(options={"state": [0.1, 0.2, 0.3, 0.4]})
    assert_array_equal(info["state"], [[0.1, 0.2, 0.3, 0.4]] * 3)
    each = np.arange(12.0).reshape(3, 4) / 10.0
    _, info = env.reset(options={"state": each, "reset_mask": np.array([True, True, False])})
    assert_array_equal(info["state"], [*each[:2], [0.1, 0.2, 0.3, 0.4]])


@pytest.mark.parametrize(
    "mask", [[True, False], np.array([1, 0]), np.array([True]), np.array([False, False])]
)
def test_invalid_reset_masks_are_rejected(mask):
    env = gym.make_vec(STATE, num_envs=2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"bool array of shape \(2,\)"):
        env.reset(options={"reset_mask": mask})


def test_invalid_seeds_counts_and_action_shapes_are_rejected():
    env = gym.make_vec(STATE, num_envs=2)
    with pytest.raises(ValueError, match="sequence of 2"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(ResetNeeded, match=r"call reset\(\)"):
        env.step(np.zeros((2, 2)))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"expected \(2, 2\)"):
        env.step(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="num_envs=0"):
        DoublePendulumPixelsVectorEnv(num_envs=0)


def test_results_share_no_memory_between_steps():
    env = gym.make_vec(PIXELS, num_envs=2, **SMALL)
    observation, info = env.reset(seed=0)
    kept = observation.copy()
    later, *_, later_info = env.step(env.action_space.sample())
    assert_array_equal(observation, kept)
    assert not np.shares_memory(later, observation)
    assert not np.shares_memory(later_info["state"], info["state"])


def test_spaces_and_metadata_follow_the_vector_env_api():
    env = gym.make_vec(PIXELS, num_envs=3)
    assert isinstance(env, DoublePendulumPixelsVectorEnv)
    assert env.single_observation_space.shape == (64, 64, 6)
    assert env.observation_space.shape == (3, 64, 64, 6)
    assert env.action_space.shape == (3, 2)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert env.reset(seed=0)[0] in env.observation_space


def test_render_returns_one_frame_per_environment():
    native, sync = make_pair(
        PIXELS, AutoresetMode.NEXT_STEP, render_mode="rgb_array", render_size=48
    )
    for env in (native, sync):
        env.reset(seed=0)
    frames = native.render()
    assert isinstance(frames, tuple)
    assert_array_equal(frames, sync.render())
