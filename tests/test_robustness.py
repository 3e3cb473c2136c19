"""`benchmarks/robustness`: killed processes and a full disk lose nothing."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _can_mount():
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder]
        if subprocess.run(mount, capture_output=True).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="its processes are forks")
@pytest.mark.parametrize(
    "words",
    [
        ("kills", "--times", "3", "--tasks", "train", "agent", "evaluate"),
        pytest.param(
            ("full-disk", "--first", "5000", "--until", "5000"),
            marks=pytest.mark.skipif(not _can_mount(), reason="mounting needs root"),
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
    *trials, last = done.stdout.splitlines()
    assert (done.returncode, last) == (0, "0 failed"), done.stdout + done.stderr
    if words[0] == "full-disk":
        assert "No space left on device" in trials[0]
