"""`benchmarks/robustness`: killed processes and a full disk lose nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="its processes are forks")
@pytest.mark.parametrize(
    "words",
    [
        ("kills", "--times", "3", "--tasks", "train", "agent", "evaluate"),
        pytest.param(
            ("full-disk", "--first", "5000", "--until", "5000"),
            marks=pytest.mark.skipif(
                not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root"
            ),
        ),
    ],
)
def test_trials_end_without_a_failure(words):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.robustness", *words],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["0 failed"]), (
        done.stdout + done.stderr
    )
