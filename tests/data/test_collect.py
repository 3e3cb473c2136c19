"""Collected episodes equal those of a plain loop over the environment."""

import gymnasium as gym
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

import worldmodel  # noqa: F401
from worldmodel.data import Mixed, Passive, Policy, Random, collect
from worldmodel.data.adapters import is_native
from worldmodel.errors import ReplayBufferError

TINY = "tiny_env:Tiny-v0"
FILES = ("frames", "actions", "rewards", "states", "index")


def gather(path, env_id=TINY, seeds=(3, 11, 4), **settings):
    settings = {"episodes": len(seeds), "steps": 50, "policy": "random"} | settings
    return collect(env_id, path, seeds=seeds, **settings)


def episode_of(buffer, i):
    length = int(buffer.lengths[i])
    windows = buffer.windows([i], [0], length)
    return [array[0] for array in windows]


def stored_bytes(path):
    files = [path / f"{name}.bin" for name in FILES]
    return {file.name: file.read_bytes() for file in files if file.exists()}


def test_every_frame_is_stored_at_its_step_and_seed(tmp_path):
    seeds = [3, 11, 4, 250, 7]
    buffer = gather(tmp_path, seeds=seeds, env_kwargs={"length": (2, 9)}, num_envs=2, image_size=8)
    assert buffer.seeds.tolist() == seeds
    assert len(set(buffer.lengths.tolist())) > 2
    for i, seed in enumerate(seeds):
        frames, _, rewards, terminated = episode_of(buffer, i)
        steps = len(rewards)
        tags = frames.reshape(steps + 1, -1)[:, :2]
        assert_array_equal(tags[:, 0], np.arange(steps + 1))
        assert (tags[:, 1] == seed).all()
        assert_array_equal(rewards, np.arange(1, steps + 1))
        assert not terminated.any()
        states = buffer.states([i], [0], steps + 1)[0]
        assert_array_equal(states, np.stack([np.arange(steps + 1), np.full(steps + 1, seed)], -1))


@pytest.mark.parametrize("terminates", [True, False])
def test_an_episode_ends_where_the_environment_ends_it_or_at_the_step_limit(tmp_path, terminates):
    kwargs = {"length": (4, 4), "terminates": terminates}
    ended = gather(tmp_path / "ended", steps=9, env_kwargs=kwargs)
    assert ended.lengths.tolist() == [5, 5, 5]
    assert episode_of(ended, 0)[3].tolist() == [False, False, False, terminates]
    exactly = gather(tmp_path / "exactly", steps=4, env_kwargs=kwargs)
    assert episode_of(exactly, 0)[3].tolist() == [False, False, False, terminates]
    cut = gather(tmp_path / "cut", steps=3, env_kwargs=kwargs)
    assert cut.lengths.tolist() == [4, 4, 4]
    assert not episode_of(cut, 0)[3].any()


@pytest.mark.parametrize("actions", ["box", "from_one"])
@pytest.mark.parametrize("observation", ["image", "render", "vector"])
def test_the_bytes_do_not_depend_on_the_number_of_environments(tmp_path, actions, observation):
    kwargs = {"length": (1, 9), "actions": actions, "observation": "image"}
    if observation == "vector":
        kwargs["observation"] = "vector"
    settings = {
        "seeds": range(20, 31),
        "env_kwargs": kwargs,
        "observation": observation,
        "steps": 7,
    }
    contents = []
    for num_envs in (1, 2, 3, 8, 50):
        path = tmp_path / str(num_envs)
        gather(path, num_envs=num_envs, **settings)
        contents.append(stored_bytes(path))
    assert all(content == contents[0] for content in contents[1:])
    assert len(contents[0]["frames.bin"]) > 0


