"""Environments are found by id or class, and observed as the encoder needs them."""

import sys
from contextlib import closing

import gymnasium as gym
import numpy as np
import pytest
import tiny_env
from gymnasium.vector import AutoresetMode
from numpy.testing import assert_array_equal
from test_collect import TINY, gather, stored_bytes

from worldmodel.config import build_config
from worldmodel.data import StackedFrames, make_env, make_vec_env
from worldmodel.data.adapters import accepts, is_native, make_batch, make_single
from worldmodel.data.env_ids import find_spec
from worldmodel.data.frames import FrameSource, FrameStack
from worldmodel.errors import ConfigError
from worldmodel.registry import reference

PIXELS = "DoublePendulumPixels-v0"


def make_small(size=8):
    """A factory of environments."""
    return tiny_env.TinyEnv(size=size, observation="image")


def config_of(env_id, **changes):
    kwargs = changes.pop("kwargs", {})
    return build_config({"env": {"id": env_id, "kwargs": kwargs}, "image_size": 16}, changes)


@pytest.mark.parametrize("env_id", ["Tiny-v0", TINY])
def test_registered_environments_are_found_by_their_id(env_id):
    assert find_spec(env_id) is gym.spec("Tiny-v0")


class NextStepOnly(gym.vector.VectorEnv):
    """A vector form that takes `autoreset_mode` and refuses to disable it, as that of Atari."""

    def __init__(self, num_envs, autoreset_mode=AutoresetMode.NEXT_STEP):
        if autoreset_mode == AutoresetMode.DISABLED:
            raise ValueError("Invalid autoreset_mode")


class OtherFrames(gym.vector.VectorEnv):
    """A vector form whose observations differ from those of single environments."""

    def __init__(self, num_envs, autoreset_mode):
        self.num_envs = num_envs
        self.single_observation_space = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)


@pytest.mark.parametrize("form", [NextStepOnly, OtherFrames])
def test_a_vector_form_of_its_own_is_used_only_where_it_equals_single_environments(form):
    spec = gym.envs.registration.EnvSpec(
        "Other-v0", entry_point=tiny_env.TinyEnv, vector_entry_point=form
    )
    assert not is_native(spec)
    assert is_native(gym.spec("DoublePendulumPixels-v0"))


@pytest.mark.parametrize(
    ("env_id", "kind"),
    [("tiny_env:TinyEnv", tiny_env.TinyEnv), ("test_adapters:make_small", tiny_env.TinyEnv)],
)
def test_classes_and_factories_need_no_registration(env_id, kind):
    spec = find_spec(env_id)
    assert spec.id == env_id
    assert accepts(spec, "size")
    assert not is_native(spec)
    with make_single(env_id, {"size": 20}) as env:
        assert isinstance(env.unwrapped, kind)
        assert env.observation_space.shape == (20, 20, 3)
    with closing(make_batch(env_id, {"size": 20}, native=False, num_envs=2)) as envs:
        assert envs.observation_space.shape == (2, 20, 20, 3)


def test_a_class_that_cannot_be_imported_works_in_its_own_process(tmp_path):
    class Local(tiny_env.TinyEnv):
        pass

    env_id = reference(Local)
    assert "<locals>" in env_id
    with make_single(env_id, {}) as env:
        assert type(env.unwrapped) is Local
    assert gather(tmp_path, env_id).num_episodes == 3


def test_a_class_is_collected_like_its_registered_id(tmp_path):
    by_class = gather(tmp_path / "class", "tiny_env:TinyEnv")
    by_id = gather(tmp_path / "id", TINY)
    assert stored_bytes(tmp_path / "class") == stored_bytes(tmp_path / "id")
    env = by_class.metadata["env"]
    assert (env["id"], env["entry_point"]) == ("tiny_env:TinyEnv", "tiny_env:TinyEnv")
    assert len(env["source"]) == 64
    assert "source" not in by_id.metadata["env"]


@pytest.mark.parametrize(
    ("env_id", "error", "message"),
    [
        ("Nowhere-v0", gym.error.Error, "Nowhere"),
        ("CartPole", gym.error.Error, "Did you mean CartPole-v0 or CartPole-v1"),
        ("Nowhere", gym.error.Error, "write module:Nowhere"),
        ("tiny_env:Nowhere-v0", gym.error.Error, "Nowhere"),
        ("tiny_env:Nowhere", ConfigError, "cannot load the environment 'tiny_env:Nowhere'"),
        ("nowhere:Env", ConfigError, "No module named 'nowhere'"),
        ("test_adapters:PIXELS", ConfigError, "expected an environment class or a factory"),
    ],
)
def test_environments_that_do_not_exist_are_refused(env_id, error, message):
    with pytest.raises(error, match=message):
        find_spec(env_id)


