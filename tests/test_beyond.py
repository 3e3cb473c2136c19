"""`benchmarks/beyond.py` starts pendulums with the energies that it says, and tells all bands."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from worldmodel.evaluation import pendulum_task
from worldmodel.run import Run

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "beyond.py"


@pytest.fixture(scope="module")
def beyond():
    return runpy.run_path(str(SCRIPT))


def test_starts_have_the_energies_asked_for(beyond):
    task = pendulum_task("DoublePendulumPixels-v0")
    states = beyond["starts"](task, 40.0, 80.0, seed=3)
    energies = task.energy(states)
    assert ((energies >= 40.0) & (energies <= 80.0)).all()
    assert np.ptp(energies) > 30.0
    assert (np.abs(states[:, :2]) <= np.pi).all()
    assert np.ptp(states[:, :2], axis=0).min() > 6.0
    low = task.energy(beyond["starts"](task, 0.0, 40.0, seed=3))
    quarters, _ = np.histogram(low, 4, (0.0, 40.0))
    assert (quarters > 40).all(), "the energies are not uniform"


def test_frames_follow_the_states(beyond, driven_run):
    task = pendulum_task("DoublePendulumPixels-v0")
    states = beyond["starts"](task, 10.0, 20.0, seed=0)[:3]
    frames, true = beyond["filmed"](Run(driven_run).config(), states, 3)
    assert frames.shape[:2] == true.shape[:2] == (3, 42)
    np.testing.assert_allclose(true[:, 0], states)
    np.testing.assert_allclose(task.energy(true[:, -1]), task.energy(states), rtol=1e-3)
    assert (frames[:, 0] != frames[:, -1]).any()


def test_the_table_has_a_row_for_each_band(beyond, driven_run, monkeypatch, capsys):
    main = beyond["main"]
    monkeypatch.setitem(main.__globals__, "EPISODES", 8)
    monkeypatch.setattr(sys, "argv", ["beyond.py", str(driven_run)])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(beyond["BANDS"])
    assert len({line.count("|") for line in lines}) == 1
