"""Runs of equal data settings share datasets, also while one of them collects."""

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import tiny_env
from filelock import FileLock
from tiny_training import tiny_config

from worldmodel.callbacks import Callback
from worldmodel.config import build_config
from worldmodel.data import datasets
from worldmodel.data.collect_command import collect_to
from worldmodel.data.datasets import check_data, open_datasets, wanted_size
from worldmodel.registry import reference


class RecordingCallback(Callback):
    """Records messages and progress."""

    def __init__(self):
        self.messages, self.progress = [], []

    def on_message(self, text, *, warning=False):
        self.messages.append(text)

    def on_task_update(self, task, done, note):
        self.progress.append((task, done))


def collected(config, *callbacks):
    with open_datasets(config, callbacks) as data:
        return data.train.path, data.train.num_episodes, data.validation.num_episodes


def test_a_run_waits_for_another_that_collects_the_same_data(tmp_path):
    config = tiny_config(data={"dir": str(tmp_path)})
    path, *episodes = collected(config)
    for file in path.glob("*.bin"):  # as if nothing had been completed yet
        file.write_bytes(b"")
    other = FileLock(tmp_path / f".{path.name}.lock", thread_local=False)
    other.acquire()
    recorder = RecordingCallback()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(collected, config, recorder)
        while (
            not any("waiting for it" in text for text in recorder.messages) and not waiting.done()
        ):
            time.sleep(0.01)
        assert not waiting.done()
        other.release()
        assert [*waiting.result()] == [path, *episodes]


@pytest.mark.parametrize("min_steps", [0, 200])
def test_runs_that_start_together_on_nothing_share_what_one_of_them_collects(tmp_path, min_steps):
    config = short_episodes(tmp_path, min_steps=min_steps)
    together = threading.Barrier(4)

    def begin(_):
        together.wait()
        return collected(config)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(begin, range(4)))
    assert len(set(results)) == 1
    assert results[0] == collected(config)
    assert results[0][2] == 8
    assert (results[0][1] > 24) == bool(min_steps)


def test_a_run_that_waited_takes_the_further_trajectories_that_another_collected(tmp_path):
    """While it waits it wants 24 trajectories, and then finds as many as `min_steps` asks for."""
    config, recorder = short_episodes(tmp_path), RecordingCallback()
    path, *episodes = collected(config)
    assert episodes[0] > 24
    complete = (path / "index.bin").read_bytes()
    (path / "index.bin").write_bytes(b"")  # as if nothing had been completed yet
    other = FileLock(tmp_path / f".{path.name}.lock", thread_local=False)
    other.acquire()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(collected, config, recorder)
        while not recorder.messages and not waiting.done():
            time.sleep(0.01)
        assert "waiting for it" in recorder.messages[0]
        (path / "index.bin").write_bytes(complete)
        other.release()
        assert [*waiting.result()] == [path, *episodes]
    assert recorder.progress == []


def test_a_run_takes_what_another_appends_while_it_opens_the_data(tmp_path, monkeypatch):
    """The other one has 0 trajectories at first, then 24, and then as many as `min_steps` needs."""
    config = short_episodes(tmp_path)
    complete = collected(config)
    real, seen = datasets._lengths, [0, 24]

    def lengths(path):
        found = real(path)
        return found[: seen.pop(0)] if seen else found

    monkeypatch.setattr(datasets, "_lengths", lengths)
    assert collected(config) == complete
    assert (seen, complete[1] > 24) == ([], True)


def test_data_is_collected_once_and_never_reused_for_other_settings(tmp_path):
    data = {"dir": str(tmp_path)}
    recorder, again = RecordingCallback(), RecordingCallback()
    first = collected(tiny_config(data=data), recorder)
    assert recorder.progress[-1] == ("validation data", 8)
    assert [done for task, done in recorder.progress if task == "training data"] == [*range(1, 25)]
    assert recorder.messages == [
        f"Collecting {title} in {tmp_path}" for title in ("training data", "validation data")
    ]
    assert collected(tiny_config(data=data, seed=1), again) == first
    assert not again.messages + again.progress
    folders = set(tmp_path.iterdir())
    other = collected(tiny_config(data=data, env={"kwargs": {"gravity": 3.0}}))
    assert other[0] not in folders
    assert first[0] in folders


def test_frames_of_four_channels_are_refused(tmp_path):
    env = {"id": "Tiny-v0", "kwargs": {"channels": 4, "size": 16}}
    data = {"dir": str(tmp_path), "policy": "random"}
    config = build_config({"env": env, "data": data, "image_size": 16})
    with pytest.raises(ValueError, match="frames of 4 channels"):
        check_data(config)


def test_actions_that_no_model_takes_are_refused_before_collecting(tmp_path):
    class Wide(tiny_env.TinyEnv):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.action_space = gym.spaces.Box(-float("inf"), float("inf"), (2,))

    data = {"dir": str(tmp_path), "policy": "random"}
    config = build_config({"env": {"id": reference(Wide)}, "data": data, "image_size": 16})
    with pytest.raises(ValueError, match="is not supported: expected Discrete or a bounded one-"):
        check_data(config)


def test_vectors_instead_of_images_are_refused(tmp_path):
    class Blind(tiny_env.TinyEnv):
        metadata = {"render_modes": []}  # noqa: RUF012

    env = {"id": reference(Blind), "kwargs": {"observation": "vector"}}
    data = {"dir": str(tmp_path), "policy": "random"}
    config = build_config({"env": env, "data": data})
    with pytest.raises(ValueError, match=r"has no images.* --observation vector"):
        check_data(config)
    check_data(config.model_copy(update={"observation": "vector"}))