def test_an_episode_does_not_depend_on_the_other_seeds(tmp_path):
    alone = gather(tmp_path / "alone", seeds=[11])
    among = gather(tmp_path / "among", seeds=[3, 11, 4])
    for a, b in zip(episode_of(alone, 0), episode_of(among, 1)):
        assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("env_id", "observation", "env_kwargs"),
    [
        ("DoublePendulumPixels-v0", "image", {"start": "uniform", "frame_stack": 2}),
        ("DoublePendulumPixels-v0", "image", {"grayscale": True, "torque": "elbow"}),
        ("DoublePendulum-v0", "vector", {"frame_stack": 3}),
        ("DoublePendulum-v0", "vector", {"observation": "state"}),
    ],
)
def test_the_native_vector_form_stores_what_single_environments_return(
    tmp_path, env_id, observation, env_kwargs
):
    seeds, steps = [5, 17, 2, 9, 1], 12
    buffer = gather(
        tmp_path,
        env_id,
        seeds,
        steps=steps,
        env_kwargs=env_kwargs,
        observation=observation,
        num_envs=3,
        image_size=16,
    )
    assert is_native(gym.spec(env_id))
    extra = {"image_size": 16} if observation == "image" else {}
    env = gym.make(env_id, **(env_kwargs | extra))
    act = Random().bind(env.action_space, env.observation_space, steps)
    newest = buffer.frame_shape[-1]
    for i, seed in enumerate(seeds):
        frames, actions, rewards, _ = episode_of(buffer, i)
        states = buffer.states([i], [0], steps + 1)[0]
        seen, info = env.reset(seed=seed)
        for t in range(steps):
            assert_array_equal(frames[t], seen[..., -newest:])
            assert_array_equal(states[t], info["state"])
            assert_array_equal(actions[t], act(seed)(t, seen))
            seen, reward, _, _, info = env.step(actions[t])
            assert rewards[t] == np.float32(reward)
        assert_array_equal(frames[steps], seen[..., -newest:])
        assert_array_equal(states[steps], info["state"])
    assert newest == {"image": seen.shape[-1] // env_kwargs.get("frame_stack", 2)}.get(
        observation, 6 if "observation" in env_kwargs else 4
    )


def test_next_step_autoreset_never_stores_a_reset_as_a_transition(tmp_path):
    """CartPole's own vector form has no other autoreset, so it must not be used."""
    assert gym.spec("CartPole-v1").vector_entry_point is not None
    seeds = range(6)
    settings = {"policy": Random((1, 1)), "observation": "vector", "num_envs": 3}
    buffer = gather(tmp_path, "CartPole-v1", seeds, steps=200, **settings)
    env = gym.make("CartPole-v1")
    for i, seed in enumerate(seeds):
        frames, actions, rewards, terminated = episode_of(buffer, i)
        seen, _ = env.reset(seed=seed)
        for t, action in enumerate(actions):
            assert_array_equal(frames[t], seen)
            seen, reward, ended, _, _ = env.step(int(action))
            assert (rewards[t], terminated[t]) == (reward, ended)
        assert_array_equal(frames[-1], seen)
        assert ended


def test_any_environment_that_renders_can_be_collected(tmp_path):
    """CartPole: discrete actions, and frames that are rendered and resized."""
    buffer = gather(tmp_path, "CartPole-v1", [0, 1], steps=5, image_size=32)
    assert buffer.metadata["observation"] == "render"
    assert buffer.frame_shape == (32, 32, 3)
    assert buffer.action_space == gym.spaces.Discrete(2)
    assert buffer.state_dim == 0
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=1)
    frames, actions, _, _ = episode_of(buffer, 1)
    for t, action in enumerate(actions):
        image = Image.fromarray(env.render()).resize((32, 21), Image.Resampling.BOX)
        assert_array_equal(frames[t, 5:26], np.asarray(image))
        assert not frames[t, :5].any()
        assert not frames[t, 26:].any()
        env.step(int(action))


