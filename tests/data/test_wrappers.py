"""Any environment fits: the user's wrappers, frame skip, Dict observations and other actions."""

from contextlib import closing
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import tiny_env
from gymnasium import spaces
from numpy.testing import assert_array_equal
from test_collect import TINY, episode_of, gather, stored_bytes
from tiny_env import SpacesEnv
from typer.testing import CliRunner

import worldmodel
from worldmodel.cli import app
from worldmodel.config import build_config, dump, from_options
from worldmodel.data import ReplayBuffer, make_env, make_vec_env, resolve
from worldmodel.data.adapters import adapt
from worldmodel.data.datasets import check_data
from worldmodel.errors import ConfigError, ReplayBufferError
from worldmodel.models.spec import describe_actions
from worldmodel.registry import reference
from worldmodel.rl.envs import state_envs
from worldmodel.settings import read_yaml

IMAGE = spaces.Box(0, 255, (16, 16, 3), np.uint8)
VECTOR = spaces.Box(-1, 99, (3,), np.float32)
BOX = spaces.Box(-1, 1, (2,), np.float32)


class Brighter(gym.ObservationWrapper):
    """Adds to all pixels."""

    def __init__(self, env, by=10):
        super().__init__(env)
        self.by = by

    def observation(self, observation):
        return observation + np.uint8(self.by)


class Doubled(gym.ObservationWrapper):
    """Doubles all pixels."""

    def observation(self, observation):
        return observation * np.uint8(2)


def negated(env):
    """A function is a wrapper too."""
    return gym.wrappers.TransformReward(env, lambda reward: -reward)


def factory(observation_space=IMAGE, action_space=BOX, name="Env", render_modes=("rgb_array",)):
    """The reference of an environment with these spaces."""

    def init(self, length=4, render_mode=None):
        SpacesEnv.__init__(self, observation_space, action_space, length, render_mode)

    metadata = {"render_modes": list(render_modes), "render_fps": 10}
    return reference(type(name, (SpacesEnv,), {"__init__": init, "metadata": metadata}))


def adapted(env_id, observation="auto", **options):
    return adapt(env_id, {}, image_size=16, observation=observation, **options)


def identity(env_id=TINY, env_kwargs=None, **options):
    settings = {"policy": "random", "steps": 9, "image_size": 8, "observation": "auto"}
    return resolve(env_id, env_kwargs, **(settings | options)).identity()


def test_wrappers_are_applied_in_order_the_first_one_innermost(tmp_path):
    wrappers = ["test_wrappers:Doubled", Brighter, negated]
    buffer = gather(tmp_path, seeds=[3], image_size=8, wrappers=wrappers)
    frames, _, rewards, _ = episode_of(buffer, 0)
    assert frames[:, 0, 0, 0].tolist() == [10 + 2 * t for t in range(6)]
    assert rewards.tolist() == [-1, -2, -3, -4, -5]


def test_wrappers_replace_the_native_vector_form_and_store_the_same_without_effect(tmp_path):
    settings = {"env_id": "DoublePendulumPixels-v0", "steps": 5, "image_size": 16}
    native = gather(tmp_path / "native", **settings)
    gather(tmp_path / "wrapped", wrappers=[gym.Wrapper], num_envs=2, **settings)
    assert stored_bytes(tmp_path / "native") == stored_bytes(tmp_path / "wrapped")
    assert not adapted("DoublePendulumPixels-v0", wrappers=[gym.Wrapper]).native
    assert adapted("DoublePendulumPixels-v0").native
    assert "wrappers" not in native.metadata


def test_data_of_other_wrappers_is_told_apart_and_without_any_nothing_is_noted():
    plain = identity()
    assert not {"wrappers", "frame_skip", "observation_key", "actions"} & plain.keys()
    assert identity(wrappers=[], frame_skip=1, observation_key=None) == plain
    by = [partial(Brighter, by=n) for n in (3, 4)]
    changes = [[Brighter], [Doubled], [Doubled, Brighter], [Brighter, Doubled], by[:1], by[1:]]
    different = [identity(wrappers=wrappers) for wrappers in changes]
    assert all(a != b for i, a in enumerate(different) for b in [plain, *different[:i]])
    assert identity(wrappers=["test_wrappers:Brighter"]) == different[0]
    assert len(different[0]["wrappers"][0]["source"]) == 64
    assert identity(frame_skip=2) == plain | {"frame_skip": 2}


