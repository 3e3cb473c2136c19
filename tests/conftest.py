"""Puts this folder on the import path, so that tests import `tiny_env` and the like by name."""

import os
import shutil

import pytest
from rich.console import Console

from worldmodel.config import build_config
from worldmodel.pipeline import train


@pytest.fixture(scope="session")
def driven_run(tmp_path_factory):
    """A finished run of the pendulum under random torques, hardly trained."""
    folder = tmp_path_factory.mktemp("driven")
    config = build_config(
        {
            "image_size": 16,
            "model": {"latent_dim": 8, "width": 4, "hidden": 32},
            "data": {
                "size": 32,
                "policy": "random",
                "heldout_size": 8,
                "dir": str(folder / "data"),
            },
            "output_dir": str(folder),
        },
        preset="smoke",
    )
    with open(os.devnull, "w") as nowhere:
        return train(config, Console(file=nowhere)).path


@pytest.fixture
def run(driven_run, tmp_path):
    """A copy of that run, to write into."""
    return shutil.copytree(driven_run, tmp_path / "run")
