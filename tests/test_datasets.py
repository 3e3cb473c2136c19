"""Runs that wish for the same trajectories share them, also while they are being collected."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny_env  # noqa: F401 (registers Tiny-v0)
from filelock import FileLock
from rich.console import Console
from tiny_training import tiny_config

from worldmodel.config import build_config
from worldmodel.datasets import check_data, open_datasets


def collected(config, told):
    with open_datasets(config, Console(file=told)) as data:
        return data.train.path, data.train.num_episodes, data.validation.num_episodes


def test_a_run_waits_for_another_that_collects_the_same_data(tmp_path):
    config = tiny_config(data={"dir": str(tmp_path)})
    path, *episodes = collected(config, io.StringIO())
    (path / "index.bin").write_bytes(b"")  # as if nothing had been completed yet
    other = FileLock(tmp_path / f".{path.name}.lock", thread_local=False)
    other.acquire()
    told = io.StringIO()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(collected, config, told)
        while "waiting for it" not in told.getvalue() and not waiting.done():
            time.sleep(0.01)
        assert not waiting.done()
        other.release()
        assert [*waiting.result()] == [path, *episodes]


def test_runs_that_start_together_on_nothing_share_what_one_of_them_collects(tmp_path):
    config = tiny_config(data={"dir": str(tmp_path)})
    together = threading.Barrier(4)

    def begin(_):
        together.wait()
        return collected(config, io.StringIO())

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(begin, range(4)))
    assert len(set(results)) == 1
    assert results[0][1:] == (24, 8)


def test_data_is_collected_once_and_never_reused_for_another_wish(tmp_path):
    data = {"dir": str(tmp_path)}
    told = io.StringIO()
    first = collected(tiny_config(data=data), told)
    assert "training data: 24/24" in told.getvalue()
    again = io.StringIO()
    assert collected(tiny_config(data=data, seed=1), again) == first
    assert not again.getvalue()
    folders = set(tmp_path.iterdir())
    other = collected(tiny_config(data=data, env={"kwargs": {"gravity": 3.0}}), told)
    assert other[0] not in folders
    assert first[0] in folders


def test_frames_that_no_model_can_draw_are_refused(tmp_path):
    env = {"id": "Tiny-v0", "kwargs": {"channels": 4, "size": 16}}
    data = {"dir": str(tmp_path), "policy": "random"}
    config = build_config({"env": env, "data": data, "image_size": 16})
    with pytest.raises(ValueError, match="frames of 4 channels"):
        check_data(config)
