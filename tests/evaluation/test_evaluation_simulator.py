"""The true system behind an environment's id."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from worldmodel.evaluation.simulator import pendulum_task


@pytest.mark.parametrize("env_id", ["DoublePendulum-v0", "worldmodel:DoublePendulumPixels-v0"])
def test_the_pendulum_tells_its_energy_under_the_settings_given(env_id):
    task = pendulum_task(env_id, {"masses": (2.0, 1.0), "lengths": (1.0, 0.5), "gravity": 10.0})
    up = np.array([[0.0, 0.0, 0.0, 0.0], [np.pi, np.pi, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    assert_allclose(task.energy(up), [0.0, 2 * 2.0 * 10 + 2 * 1.5 * 10, 1.5], atol=1e-9)


def test_other_environments_have_no_such_physics():
    assert pendulum_task("CartPole-v1") is None