def test_data_needs_free_space(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**27))
    with pytest.raises(OSError, match=r"no space for 24 episodes .* lower --size, or choose"):
        check_data(tiny_config(data={"dir": str(tmp_path)}))
    config = tiny_config(data={"dir": str(tmp_path), "compression": "lz4"})
    check_data(config)  # how small the frames become is not known


def test_a_policy_and_an_environment_of_the_user_are_cached_by_name(tmp_path):
    data = {"dir": str(tmp_path), "policy": "test_policies:Constant"}
    path, *_ = collected(tiny_config(env={"id": "tiny_env:TinyEnv"}, data=data))
    assert path.name.startswith("tiny_env-TinyEnv_Constant_24x12_")


def test_cached_data_of_earlier_versions_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("worldmodel.data.recipe._version", lambda package: "1.0")
    env = {"id": "Tiny-v0", "kwargs": {"length": [3, 9], "frame_stack": 2}}
    data = {"dir": str(tmp_path), "policy": "random"}
    path, *_ = collected(tiny_config(env=env, data=data))
    assert path.name == "Tiny-v0_random_24x12_5874854d25"


def test_collect_to_appends_with_the_next_seeds(tmp_path):
    settings = {
        "env_id": "Tiny-v0",
        "env_kwargs": {},
        "steps": 4,
        "policy": "random",
        "image_size": 16,
        "state_key": "state",
    }
    recorder = RecordingCallback()
    collect_to(tmp_path / "data", size=2, first_seed=7, callbacks=[recorder], **settings)
    summary = collect_to(
        tmp_path / "data", size=3, first_seed=None, callbacks=[recorder], **settings
    )
    assert recorder.progress == [("collect", n) for n in (1, 2, 3, 4, 5)]
    assert (summary["episodes"], summary["frames"], summary["seeds"]) == (5, 25, [7, 11])
    with pytest.raises(OSError, match="is a file"):
        collect_to(tmp_path / "data" / "header.json", size=1, first_seed=0, **settings)


@pytest.mark.parametrize(
    ("steps", "size", "min_steps", "wanted"),
    [
        ([], 4, 100, 4),
        ([10] * 3, 4, 100, 4),
        ([10] * 4, 4, 40, 4),
        ([10] * 4, 4, 100, 10),
        ([10] * 10, 4, 100, 10),
        ([10, 30, 10, 10, 1], 4, 100, 7),
        ([10] * 4 + [1] * 6, 4, 100, 22),
        ([0] * 4, 4, 3, 16),
        ([50] * 9, 4, 0, 4),
    ],
)
def test_more_trajectories_are_wanted_where_they_end_early(steps, size, min_steps, wanted):
    assert wanted_size(np.array(steps, int) + 1, size, min_steps) == wanted


def test_the_wanted_size_does_not_depend_on_how_many_there_are_already():
    lengths = np.random.default_rng(0).integers(1, 30, size=400)
    final = wanted_size(lengths, 8, 1500)
    assert (lengths[:final] - 1).sum() >= 1500
    for stored in range(final):
        assert wanted_size(lengths[:stored], 8, 1500) <= final
    assert wanted_size(lengths[:final], 8, 1500) == final


def short_episodes(tmp_path, **data):
    """A configuration whose episodes end after 3 to 9 of 20 steps."""
    values = {"dir": str(tmp_path), "steps": 20, "min_steps": 200, **data}
    kwargs = {"length": [3, 9], "size": 16}
    return tiny_config(env={"id": reference(tiny_env.TinyEnv), "kwargs": kwargs}, data=values)


def test_training_data_have_the_least_number_of_steps(tmp_path):
    recorder = RecordingCallback()
    with open_datasets(short_episodes(tmp_path), [recorder]) as data:
        train = data.train
        assert train.num_transitions >= 200
        assert train.num_episodes > 24
        assert train.seeds.tolist() == list(range(train.num_episodes))
        path, episodes = train.path, train.num_episodes
    again = RecordingCallback()
    assert collected(short_episodes(tmp_path), again)[:2] == (path, episodes)
    assert again.progress == []
    exact = collected(short_episodes(tmp_path, min_steps=0))
    assert exact[0] != path
    assert exact[1] == 24


def test_collection_for_the_least_number_of_steps_resumes_to_the_same_bytes(tmp_path):
    path, episodes, _ = collected(short_episodes(tmp_path / "whole"))

    class Stop(Callback):
        """Interrupts the second pass."""

        def on_task_update(self, task, done, note):
            if done > 26:
                raise KeyboardInterrupt

    config = short_episodes(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        collected(config, Stop())
    stopped, resumed, _ = collected(config)
    assert resumed == episodes
    for name in ("frames.bin", "actions.bin", "rewards.bin"):
        assert (stopped / name).read_bytes() == (path / name).read_bytes()


def test_a_given_size_is_exact_and_the_default_one_grows():
    assert build_config({"env": {"id": "CartPole-v1"}}).data.min_steps == 25_000
    assert build_config({"env": {"id": "CartPole-v1"}, "data": {"size": 200}}).data.min_steps == 0
    assert build_config({}).data.min_steps == 0
    assert build_config({"env": {"id": "CartPole-v1"}}, preset="smoke").data.min_steps == 0
    given = build_config({"env": {"id": "CartPole-v1"}, "data": {"size": 9, "min_steps": 7}})
    assert (given.data.size, given.data.min_steps) == (9, 7)
