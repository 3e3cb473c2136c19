"""`benchmarks/beyond.py` starts pendulums with the given energies and reports every band."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from worldmodel.plugins import find_plugin
from worldmodel.run import Run

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "beyond.py"


@pytest.fixture(scope="module")
def beyond():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def energy():
    return find_plugin("DoublePendulumPixels-v0").energy


def test_start_states_have_uniform_energies_between_the_bounds(beyond, energy):
    states = beyond["starts"](energy, 40.0, 80.0, seed=3)
    energies = energy(states)
    assert ((energies >= 40.0) & (energies <= 80.0)).all()
    assert np.ptp(energies) > 30.0
    assert (np.abs(states[:, :2]) <= np.pi).all()
    assert np.ptp(states[:, :2], axis=0).min() > 6.0
    low = energy(beyond["starts"](energy, 0.0, 40.0, seed=3))
    quarters, _ = np.histogram(low, 4, (0.0, 40.0))
    assert (quarters > 40).all(), "the energies are not uniform"


def test_simulated_frames_belong_to_the_simulated_states(beyond, energy, driven_run):
    states = beyond["starts"](energy, 10.0, 20.0, seed=0)[:3]
    frames, true = beyond["simulate"](Run(driven_run), states)
    assert frames.shape[:2] == true.shape[:2] == (3, 42)
    np.testing.assert_allclose(true[:, 0], states)
    np.testing.assert_allclose(energy(true[:, -1]), energy(states), rtol=1e-3)
    assert (frames[:, 0] != frames[:, -1]).any()


def test_the_table_has_a_row_for_each_band(beyond, driven_run, monkeypatch, capsys):
    main = beyond["main"]
    monkeypatch.setitem(main.__globals__, "EPISODES", 8)
    monkeypatch.setattr(sys, "argv", ["beyond.py", str(driven_run)])
    main()
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 2 + len(beyond["BANDS"])
    assert len({line.count("|") for line in lines}) == 1
    assert "command: python beyond.py" in printed.err
