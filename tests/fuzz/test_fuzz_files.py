"""Damaged files of any kind: an error of this package, or exactly what was stored; never less."""

import json
import logging
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
import yaml
from episodes import create, episode, fill, steps_of
from hypothesis import given
from hypothesis import strategies as st
from mutations import BYTES, FRACTION, VALUES, change_bytes, change_value

from worldmodel.agent_files import load_agent_file
from worldmodel.checks import check_path, describe
from worldmodel.data import ReplayBuffer
from worldmodel.data.repair import check_buffer, repair_buffer
from worldmodel.errors import ConfigError, ReplayBufferError, RunError
from worldmodel.run import Run

SEEDS = 6
BUFFER_FILES = (
    "header.json",
    "index.bin",
    "frames.bin",
    "offsets.bin",
    "actions.bin",
    "rewards.bin",
    "states.bin",
)
TENSORS = (
    *("encoder.pth", "predictor.pth", "decoder.pth", "reward_head.pth", "termination_head.pth"),
    *("imagination.pt", "probe.pt"),
)


@contextmanager
def copied(path):
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copytree(path, Path(folder) / "copy"))


@pytest.fixture(scope="session")
def stored(tmp_path_factory):
    """A buffer of some episodes, as a process left it that was killed: not synced."""
    folder, paths = tmp_path_factory.mktemp("stored"), {}
    for form in ("none", "lz4"):
        paths |= {f"closed {form}": folder / form, f"killed {form}": folder / f"{form}_killed"}
        with fill(create(folder / form, compression=form), range(SEEDS)):
            shutil.copytree(folder / form, folder / f"{form}_killed")
    return paths


@pytest.fixture(scope="session")
def agent(tmp_path_factory):
    path = tmp_path_factory.mktemp("agent") / "agent.zip"
    model = sb3.A2C("MlpPolicy", "CartPole-v1", device="cpu", seed=0)
    model.save(path)
    return path, model


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL)


def frames_of(buffer):
    """Frames of the episodes by seed; without those that are compressed and do not decode."""
    found = {}
    for i, (seed, n) in enumerate(zip(buffer.seeds, buffer.lengths)):
        with suppress(ReplayBufferError):
            found[int(seed)] = buffer.windows([i], [0], int(n)).frames[0].tobytes()
    return found


