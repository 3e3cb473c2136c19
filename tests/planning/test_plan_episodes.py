"""`plan`: episodes of the planner in the real environment, and their summary."""

import json

import numpy as np
import pytest

from worldmodel.callbacks import Callback
from worldmodel.checks import check_path
from worldmodel.planning import plan

FEW = {"episodes": 2, "steps": 6, "samples": 8, "iterations": 1}


class RecordingCallback(Callback):
    def __init__(self):
        self.done, self.messages = [], []

    def on_message(self, text, *, warning=False):
        self.messages.append(text)

    def on_task_update(self, task, done, note):
        self.done.append((task, done))


def test_settings_come_from_the_configuration_and_arguments_override_them(run):
    planning = {"method": "mppi", "horizon": 3, "samples": 9, "iterations": 2, "hold_seconds": 0.1}
    run = run.with_settings({"planning": planning})
    watch = RecordingCallback()
    result = plan(run, episodes=2, steps=6, callbacks=[watch])
    assert (result["method"], result["horizon"]) == ("mppi", 3)
    assert (result["optimizer"]["samples"], result["optimizer"]["iterations"]) == (9, 2)
    assert result["criterion"].endswith("held for 0.1 s")
    assert watch.done == [("plan", 1), ("plan", 2)]
    assert not watch.messages
    other = plan(run, method="cem", horizon=2, **FEW)
    assert (other["method"], other["horizon"]) == ("cem", 2)
    assert (other["optimizer"]["samples"], other["optimizer"]["iterations"]) == (8, 1)


def test_result_is_written_and_repeatable(run):
    result = plan(run, horizon=3, **FEW)
    assert json.loads((run.path / "plan.json").read_text()) == result
    assert check_path(run.path) == []
    assert result["goal"] == run.plugin.default_goal
    assert [attempt["seed"] for attempt in result["attempts"]] == [20_000, 20_001]
    assert [attempt["steps"] for attempt in result["attempts"]] == [6, 6]
    returns = [attempt["return"] for attempt in result["attempts"]]
    assert result["return_mean"] == pytest.approx(np.mean(returns))
    again = run.plan(horizon=3, **FEW)
    assert [attempt["return"] for attempt in again["attempts"]] == returns
    assert plan(run, goal="reward", horizon=3, **FEW)["successes"] is None


def test_model_that_was_trained_on_one_action_is_reported(run):
    watch = RecordingCallback()
    passive = run.with_settings({"data": {"policy": "passive"}})
    plan(passive, goal="reward", horizon=1, method="mppi", callbacks=[watch], **FEW)
    assert any("one action" in message for message in watch.messages)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 0}, "horizon is 0"),
        ({"method": "shooting"}, "expected one of icem, cem, mppi, or module:Name"),
        ({"samples": 0}, "samples=0"),
        ({"output": "plan.avi"}, r"\.mp4 or \.gif"),
    ],
)
def test_invalid_arguments_are_rejected_before_anything_is_written(run, arguments, message):
    (run.path / "plan.json").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=message):
        plan(run, **{**FEW, **arguments})
    assert not (run.path / "plan.json").exists()
