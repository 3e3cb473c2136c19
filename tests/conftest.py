"""Puts this folder on the import path, so that tests import `tiny_env` and the like by name.

Tests use one thread each: `pytest -n 2` runs them on two cores.
"""

import os
import shutil
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
_CONFIG = tempfile.TemporaryDirectory(prefix="worldmodel-tests-")
os.environ["XDG_CONFIG_HOME"] = _CONFIG.name  # where the key is that signs runs

import pytest
import setuptools  # noqa: F401 (torch.compile fails if distutils is imported before it)
from reported import reported

import worldmodel


@pytest.fixture(autouse=True)
def _restore_flags(monkeypatch):
    """``--trust`` and ``--debug`` hold for the rest of their process."""
    for name in ("WORLDMODEL_TRUST", "WORLDMODEL_DEBUG"):
        monkeypatch.setenv(name, "")


@pytest.fixture(scope="session")
def tiny_report(tmp_path_factory):
    """The evaluation of the tiny model, done once."""
    return reported(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def driven_run(tmp_path_factory):
    """A finished run of the pendulum under random torques, hardly trained."""
    folder = tmp_path_factory.mktemp("driven")
    run = worldmodel.train(
        preset="smoke",
        size=32,
        image_size=16,
        policy="random",
        data_dir=str(folder / "data"),
        output_dir=str(folder),
        settings={
            "model": {"latent_dim": 8, "width": 4, "hidden": 32},
            "data": {"heldout_size": 8},
            "evaluation": {
                "resamples": 100,
                "steps": 21,
                "probe": {"updates": 50, "observations": 1000, "baseline_observations": 500},
            },
        },
        progress=False,
    )
    return run.path


@pytest.fixture
def run_path(driven_run, tmp_path):
    """A copy of that run's directory, to write into."""
    return shutil.copytree(driven_run, tmp_path / "run")


@pytest.fixture
def run(run_path):
    """The copy, as a `Run`."""
    return worldmodel.Run(run_path, device="cpu")