def test_episodes_of_other_wrappers_are_not_appended(tmp_path):
    gather(tmp_path, seeds=[1], wrappers=[Doubled]).close()
    with pytest.raises(ReplayBufferError, match=r"wrappers is .*Doubled.*, wanted None"):
        gather(tmp_path, seeds=[2], append=True)


@pytest.mark.parametrize(
    ("wrapper", "error", "message"),
    [
        ("nowhere:Wrapper", ConfigError, "cannot load the wrapper 'nowhere:Wrapper'"),
        ("test_wrappers:TINY", ConfigError, "expected a class or a function that takes an env"),
        (lambda env: None, ValueError, r"wrapper .*<lambda>.* returned None; expected a gymnasium"),
    ],
)
def test_what_is_no_wrapper_is_refused(wrapper, error, message):
    with pytest.raises(error, match=message):
        adapted("Tiny-v0", wrappers=[wrapper])


def test_the_configuration_holds_wrappers_by_name_and_every_environment_of_a_run_has_them(tmp_path):
    options = {"env": "tiny_env:Tiny-v0", "wrappers": [Brighter, "test_wrappers:Doubled"]}
    config = build_config(from_options(**options, frame_skip=2, image_size=16))
    assert config.env.wrappers == ("test_wrappers:Brighter", "test_wrappers:Doubled")
    (tmp_path / "config.yaml").write_text(dump(config))
    assert build_config(read_yaml(tmp_path / "config.yaml")) == config
    with closing(make_vec_env(config, 2)) as envs, make_env(config) as env:
        for observation in (env.reset(seed=0)[0], envs.reset(seed=0)[0][0]):
            assert observation[0, 0, 0] == 20
        actions = np.zeros((2, 2), np.float32)
        for observation in (env.step(actions[0])[0], envs.step(actions)[0][0]):
            assert observation[0, 0, [3, 6]].tolist() == [20, 24]


def test_a_name_that_is_no_reference_is_refused_with_the_configuration():
    with pytest.raises(ConfigError, match=r"unknown wrapper 'resize'; expected module:Name"):
        build_config({"env": {"wrappers": ["resize"]}})


def test_agents_on_the_state_act_in_the_wrapped_environment():
    env = {"id": "tiny_env:Tiny-v0", "kwargs": {"observation": "vector"}, "frame_skip": 2}
    config = build_config({"env": env | {"wrappers": ["test_wrappers:negated"]}})
    with closing(state_envs(config, 2)) as envs:
        envs.reset(seed=0)
        observations, rewards, *_ = envs.step(np.zeros((2, 2), np.float32))
        assert observations[0, 0] == 2
        assert rewards.tolist() == [-3, -3]


def test_frame_skip_sums_rewards_and_stops_at_the_end(tmp_path):
    kwargs = {"length": (5, 5), "terminates": True}
    buffer = gather(tmp_path, seeds=[3], env_kwargs=kwargs, image_size=8, frame_skip=2)
    frames, _, rewards, terminated = episode_of(buffer, 0)
    assert frames[:, 0, 0, 0].tolist() == [0, 2, 4, 5]
    assert rewards.tolist() == [1 + 2, 3 + 4, 5]
    assert terminated.tolist() == [False, False, True]


def test_frame_skip_is_outside_the_wrappers(tmp_path):
    clip = [partial(gym.wrappers.TransformReward, func=np.sign)]
    buffer = gather(tmp_path, seeds=[3], wrappers=clip, frame_skip=2, steps=2)
    assert episode_of(buffer, 0)[2].tolist() == [2, 2]
    with pytest.raises(ValueError, match="frame_skip is 0; expected at least 1"):
        adapted("Tiny-v0", frame_skip=0)


def test_a_step_lasts_as_long_as_its_frames(tmp_path):
    values = {"env": {"id": "CartPole-v1", "frame_skip": 3}}
    run = worldmodel.Run(tmp_path)
    run.config = build_config(values)
    assert run.dt == pytest.approx(3 / 50)