@pytest.mark.parametrize(
    ("env_id", "command"),
    [
        ("MiniGrid-Any-v0", "pip install minigrid$"),
        ("dm_control/any-v0", r"pip install 'shimmy\[dm-control\]' 'mujoco<4'$"),
    ],
)
def test_a_missing_package_of_environments_is_named_with_its_command(env_id, command, monkeypatch):
    for module in ("minigrid", "shimmy"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=command):
        find_spec(env_id)


def test_unknown_arguments_are_refused_in_the_words_of_python_with_the_known_ones():
    words = r"TinyEnv\.__init__\(\) got an unexpected keyword argument 'frameskip'; expected one of"
    with pytest.raises(ValueError, match=f"cannot make Tiny-v0 .*{words} 'actions', 'observation'"):
        make_single("Tiny-v0", {"frameskip": 4})
    with pytest.raises(ValueError, match="unexpected keyword argument 'frameskip'") as caught:
        make_single(PIXELS, {"frameskip": 4})
    assert str(caught.value).count("expected one of") == 1


@pytest.mark.parametrize("observation", ["image", "vector"])
def test_stacked_frames_equal_the_own_stack_of_an_environment(observation):
    source = FrameSource(observation, (8, 8, 3) if observation == "image" else (3,))
    env = StackedFrames(gym.make("Tiny-v0", observation=observation), source, FrameStack(3))
    own = gym.make("Tiny-v0", observation=observation, frame_stack=3)
    assert env.observation_space.shape == own.observation_space.shape
    assert env.observation_space.dtype == own.observation_space.dtype
    for seed in (4, 5):
        assert_array_equal(env.reset(seed=seed)[0], own.reset(seed=seed)[0])
        for _ in range(5):
            action = np.zeros(2, np.float32)
            (ours, *rest), (theirs, *other) = env.step(action), own.step(action)
            assert ours.dtype == theirs.dtype
            assert_array_equal(ours, theirs)
            assert rest[:3] == other[:3]


def test_an_environment_without_images_is_observed_through_its_renderings():
    config = config_of("Tiny-v0", kwargs={"observation": "vector"}, frame_stack=3)
    with make_env(config, render_mode="human") as env:
        assert env.render_mode == "rgb_array"
        env.reset(seed=0)
        env.step(np.zeros(2, np.float32))
        observation = env.step(np.zeros(2, np.float32))[0]
        assert observation.shape == (16, 16, 9)
        assert observation[3, 3].reshape(3, 3).tolist() == [[t, 0, 200] for t in range(3)]


@pytest.mark.parametrize("env_id", [PIXELS, "CartPole-v1", "Tiny-v0"])
def test_a_vector_environment_observes_what_single_ones_observe(env_id):
    config = config_of(env_id, data={"policy": "random", "env_kwargs": {}})
    envs, singles = make_vec_env(config, 2), [make_env(config) for _ in range(2)]
    assert envs.metadata["autoreset_mode"] is gym.vector.AutoresetMode.DISABLED
    observations = envs.reset(seed=[3, 4])[0]
    for i, env in enumerate(singles):
        assert envs.single_observation_space == env.observation_space
        assert_array_equal(observations[i], env.reset(seed=3 + i)[0])
    envs.action_space.seed(0)
    for _ in range(4):
        actions = envs.action_space.sample()
        observations = envs.step(actions)[0]
        for i, env in enumerate(singles):
            assert_array_equal(observations[i], env.step(actions[i])[0])
    envs.close()


def test_arguments_only_for_collecting_are_left_out_and_others_can_be_overridden():
    config = config_of(
        "Tiny-v0", kwargs={"length": [4, 4]}, data={"env_kwargs": {"length": [2, 2]}}
    )
    assert make_env(config).unwrapped.length == [4, 4]
    assert make_env(config, length=(3, 3)).unwrapped.length == (3, 3)


def test_a_vector_configuration_observes_stacked_vectors():
    config = config_of("DoublePendulum-v0", observation="vector", frame_stack=3)
    with make_env(config) as env:
        assert env.observation_space.shape == env.reset(seed=0)[0].shape == (12,)
        assert env.observation_space.dtype == np.float32
