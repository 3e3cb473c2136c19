"""Prefetching and the device cache: the batches are those of plain reading."""

import threading
from contextlib import nullcontext
from dataclasses import astuple
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from tiny_training import SIDE, new_model, tiny_buffer, tiny_config

import worldmodel
from worldmodel import device_buffer, prefetch
from worldmodel.accelerator import to_device
from worldmodel.batches import Batch, WindowSampler
from worldmodel.data import ReplayBuffer
from worldmodel.device_buffer import DeviceReplayBuffer, cache_on_device
from worldmodel.models import ModelSpec, WorldModel
from worldmodel.prefetch import Prefetcher, batch_reader

GPU = torch.device("cuda", 0)


def same(left, right):
    pairs = zip(astuple(left), astuple(right), strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def buffer(tmp_path):
    with tiny_buffer(tmp_path / "buffer", tiny_config()) as buffer:
        yield buffer


def discrete_vectors(path):
    """Episodes of several lengths with discrete actions and vectors as frames."""
    rng = np.random.default_rng(0)
    space = gym.spaces.Discrete(3, start=2)
    with ReplayBuffer.create(
        path, frame_shape=(4,), frame_dtype="float32", action_space=space, metadata={}
    ) as buffer:
        for length in (3, 9, 4, 7, 12):
            frames = rng.normal(size=(length + 1, 4)).astype(np.float32)
            actions, rewards = rng.integers(2, 5, length), rng.normal(size=length)
            buffer.add_episode(frames, actions, rewards, terminated=length % 2 == 0)
    return ReplayBuffer.open(path), space


def test_batches_from_the_device_are_those_from_the_disk(buffer):
    model = new_model(tiny_config())
    for part in (slice(None), slice(8, 16)):
        plain = WindowSampler(buffer, 5, 16, seed=(3,))
        cached = WindowSampler(DeviceReplayBuffer(buffer, model), 5, 16, seed=(3,))
        for update in range(6):
            assert same(cached.batch(update, model, part), plain.batch(update, model, part))


def test_episodes_of_all_lengths_and_parts_of_them_are_cached(tmp_path):
    buffer, space = discrete_vectors(tmp_path / "buffer")
    config = tiny_config(observation="vector", frame_stack=1)
    model = WorldModel(ModelSpec.of(config, (4,), space))
    view = buffer.select([4, 1, 2, 4], [0, 2, 0, 5], [8, 8, 5, 8])
    for source in (buffer, view):
        plain = WindowSampler(source, 3, 32, seed=(0,))
        cached = WindowSampler(DeviceReplayBuffer(source, model), 3, 32, seed=(0,))
        batches = [plain.batch(update, model) for update in range(5)]
        assert all(same(cached.batch(i, model), batch) for i, batch in enumerate(batches))
        assert any(batch.terminated.any() for batch in batches)
    buffer.close()


@pytest.mark.parametrize("training", [{"device_cache": True}, {"prefetch": True}])
def test_training_has_the_same_weights(driven_run, tmp_path, training):
    config = worldmodel.Run(driven_run).config.model_dump(mode="json")
    config |= {"output_dir": str(tmp_path), "training": training}
    run = worldmodel.train(config=worldmodel.config.validate(config), progress=False)
    for path in (driven_run / "models").glob("*.pth"):
        expected = torch.load(path, weights_only=True)
        found = torch.load(run.path / "models" / path.name, weights_only=True)
        assert all(torch.equal(value, found[key]) for key, value in expected.items()), path.name


def fake_gpu(monkeypatch, free):
    """A model on a GPU with `free` bytes, which copies nothing."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
    monkeypatch.setattr(device_buffer, "DeviceReplayBuffer", lambda buffer, model: "cached")
    return SimpleNamespace(device=GPU, spec=new_model(tiny_config()).spec)


def test_data_is_cached_on_gpus_where_it_fits_into_half_of_the_memory(monkeypatch, buffer):
    size = buffer.num_frames * SIDE * SIDE + buffer.num_transitions * 4 * (2 + 1 + 1)
    model = fake_gpu(monkeypatch, 2 * size)
    assert cache_on_device(buffer, model, "auto") == "cached"
    model = fake_gpu(monkeypatch, 2 * size - 1)
    assert cache_on_device(buffer, model, "auto") is buffer
    assert cache_on_device(buffer, model, True) == "cached"
    assert cache_on_device(buffer, model, False) is buffer
    model = fake_gpu(monkeypatch, size - 1)
    with pytest.raises(ValueError, match=r"device_cache is true.*cuda:0 has 0\.0 GB.*=auto"):
        cache_on_device(buffer, model, True)


def test_a_cpu_caches_only_if_asked(buffer):
    model = new_model(tiny_config())
    assert cache_on_device(buffer, model, "auto") is buffer
    assert isinstance(cache_on_device(buffer, model, True), DeviceReplayBuffer)


def test_prefetched_batches_are_the_same_in_the_same_order_also_after_resuming(buffer):
    model = new_model(tiny_config())
    expected = WindowSampler(buffer, 5, 10, seed=(3,))
    sampler = WindowSampler(buffer, 5, 10, seed=(3,))
    for first in (0, 5):
        read = batch_reader(sampler, model, 9, prefetch=True)
        assert isinstance(read, Prefetcher)
        for update in range(first, 9):
            assert same(read(update), expected.batch(update, model))


def test_cached_batches_are_not_prefetched(buffer):
    model = new_model(tiny_config())
    sampler = WindowSampler(DeviceReplayBuffer(buffer, model), 5, 10, seed=(3,))
    assert not isinstance(batch_reader(sampler, model, 9, prefetch=True), Prefetcher)


def test_one_batch_is_read_ahead_in_another_thread_and_none_beyond_the_last():
    read, threads = [], set()
    second = threading.Event()

    def batch(update):
        read.append(update)
        threads.add(threading.current_thread())
        if update == 1:
            second.set()
        return update

    prefetcher = Prefetcher(batch, 3, torch.device("cpu"))
    assert prefetcher(0) == 0
    assert second.wait(60)  # nobody has asked for it
    assert [prefetcher(1), prefetcher(2)] == [1, 2]
    prefetcher._thread.shutdown()  # after everything that was submitted
    assert read == [0, 1, 2]
    assert threading.current_thread() not in threads


def test_a_batch_that_was_not_read_ahead_is_read_when_it_is_needed():
    prefetcher = Prefetcher(lambda update: update, 9, torch.device("cpu"))
    assert [prefetcher(update) for update in (0, 5, 2, 3)] == [0, 5, 2, 3]


def test_an_error_in_the_thread_is_raised_by_the_update_that_needs_the_batch():
    def batch(update):
        if update == 1:
            raise OSError("the disk is gone")
        return update

    prefetcher = Prefetcher(batch, 3, torch.device("cpu"))
    assert prefetcher(0) == 0
    with pytest.raises(OSError, match="the disk is gone"):
        prefetcher(1)


def test_windows_for_a_gpu_are_read_into_pinned_memory(monkeypatch, buffer):
    pinned, make = [], torch.empty_like

    def empty_like(like, *, pin_memory):
        pinned.append((like.shape, pin_memory))
        return make(like)

    sampler = WindowSampler(buffer, 5, 10, seed=(3,))
    expected = sampler.windows(0)
    monkeypatch.setattr(torch, "empty_like", empty_like)
    for found, array in zip(sampler.windows(0, pinned=True), expected, strict=True):
        assert np.array_equal(found, array)
    assert pinned == [(array.shape, True) for array in expected]


def test_copies_to_a_gpu_come_from_pinned_memory_and_are_not_waited_for():
    log = []

    class FakeTensor:
        def __init__(self, pinned):
            self.is_pinned = lambda: pinned

        def pin_memory(self):
            log.append("pin")
            return FakeTensor(True)

        def to(self, device, *, non_blocking=False):
            log.append((self.is_pinned(), device, non_blocking))

    for pinned in (False, True):
        to_device(FakeTensor(pinned), GPU)
    to_device(FakeTensor(False), torch.device("cpu"))
    copy = (True, GPU, True)
    assert log == ["pin", copy, copy, (False, torch.device("cpu"), False)]


def test_on_cuda_the_update_waits_for_the_copies_and_keeps_their_memory(monkeypatch):
    log = []

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            log.append(f"{self.name} waits for {other.name}")

        def record_event(self):
            log.append(f"event of {self.name}")
            return f"event of {self.name}"

        def wait_event(self, event):
            log.append(f"{self.name} waits for {event}")

    side, main = Stream("side"), Stream("main")

    def use(stream):
        log.append(f"use {stream.name}")
        return nullcontext()

    fake = SimpleNamespace(
        Stream=lambda device: side, current_stream=lambda device: main, stream=use
    )
    monkeypatch.setattr(prefetch.torch, "cuda", fake)

    def batch(update):
        log.append(f"read {update}")
        part = SimpleNamespace(record_stream=lambda stream: log.append(f"kept for {stream.name}"))
        return Batch(part, part, part, part)

    Prefetcher(batch, 1, GPU)(0)
    assert log == [
        "side waits for main",
        "use side",
        "read 0",
        "event of side",
        "main waits for event of side",
        *["kept for main"] * 4,
    ]