def test_renderings_are_resized_by_averaging_areas(tmp_path):
    """The renderings have 30 x 40 pixels, so there is a bar above and one below."""
    buffer = gather(tmp_path, observation="render", image_size=8)
    frames = episode_of(buffer, 0)[0]
    expected = np.zeros((8, 8, 3), np.uint8)
    expected[1:7] = 5, 0, 200
    assert_array_equal(frames[5], expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_keep_their_channels_when_resized(tmp_path, channels):
    buffer = gather(tmp_path, env_kwargs={"channels": channels, "size": 12}, image_size=6)
    assert buffer.frame_shape == (6, 6, channels)
    assert episode_of(buffer, 0)[0][0, 5, 5, 0] == 7


def test_image_size_is_passed_to_an_environment_that_takes_it(tmp_path):
    settings = {"seeds": [0], "steps": 2, "policy": "passive"}
    buffer = gather(tmp_path, "DoublePendulumPixels-v0", image_size=24, **settings)
    seen, _ = gym.make("DoublePendulumPixels-v0", image_size=24, frame_stack=1).reset(seed=0)
    assert_array_equal(episode_of(buffer, 0)[0][0], seen)
    with pytest.raises(ValueError, match=r"hold image_size=32, but frames of image_size=64"):
        gather(tmp_path / "other", "DoublePendulumPixels-v0", env_kwargs={"image_size": 32})


class Recording(Policy):
    """A policy that records its observations."""

    def __init__(self, frame_input=None):
        self._frame_input = frame_input
        self.observations = []

    @property
    def frame_input(self):
        return self._frame_input

    def identity(self):
        return {"name": "recording"}

    def bind(self, action_space, observation_space, steps):
        def act(t, observation):
            self.observations.append(observation.copy())
            return np.zeros(2, np.float32)

        return lambda seed: act


def test_a_policy_observes_the_whole_stack_and_the_newest_frame_is_stored(tmp_path):
    policy = Recording()
    buffer = gather(tmp_path, seeds=[9], policy=policy, env_kwargs={"frame_stack": 3, "size": 8})
    assert buffer.frame_shape == (64, 64, 3)
    assert [observation.shape for observation in policy.observations] == [(8, 8, 9)] * 5
    steps = [observation[0, 0, ::3].tolist() for observation in policy.observations]
    assert steps == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert episode_of(buffer, 0)[0][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_policy_can_observe_the_stored_frames_of_an_environment_without_images(tmp_path):
    policy = Recording(((64, 64, 3), 2))
    kwargs = {"observation": "vector"}
    buffer = gather(tmp_path, seeds=[9, 8], policy=policy, env_kwargs=kwargs, num_envs=2)
    observations = policy.observations
    assert [observation.shape for observation in observations] == [(64, 64, 6)] * 10
    steps = [observation[32, 0, ::3].tolist() for observation in observations[::2]]
    assert steps == [[0, 0], [0, 1], [1, 2], [2, 3], [3, 4]]
    frames = episode_of(buffer, 0)[0]
    assert np.array_equal(observations[4], np.concatenate([frames[1], frames[2]], -1))
    with pytest.raises(ValueError, match=r"the policy takes frames of shape \(8, 8, 3\)"):
        gather(tmp_path / "other", policy=Recording(((8, 8, 3), 2)), env_kwargs=kwargs)
    assert not (tmp_path / "other").exists()


def test_frames_are_not_stacked_for_a_policy_that_does_not_observe_them(tmp_path):
    two, three = (
        gather(tmp_path / str(n), env_kwargs={"frame_stack": n}, policy="passive") for n in (2, 3)
    )
    assert two.metadata == three.metadata
    assert two.frame_shape == (64, 64, 3)


def test_an_environment_without_state_has_none_stored(tmp_path):
    buffer = gather(tmp_path, env_kwargs={"state": False})
    assert buffer.state_dim == 0
    assert not (tmp_path / "states.bin").exists()


def test_episodes_are_only_appended_to_data_of_the_same_settings(tmp_path):
    gather(tmp_path, seeds=[1, 2])
    with pytest.raises(ReplayBufferError, match="is not empty"):
        gather(tmp_path, seeds=[3])
    both = gather(tmp_path, seeds=[3, 4], append=True)
    assert both.seeds.tolist() == [1, 2, 3, 4]
    with pytest.raises(ReplayBufferError, match="already holds 1 of the 2 seeds, among them 4"):
        gather(tmp_path, seeds=[4, 5], append=True)
    with pytest.raises(ReplayBufferError, match="steps is 50, wanted 49"):
        gather(tmp_path, seeds=[5], steps=49, append=True)
    assert gather(tmp_path, seeds=[5], append=True).num_episodes == 5


def test_only_the_first_seeds_are_used(tmp_path):
    assert gather(tmp_path, seeds=range(100, 200), episodes=3).seeds.tolist() == [100, 101, 102]


def test_progress_counts_the_episodes_in_the_buffer(tmp_path):
    counts = []
    gather(tmp_path, seeds=[1, 2], progress=counts.append)
    gather(tmp_path, seeds=[3], append=True, progress=counts.append)
    assert counts == [1, 2, 3]


@pytest.mark.parametrize("policy", [Passive(), Random((2, 3)), Mixed(0.25)])
def test_policies_can_be_passed_as_objects(tmp_path, policy):
    assert gather(tmp_path, policy=policy).metadata["policy"] == policy.identity()


@pytest.mark.parametrize(("key", "dim"), [("half", 1), ("pair", 2)])
def test_state_key_chooses_what_is_stored_as_the_state(tmp_path, key, dim):
    buffer = gather(tmp_path, env_kwargs={"extra_info": True}, state_key=key, num_envs=2)
    assert buffer.state_dim == dim
    states = buffer.states([1], [0], 6)[0]
    assert_array_equal(states, np.repeat(np.arange(6.0)[:, None], dim, axis=1) / 2)


def test_a_state_key_without_numbers_is_refused_with_the_keys_that_exist(tmp_path):
    with pytest.raises(
        ValueError, match=r"state_key is 'speed', .* there are 'half', 'pair', 'state'"
    ):
        gather(tmp_path / "buffer", env_kwargs={"extra_info": True}, state_key="speed")
    assert not (tmp_path / "buffer").exists()


def test_data_with_another_state_key_is_not_appended_to(tmp_path):
    gather(tmp_path, env_kwargs={"extra_info": True}, state_key="half").close()
    with pytest.raises(ReplayBufferError, match=r"state_key is 'half', wanted 'pair'"):
        gather(
            tmp_path, seeds=(50,), env_kwargs={"extra_info": True}, state_key="pair", append=True
        )