@pytest.mark.parametrize(
    ("observation", "key", "frame"),
    [("auto", None, (16, 16, 3)), ("vector", None, (3,)), ("vector", "small", (3,))],
)
def test_the_only_usable_entry_of_a_dict_is_observed(observation, key, frame):
    space = spaces.Dict({"image": IMAGE, "small": VECTOR, "count": spaces.Discrete(3)})
    env = adapted(factory(space), observation, observation_key=key)
    assert env.source.shape == frame
    assert env.source.kind == ("image" if observation == "auto" else "vector")
    assert env.layers.identity() == {
        "observation_key": "image" if observation == "auto" else "small"
    }
    with closing(env.make()) as made:
        assert made.reset()[0].shape == frame


def test_one_entry_of_several_is_chosen_by_its_key(tmp_path):
    env_id = factory(spaces.Dict({"left": IMAGE, "right": IMAGE, "joints": VECTOR}))
    with pytest.raises(
        ValueError, match=r"'joints' \(.*'left' \(.*'right' .* 2 of them .* --observation-key, as l"
    ):
        adapted(env_id)
    with pytest.raises(ValueError, match=r"observation_key is 'top'; expected one of .*'left'"):
        adapted(env_id, observation_key="top")
    buffer = gather(tmp_path, env_id, observation_key="left", image_size=16)
    assert buffer.metadata["observation"] == "image"
    assert episode_of(buffer, 0)[0][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_dict_of_vectors_is_rendered_for_pixels_and_needs_a_key_for_vectors():
    env_id = factory(spaces.Dict({"position": VECTOR, "goal": VECTOR}))
    assert adapted(env_id).source.kind == "render"
    with pytest.raises(ValueError, match="2 of them can be learned from; choose one"):
        adapted(env_id, "vector")
    blind = factory(spaces.Dict({"position": VECTOR}), render_modes=())
    assert adapted(blind).source.kind == "vector"


def test_a_key_of_a_vector_is_not_replaced_by_renderings():
    env_id = factory(spaces.Dict({"position": VECTOR, "goal": VECTOR}))
    with pytest.raises(ValueError, match=r"entry 'goal' .*no image; .*--observation vector"):
        adapted(env_id, observation_key="goal")


def test_a_key_without_a_dict_is_refused():
    with pytest.raises(ValueError, match="observation_key is 'pixels', but the environment obser"):
        adapted("Tiny-v0", observation_key="pixels")


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.MultiDiscrete([2, 3]), [(a, b) for a in range(2) for b in range(3)]),
        (spaces.MultiDiscrete([2, 2], start=[1, 5]), [(1, 5), (1, 6), (2, 5), (2, 6)]),
        (spaces.MultiBinary(2), [(0, 0), (0, 1), (1, 0), (1, 1)]),
    ],
)
def test_every_combination_of_actions_is_one_discrete_action(space, expected):
    env = adapted(factory(action_space=space)).make()
    assert env.action_space == spaces.Discrete(len(expected))
    env.reset()
    for number in range(len(expected)):
        env.step(np.int64(number))
    assert [tuple(action.tolist()) for action in env.unwrapped.actions] == expected
    assert describe_actions(env.action_space).n == len(expected)


@pytest.mark.parametrize("shape", [(2, 2), (2, 3, 1)])
def test_combinations_of_arrays_keep_their_shape(shape):
    for space in (spaces.MultiBinary(shape), spaces.MultiDiscrete(np.full(shape, 2))):
        env = adapted(factory(action_space=space)).make()
        env.reset()
        env.step(1)
        assert env.action_space.n == 2 ** np.prod(shape)
        assert env.unwrapped.actions[0].ravel().tolist() == [0] * (np.prod(shape) - 1) + [1]


def test_too_many_combinations_are_refused():
    assert adapted(factory(action_space=spaces.MultiBinary(10))).action_space.n == 1024
    with pytest.raises(ValueError, match=r"has 2048 combinations; .* 1024: .* --wrapper"):
        adapted(factory(action_space=spaces.MultiBinary(11)))


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_a_bounded_box_of_any_shape_is_flat(tmp_path, shape):
    env_id = factory(action_space=spaces.Box(-1, 2, shape, np.float64))
    buffer = gather(tmp_path, env_id, seeds=[1], image_size=16)
    size = int(np.prod(shape))
    assert buffer.action_space == spaces.Box(-1, 2, (size,), np.float64)
    env = adapted(env_id).make()
    env.reset()
    for action in episode_of(buffer, 0)[1]:
        env.step(action)
        assert_array_equal(env.unwrapped.actions[-1], action.reshape(shape))
    assert env.unwrapped.actions[-1].shape == shape


