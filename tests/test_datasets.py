"""Runs that wish for the same trajectories share them, also while they are being collected."""

import io
import threading
import time

from rich.console import Console
from tiny_training import tiny_config

from worldmodel.data.episode_log import acquire_lock
from worldmodel.datasets import open_datasets


def _hold(path, held):
    lock = acquire_lock(path)
    held.set()
    time.sleep(1.0)
    lock.release()


def test_a_run_waits_for_another_that_collects_the_same_data(tmp_path):
    config = tiny_config(data={"dir": str(tmp_path)})
    with open_datasets(config, Console(file=io.StringIO())) as data:
        path, episodes = data.train.path, data.train.num_episodes
    (path / "index.bin").write_bytes(b"")  # as if nothing had been completed yet
    held = threading.Event()
    other = threading.Thread(target=_hold, args=(path, held))
    other.start()
    assert held.wait(10)
    told = io.StringIO()
    with open_datasets(config, Console(file=told)) as data:
        assert data.train.num_episodes == episodes
    assert not other.is_alive()
    assert "waiting for it" in told.getvalue()
