"""Careless calls of the command line, the configuration, the environments and the model."""

import importlib
import math
from contextlib import suppress

import gymnasium as gym
import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from mutations import SCALARS, VALUES, places
from typer.testing import CliRunner

import worldmodel
from worldmodel.cli import app
from worldmodel.config import Config, build_config, from_options
from worldmodel.errors import ConfigError, ReplayBufferError, RunError
from worldmodel.rl.tuned import parse_hyper
from worldmodel.settings import parse_settings

COMMAND = typer.main.get_command(app)
COMMANDS = {name: COMMAND.commands[name] for name in COMMAND.commands if name != "rl"}
COMMANDS |= {f"rl {name}": COMMAND.commands["rl"].commands[name] for name in ("train", "compare")}
TEXT = st.one_of(
    SCALARS.map(str),
    st.sampled_from(["0", "1", "2", "-1", "0.5", "nan", "inf", "1e400", "random", "passive"]),
    st.sampled_from(["Tiny-v0", "tiny_env:TinyEnv", "nosuch:X", "os:path", "CartPole-v1", "x=1"]),
    st.sampled_from(["seed=1", "a.b.c=[1", "env.kwargs={}", "model.encoder=mlp", "=", "vector"]),
)


class StoppedError(RunError):
    """Stands for work that would take long."""


@pytest.fixture(autouse=True)
def _no_long_work(monkeypatch, tmp_path):
    def stop(*_, **__):
        raise StoppedError("stopped")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLDMODEL_TRUST", raising=False)
    for name in (
        *("training._train", "training.resume", "evaluation.evaluate_runs"),
        *("rl.agents.open_envs", "rl.compare.train_agent", "data.datasets.collect"),
        *("data.collect_command.collect", "data.collect_command.collect_on_ray"),
        *("viz.viewer.play", "planning.episodes.act", "planning.goal_reaching.act"),
        *("viz.rollout.play_episode", "planning.goal_reaching.evaluation_set"),
        *("export.target.write_dream", "export.target.write_onnx", "sweeps.run_sweep.cluster"),
    ):
        module, _, attribute = name.rpartition(".")
        monkeypatch.setattr(importlib.import_module(f"worldmodel.{module}"), attribute, stop)


@given(data=st.data())
@pytest.mark.parametrize("name", COMMANDS)
def test_no_call_ends_with_a_traceback(driven_run, name, data):
    words = name.split()
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "argument":
            pool = st.sampled_from([str(driven_run), str(driven_run / "config.yaml"), "nothing"])
            words.append(data.draw(pool | TEXT, label=parameter.name))
        elif data.draw(st.integers(0, 5), label=parameter.name) == 0:
            words.append(parameter.opts[0])
            if not getattr(parameter, "is_flag", False):
                words.append(data.draw(TEXT, label=parameter.name))
    result = CliRunner().invoke(app, words)
    assert result.exception is None or isinstance(result.exception, SystemExit), words
    assert result.exit_code in (0, 1, 2), words


KEYS = [".".join(map(str, path)) for path in places(Config().model_dump(mode="json"))]


@given(key=st.sampled_from(KEYS), value=VALUES)
def test_any_value_of_any_key_is_a_configuration_or_an_error(key, value):
    nested = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    with suppress(ConfigError):
        config = build_config(nested)
        assert build_config(config.model_dump(mode="json")) == config


@given(text=TEXT, value=st.text(max_size=10))
def test_any_text_is_a_setting_or_an_error(text, value):
    for parse in (lambda: parse_settings([f"{text}={value}"]), lambda: parse_hyper([text + value])):
        with suppress(ConfigError, OSError):
            parse()


@given(
    options=st.dictionaries(
        st.sampled_from(["env", "policy", "size", "epochs", "seed", "observation", "wrappers"]),
        VALUES,
        max_size=3,
    )
)
def test_any_option_of_train_is_valid_or_an_error(options):
    with suppress(ConfigError, ValueError, TypeError, gym.error.Error, RunError, ReplayBufferError):
        build_config(from_options(**options))


ENV_ARGUMENTS = (
    *("dt", "max_torque", "damping", "gravity", "masses", "lengths", "image_size", "frame_stack"),
    *("start", "action_size", "actuated", "render_mode", "render_size", "noise"),
)


@given(kwargs=st.dictionaries(st.sampled_from(ENV_ARGUMENTS), VALUES, max_size=3), value=VALUES)
def test_the_pendulum_runs_or_says_what_is_wrong(kwargs, value):
    mode = kwargs.get("render_mode")
    if mode == "human" or not isinstance(mode, str | None):  # gym.make fails on the latter
        return
    with suppress(ValueError, TypeError):
        env = gym.make("DoublePendulumPixels-v0", **kwargs)
        env.reset(seed=0)
        with suppress(ValueError, TypeError):
            env.reset(options={"state": value})
        for _ in range(3):
            observation, reward, *_ = env.step(env.action_space.sample())
            assert math.isfinite(reward)
            assert env.observation_space.contains(observation)


ARRAYS = st.one_of(
    st.sampled_from([np.nan, np.inf, 0.0, 1e30, 7, True, "text", None]),
    st.builds(
        lambda shape, value, dtype: np.full(shape, value).astype(dtype),
        st.lists(st.integers(0, 17), max_size=4).map(tuple),
        st.sampled_from([0, 1, -1, 255, np.nan, np.inf, 1e30]),
        st.sampled_from(["uint8", "int64", "float32", "float64", "bool"]),
    ),
    st.sampled_from([np.zeros((2, 8), np.float32), np.zeros((2, 1), np.float32)]),
    st.just(np.zeros((2, 16, 16, 6), np.uint8)),
)


@pytest.fixture(scope="module")
def wm(driven_run):
    return worldmodel.load(driven_run, "cpu")


def is_finite(value):
    return isinstance(value, str) or bool(np.isfinite(np.asarray(value, float)).all())


@given(first=ARRAYS, second=ARRAYS, third=ARRAYS)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_the_model_gives_finite_numbers_or_names_the_argument(wm, first, second, third):
    for use in (
        lambda: wm.encode(first),
        lambda: wm.decode(first),
        lambda: wm.predict(first, second),
        lambda: wm.rollout(first, second),
        lambda: wm.outcome(first, second, third),
    ):
        try:
            results = use()
        except (ValueError, TypeError):
            continue
        for result in results if isinstance(results, tuple) else (results,):
            assert result.isfinite().all() or np.abs(first).max() > 1e20 or not is_finite(third)
