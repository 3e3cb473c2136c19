"""Existing data is reused if its settings are equal, completed if it is unfinished, or refused."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from test_collect import TINY, stored_bytes

from worldmodel.data import Mixed, Random, Recipe, ReplayBuffer, load_or_collect, resolve
from worldmodel.data.recipe import MADE_WITH, differences
from worldmodel.errors import ReplayBufferError

SETTINGS = {"episodes": 6, "seeds": range(40, 46), "steps": 9, "policy": "random", "image_size": 8}
KWARGS = {"length": (2, 8)}


def load(path, **change):
    return load_or_collect(TINY, path, **({**SETTINGS, "env_kwargs": KWARGS} | change))


def test_complete_data_is_opened_and_not_collected_again(tmp_path, monkeypatch):
    first = load(tmp_path)
    monkeypatch.delattr(Recipe, "make")
    before = stored_bytes(tmp_path)
    again = load(tmp_path)
    assert again.seeds.tolist() == first.seeds.tolist() == list(range(40, 46))
    assert stored_bytes(tmp_path) == before


def test_complete_data_is_opened_beside_a_writer(tmp_path):
    load(tmp_path)
    with ReplayBuffer.open(tmp_path, append=True):
        assert len(load(tmp_path)) == 6


def data_bytes(path):
    content = stored_bytes(path)
    del content["index.bin"]  # an interruption leaves one more sync marker
    return content


@pytest.mark.parametrize("stored", [1, 4])
def test_an_interrupted_collection_is_completed_to_the_same_bytes(tmp_path, stored):
    def interrupt(episodes):
        if episodes == stored:
            raise KeyboardInterrupt

    load(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path / "cut", progress=interrupt, num_envs=3)
    assert len(ReplayBuffer.open(tmp_path / "cut")) == stored
    counts = []
    load(tmp_path / "cut", progress=counts.append)
    assert counts == list(range(stored + 1, 7))
    assert data_bytes(tmp_path / "cut") == data_bytes(tmp_path / "whole")


KILLED = """
    import os, signal, sys
    from worldmodel.data import load_or_collect

    def progress(episodes):
        if episodes == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    load_or_collect(
        "tiny_env:Tiny-v0", sys.argv[1], episodes=6, seeds=range(40, 46), steps=9,
        policy="random", image_size=8, env_kwargs={"length": (2, 8)}, progress=progress,
    )
"""


def test_a_killed_collection_is_completed_to_the_same_bytes(tmp_path):
    tests = Path(__file__).parent.parent
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "cut")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(tests)})
    assert done.returncode == -signal.SIGKILL
    assert len(ReplayBuffer.open(tmp_path / "cut")) == 4
    load(tmp_path / "cut")
    load(tmp_path / "whole")
    assert data_bytes(tmp_path / "cut") == data_bytes(tmp_path / "whole")


def test_episodes_that_are_missing_are_added(tmp_path):
    load(tmp_path, episodes=2)
    assert load(tmp_path).seeds.tolist() == list(range(40, 46))


def test_data_with_other_seeds_is_refused(tmp_path):
    load(tmp_path)
    with pytest.raises(
        ReplayBufferError, match=r"holds 4 episodes with other seeds .* first with seed 42"
    ):
        load(tmp_path, episodes=2)
    assert len(ReplayBuffer.open(tmp_path)) == 6


OTHER_SETTINGS = [
    ({"image_size": 16}, r"frame_shape is \[8, 8, 3\], wanted \[16, 16, 3\]"),
    ({"steps": 8}, "steps is 9, wanted 8"),
    ({"policy": "mixed"}, "policy.name is 'random', wanted 'mixed'"),
    ({"policy": Random((1, 2))}, r"policy.hold is \[1, 8\], wanted \[1, 2\]"),
    ({"env_kwargs": {"length": (2, 7)}}, r"env_kwargs.length is \[2, 8\], wanted \[2, 7\]"),
    ({"env_kwargs": {}}, r"env_kwargs.length is \[2, 8\], wanted None"),
    ({"observation": "render"}, "observation is 'image', wanted 'render'"),
]


@pytest.mark.parametrize(("change", "message"), OTHER_SETTINGS)
def test_data_of_other_settings_is_refused_and_left_alone(tmp_path, change, message):
    load(tmp_path)
    before = stored_bytes(tmp_path)
    with pytest.raises(ReplayBufferError, match=f"collected in another way .*{message}"):
        load(tmp_path, **change)
    assert stored_bytes(tmp_path) == before


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ReplayBufferError, match=r"holds no header\.json"):
        load(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_interrupted_creation_is_repeated(tmp_path):
    (tmp_path / "write.lock").touch()
    assert len(load(tmp_path)) == 6


def identity(**change):
    settings = {"policy": "random", "steps": 9, "image_size": 8, "observation": "auto"}
    env_id = change.pop("env_id", TINY)
    env_kwargs = change.pop("env_kwargs", KWARGS)
    return resolve(env_id, env_kwargs, **(settings | change))


def test_equal_settings_have_equal_identities():
    tuples = identity(env_kwargs={"length": (2, 8)})
    lists = identity(env_kwargs={"length": [2, 8]})
    assert tuples.identity() == lists.identity()
    assert "Tiny-v0" in str(tuples.identity())


def test_versions_of_the_environment_are_part_of_the_identity_and_others_are_not():
    metadata = identity().metadata()
    assert set(metadata["versions"]) == {"gymnasium", "tiny_env"}
    assert "numpy" in metadata[MADE_WITH]
    assert differences(metadata, metadata | {MADE_WITH: {}}) == []
    older = {**metadata, "versions": {"gymnasium": "0.1", "tiny_env": None}}
    assert len(differences(older, metadata)) == 1
    pendulum = identity(env_id="DoublePendulum-v0", env_kwargs={}, observation="vector")
    assert set(pendulum.identity()["versions"]) == {"gymnasium", "worldmodel"}


def test_mixtures_differ_by_their_fraction():
    assert Mixed(0.3).identity() != Mixed(0.5).identity()
