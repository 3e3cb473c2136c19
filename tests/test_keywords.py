"""The types of keyword arguments name what the functions accept, and nothing else."""

import ast
import inspect
from pathlib import Path

import pytest

import worldmodel
from worldmodel import AgentConfig, LatentVectorEnv
from worldmodel.config import OPTIONS
from worldmodel.keywords import AgentOptions, GoalOptions, ImagineOptions, TrainOptions
from worldmodel.planning import reach_goals

PACKAGE = Path(worldmodel.__file__).parent


def parameters(function, *without):
    return {*inspect.signature(function).parameters} - {*without}


@pytest.mark.parametrize(
    ("options", "accepted"),
    [
        (TrainOptions, {"mode", *OPTIONS} - {"env", "data"}),
        (AgentOptions, {*AgentConfig.model_fields}),
        (GoalOptions, parameters(reach_goals, "run", "callbacks")),
        (ImagineOptions, parameters(LatentVectorEnv, "wm", "num_envs")),
    ],
)
def test_every_accepted_keyword_has_a_type(options, accepted):
    assert options.__optional_keys__ == accepted


def test_type_checkers_without_a_plugin_see_every_default_of_the_configuration():
    positional = [
        f"{path.name}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Field" and node.args
    ]
    assert positional == []