def same_tensors(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return first.keys() == second.keys() and all(
        same_tensors(v, second[k]) for k, v in first.items()
    )


FORMS = st.sampled_from(["none", "lz4"])
EXPECTED = {seed: episode(seed, steps_of(seed))["frames"].tobytes() for seed in range(SEEDS)}


@given(
    which=st.sampled_from(["closed", "killed"]),
    form=FORMS,
    changes=st.lists(st.tuples(st.sampled_from(BUFFER_FILES), BYTES), min_size=1, max_size=3),
)
def test_no_damage_to_a_buffer_loses_an_episode_that_can_still_be_read(
    stored, which, form, changes
):
    with copied(stored[f"{which} {form}"]) as path:
        for name, mutation in changes:
            with suppress(FileNotFoundError):
                change_bytes(path / name, mutation)
        before = {file.name: file.read_bytes() for file in path.glob("*.[bj]*")}
        problems = check_buffer(path)
        assert before == {file.name: file.read_bytes() for file in path.glob("*.[bj]*")}
        try:
            with ReplayBuffer.open(path) as buffer:
                readable = frames_of(buffer)
        except ReplayBufferError:
            assert problems
            readable = {}
        try:
            with ReplayBuffer.open(path, append=True) as buffer:
                assert frames_of(buffer) == readable
                if not problems:
                    assert len(readable) >= SEEDS - 1  # at most the one that was being written
                buffer.add_episode(**episode(90, 4))
        except ReplayBufferError:
            assert before == {f.name: f.read_bytes() for f in path.glob("*.[bj]*")}
        except ValueError:  # a damaged header describes other episodes
            if "header.json" not in {name for name, _ in changes}:
                raise
        if not problems and "frames.bin" not in {name for name, _ in changes}:
            assert all(readable.get(seed, EXPECTED[seed]) == EXPECTED[seed] for seed in EXPECTED)


@given(
    form=FORMS,
    changes=st.lists(st.tuples(st.sampled_from(BUFFER_FILES[1:]), BYTES), max_size=3),
)
def test_repair_brings_back_whole_episodes_only(stored, form, changes):
    with copied(stored[f"closed {form}"]) as path:
        for name, mutation in changes:
            with suppress(FileNotFoundError):
                change_bytes(path / name, mutation)
        before = {file.name: file.read_bytes() for file in path.glob("*.bin")}
        try:
            repair_buffer(path)
        except ReplayBufferError:
            assert before == {file.name: file.read_bytes() for file in path.glob("*.bin")}
            repair_buffer(path, discard=True)
        with ReplayBuffer.open(path, append=True) as buffer:
            buffer.add_episode(**episode(90, 4))
        changed = {name for name, _ in changes}
        if "frames.bin" not in changed:
            with ReplayBuffer.open(path) as buffer:
                found = frames_of(buffer)
            assert all(found.get(seed, EXPECTED[seed]) == EXPECTED[seed] for seed in EXPECTED)


@given(form=FORMS, where=FRACTION, value=VALUES, delete=st.booleans())
def test_any_value_in_a_header_is_read_or_refused(stored, form, where, value, delete):
    with copied(stored[f"closed {form}"]) as path:
        content = json.loads((path / "header.json").read_text())
        change_value(content, where, value, delete=delete)
        (path / "header.json").write_text(json.dumps(content))
        with suppress(ReplayBufferError), ReplayBuffer.open(path) as buffer:
            buffer.summary()
            frames_of(buffer)
        check_buffer(path)


@given(name=st.sampled_from(TENSORS), mutation=BYTES)
def test_damaged_tensors_are_found(driven_run, name, mutation):
    original = torch.load(driven_run / "models" / name, weights_only=True)
    with copied(driven_run) as path:
        file = path / "models" / name
        change_bytes(file, mutation)
        problems = check_path(path)
        if not problems and file.exists():  # only the unused fields of the archive differ
            assert same_tensors(torch.load(file, weights_only=True), original)
        try:
            run = Run(path, "cpu")
            _ = run.model, run.probe
        except RunError:
            assert problems


@given(
    name=st.sampled_from(["config.yaml", "models/spec.json", "metrics.json"]),
    where=FRACTION,
    value=VALUES,
    delete=st.booleans(),
)
def test_any_value_in_the_files_of_a_run_is_read_or_refused(driven_run, name, where, value, delete):
    with copied(driven_run) as path:
        file = path / name
        content = yaml.safe_load(file.read_text())
        change_value(content, where, value, delete=delete)
        text = yaml.safe_dump(content) if name.endswith("yaml") else json.dumps(content)
        file.write_text(text, errors="replace")
        check_path(path)
        for use in (describe, lambda path: Run(path, "cpu").model, lambda path: Run(path).metrics):
            with suppress(RunError, ConfigError):
                use(path)


@given(name=st.sampled_from(["config.yaml", "models/spec.json", "metrics.json"]), mutation=BYTES)
def test_damaged_text_of_a_run_is_read_or_refused(driven_run, name, mutation):
    with copied(driven_run) as path:
        change_bytes(path / name, mutation)
        for use in (check_path, describe, lambda path: Run(path, "cpu").model):
            with suppress(RunError, ConfigError):
                use(path)


@given(mutation=BYTES)
def test_a_damaged_agent_acts_as_before_or_is_refused(agent, mutation):
    path, model = agent
    env = gym.make("CartPole-v1")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(path, folder))
        change_bytes(copy, mutation)
        try:
            loaded = load_agent_file(copy, "A2C", env.action_space, env.observation_space)
        except (ValueError, OSError):
            return
        observation = np.array([0.1, -0.2, 0.05, 0.3], np.float32)
        expected = model.predict(observation, deterministic=True)[0]
        assert loaded.predict(observation, deterministic=True)[0] == expected