@pytest.mark.parametrize(
    "space", [spaces.Discrete(3, start=2), BOX, spaces.Box(-np.inf, np.inf, (2,))]
)
def test_actions_that_need_no_change_have_no_wrapper(space):
    env = adapted(factory(action_space=space))
    assert env.action_space is space
    assert not env.layers


@pytest.mark.parametrize(
    "space", [spaces.Box(-np.inf, np.inf, (2, 2)), spaces.Tuple([spaces.Discrete(2)])]
)
def test_actions_that_nothing_can_adapt_are_refused(tmp_path, space):
    data = {"dir": str(tmp_path), "policy": "random"}
    config = build_config({"env": {"id": factory(action_space=space)}, "data": data})
    with pytest.raises(ValueError, match=r"is not supported: .* --wrapper module:Name"):
        check_data(config)
    with pytest.raises(ValueError, match=r"is not supported: .* --wrapper module:Name"):
        describe_actions(space)


def test_data_of_images_that_are_not_square_is_told_apart_from_stretched_frames():
    oblong = factory(spaces.Box(0, 255, (16, 24, 3), np.uint8))
    for env_id, observation, marked in (
        (oblong, "auto", True),
        (oblong, "render", False),
        ("CartPole-v1", "auto", True),
        ("CartPole-v1", "vector", False),
        ("DoublePendulumPixels-v0", "auto", False),
        ("DoublePendulum-v0", "auto", False),
    ):
        content = identity(env_id, observation=observation)
        assert content.get("oblong_images") == ("letterbox" if marked else None), env_id


def test_float_images_are_refused_with_what_to_do():
    env_id = factory(spaces.Box(0, 1, (16, 16, 3), np.float32))
    for observation in ("auto", "image"):
        with pytest.raises(
            ValueError, match=r"float images, .* expected uint8: .* --wrapper .*TransformObserv"
        ):
            adapted(env_id, observation)
    assert adapted(env_id, "render").source.kind == "render"

    def to_uint8(env):
        def convert(image):
            return (255 * image).astype(np.uint8)

        return gym.wrappers.TransformObservation(env, convert, IMAGE)

    assert adapted(env_id, wrappers=[to_uint8]).source.kind == "image"


def test_images_with_their_channels_first_are_transposed(tmp_path):
    class Planes(tiny_env.TinyEnv):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.observation_space = spaces.Box(0, 255, (3, 8, 8), np.uint8)

        def _observe(self):
            observation, info = super()._observe()
            return np.moveaxis(observation, -1, 0), info

    first = gather(tmp_path / "first", reference(Planes), image_size=8)
    gather(tmp_path / "last", image_size=8)
    assert first.metadata["observation"] == "image"
    assert stored_bytes(tmp_path / "first") == stored_bytes(tmp_path / "last")


def test_the_commands_take_wrappers_a_key_and_a_frame_skip(tmp_path):
    env_id = factory(spaces.Dict({"left": IMAGE, "right": IMAGE}))
    options = ["--env", env_id, "--policy", "random", "--image-size", "16", "--steps", "2"]
    options += ["--wrapper", "test_wrappers:negated", "--wrapper", "gymnasium:Wrapper"]
    options += ["--observation-key", "left", "--frame-skip", "2"]
    result = CliRunner().invoke(app, ["collect", str(tmp_path / "mine"), "--size", "2", *options])
    assert result.exit_code == 0, result.output
    with ReplayBuffer.open(tmp_path / "mine") as buffer:
        frames, _, rewards, _ = episode_of(buffer, 0)
        assert frames[:, 0, 0, 0].tolist() == [0, 2, 4]
        assert rewards.tolist() == [-2, -2]
        names = [wrapper["name"] for wrapper in buffer.metadata["wrappers"]]
        assert names == ["test_wrappers:negated", "gymnasium.core:Wrapper"]
