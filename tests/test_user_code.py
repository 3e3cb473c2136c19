"""Exceptions in user code: one line with the place, the lines of that code, and exit status 1."""

import re
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from typer.testing import CliRunner

from worldmodel.cli import app
from worldmodel.data import collect
from worldmodel.user_code import in_user_code, named_errors, user_code_of

MODULE = """
import gymnasium as gym
import numpy as np
from worldmodel.data import Policy


class Broken(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    observation_space = gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, where="nowhere", render_mode=None):
        self.where = where
        self.fail("init")

    def fail(self, where):
        if where == self.where:
            {}["missing key"]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed == 3:
            self.fail("reset")
        self.steps = 0
        return self.frame(), {}

    def frame(self):
        return np.full((16, 16, 3), self.steps, np.uint8)

    def step(self, action):
        self.steps += 1
        if self.steps == 4:
            self.fail("step")
        return self.frame(), 0.0, False, False, {}

    def render(self):
        return self.frame()


class BrokenPolicy(Policy):
    def bind(self, action_space, observation_space, steps):
        def start(seed):
            return lambda t, observation: 0 // (seed - 2)

        return start


def broken_wrapper(env):
    raise RuntimeError("no wrapper today")


def broken_data():
    raise LookupError("no such recording")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "broken_parts.py").write_text(MODULE)
    (tmp_path / "broken_import.py").write_text("x = 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLDMODEL_DEBUG", raising=False)
    yield
    sys.modules.pop("broken_parts", None)


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


ENV = ("--env", "broken_parts:Broken")
COLLECT = ("collect", "data", "--size", 5, "--steps", 6, "--image-size", 16)
TRAIN = ("train", "--preset", "smoke", "--size", 8)


@pytest.mark.parametrize(
    ("command", "place", "line"),
    [
        ((*COLLECT, *ENV, "--env-kwargs", "where=init"), "the constructor of", "in fail"),
        ((*COLLECT, *ENV, "--env-kwargs", "where=reset"), "reset of .* with seed 3", "in fail"),
        (
            (*COLLECT, *ENV, "--env-kwargs", "where=step"),
            "step 4 of broken_parts:Broken after the reset with seed 0",
            "in fail",
        ),
        (
            (*COLLECT, *ENV, "--env-kwargs", "where=step", "--workers", 2),
            "step 4 of broken_parts:Broken after the reset with seed 0",
            "in fail",
        ),
        ((*COLLECT, *ENV, "--policy", "broken_parts:BrokenPolicy"), "the policy", "in <lambda>"),
        ((*COLLECT, *ENV, "--wrapper", "broken_parts:broken_wrapper"), "wrapper", "in broken_w"),
        ((*COLLECT, "--env", "broken_import:Env"), "the import of", "in <module>"),
        ((*TRAIN, "--data", "broken_parts:broken_data"), "LookupError", "in broken_data"),
    ],
    ids=lambda value: " ".join(map(str, value[-2:])) if isinstance(value, tuple) else None,
)
def test_the_place_and_their_own_lines_are_shown(module, command, place, line):
    policy = () if "--policy" in command or command[0] == "train" else ("--policy", "random")
    result = run(*command, *policy)
    assert result.exit_code == 1, result.output
    first, *rest = result.stderr[result.stderr.index("Error: ") :].splitlines()
    assert re.search(place, first), first
    assert any(line in text for text in rest)
    assert rest[-1] == "The whole traceback: the same command with --debug"
    assert not any("/worldmodel/" in text for text in rest)
    complete = place in ("the policy", "reset of .* with seed 3")
    assert Path("data/header.json").exists() == complete  # some episodes, or none


def test_debug_shows_everything(module):
    command = [str(word) for word in (*COLLECT, *ENV, "--env-kwargs", "where=step")]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, root / "cli.py", *command, "--policy", "random", "--debug"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "/worldmodel/data/collect.py" in done.stderr
    assert done.stderr.rstrip().endswith("after the reset with seed 0")


def test_in_python_the_exception_stays_as_it_is(module, tmp_path):
    spec = {"episodes": 5, "seeds": range(5), "steps": 6, "policy": "random", "image_size": 16}
    with pytest.raises(KeyError) as raised:
        collect("broken_parts:Broken", tmp_path / "d", env_kwargs={"where": "reset"}, **spec)
    assert raised.value.args == ("missing key",)
    assert user_code_of(raised.value) == "reset of broken_parts:Broken with seed 3"


class OldApi(gym.Env):
    """Follows the API of gym before version 0.26, in `step` or in `reset`."""

    observation_space = gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, method):
        self.method = method

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        frame = np.zeros((16, 16, 3), np.uint8)
        return frame if self.method == "reset" else (frame, {})

    def step(self, action):
        return np.zeros((16, 16, 3), np.uint8), 0.0, False, {}


def test_the_old_api_of_gym_is_named_in_reset():
    env = named_errors(OldApi("reset"), "Old", wrapped=False)
    expected = r"returned ndarray; expected \(observation, info\)"
    with pytest.raises(ValueError, match=expected) as error:
        env.reset(seed=0)
    assert user_code_of(error.value) == "reset of Old with seed 0"


def test_the_old_api_of_gym_is_named_in_step():
    env = named_errors(OldApi("step"), "Old", wrapped=False)
    env.reset(seed=0)
    expected = r"returned 4 values; expected \(observation, reward, terminated, truncated, info\)"
    with pytest.raises(ValueError, match=expected) as error:
        env.step(0)
    assert user_code_of(error.value).startswith("step 1 of Old")


def test_of_nested_places_the_innermost_one_is_named():
    with pytest.raises(KeyError) as raised, in_user_code("the policy"), in_user_code("reset"):
        raise KeyError("missing")
    assert user_code_of(raised.value) == "reset"
    assert raised.value.__notes__ == ["Raised in reset"]
    assert user_code_of(KeyError("elsewhere")) is None
