"""Rollouts in Python: arguments, and what they report. The command is tested elsewhere."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from worldmodel.callbacks import Callback
from worldmodel.data import Passive
from worldmodel.plugins import EnvPlugin
from worldmodel.viz.canvas import CURVE_HEIGHT, curve_strip
from worldmodel.viz.forecast_error import AngleError
from worldmodel.viz.rollout import parse_state, rollout, rollout_frames
from worldmodel.viz.video import ForecastClip


def test_a_rollout_takes_a_policy_object_and_reports_its_progress(run):
    class Progress(Callback):
        def on_task_update(self, task, done, note):
            updates.append((task, done))

    updates = []
    result = rollout(run, policy=Passive(), steps=4, callbacks=[Progress()])
    assert result["policy"] == "Passive"
    assert result["measure"] == "angle error, rad"
    assert result["video"] == str(run.path / "rollout.mp4")
    assert (run.path / "rollout.mp4").is_file()
    assert updates == [("rollout", done) for done in range(1, 6)]
    assert rollout(run, policy="passive", steps=4)["error"] == result["error"]


def test_errors_compare_each_imagined_step_with_the_real_state_of_that_step(run):
    start, stay = [3.0, 2.5, 0.0, 1.0], np.zeros(2, np.float32)
    error = rollout(run, policy="passive", state=start, steps=10)["error"]
    env, measure = run.make_env(), AngleError(run.probe, run.readout(4))
    env.reset(options={"state": start})
    observation, *_, info = env.step(stay)
    z = run.model.encode(observation[None])
    expected = []
    for _ in range(11):
        expected.append(measure(z.numpy(), z.numpy(), info["state"][None])[0])
        *_, info = env.step(stay)
        z = run.model.predict(z, stay[None])
    assert set(error) == {"0", "5", "10"}
    assert_allclose(
        [error["0"], error["5"], error["10"]], np.array(expected)[[0, 5, 10]], rtol=1e-4
    )


def test_a_state_that_cannot_be_set_is_an_error(run):
    run.plugin = EnvPlugin(run.config.env.id, run.config.env.kwargs)
    with pytest.raises(ValueError, match=r"state of DoublePendulumPixels-v0 cannot be set"):
        rollout(run, state=[0.0, 0.0, 0.0, 0.0], steps=4)
    assert not (run.path / "rollout.mp4").exists()


def test_a_run_without_a_decoder_has_no_rollout(run):
    run.model.decoder = None
    with pytest.raises(ValueError, match="no pictures to show"):
        rollout(run, steps=4)


def test_the_frames_show_each_step_with_its_error_below():
    frames = (
        np.zeros((3, 8, 8, 1), np.uint8) + np.array([0, 100, 200], np.uint8)[:, None, None, None]
    )
    played = ForecastClip(frames, frames // 2, frames, np.zeros((3, 2)), np.zeros((3, 2)))

    class Error:
        title, high = "error", 2.0

    images = list(rollout_frames(played, np.array([0.0, 1.0, 2.0]), Error(), 0.1))
    assert [int(image[150, 150].mean()) for image in images] == [0, 100, 200]
    assert [int(image[150, 420].mean()) for image in images] == [0, 50, 100]
    for k, image in enumerate(images):
        curve = curve_strip([0.0, 1.0, 2.0][: k + 1], 2, "error", image.shape[1], high=2.0)
        assert_array_equal(image[-CURVE_HEIGHT:], curve)


def test_states_are_read_from_text():
    assert parse_state("3.1, 0 -1 2e-1") == [3.1, 0.0, -1.0, 0.2]
    with pytest.raises(ValueError, match="expected numbers"):
        parse_state("1 two")
