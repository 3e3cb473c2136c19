"""Evaluation sets: named splits, seeds that no training has, and no files left behind."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from test_datasets import RecordingCallback

from worldmodel.config import build_config
from worldmodel.data.datasets import (
    evaluation_set,
    require_disjoint,
    split_seeds,
    training_seeds,
)

CONFIG = build_config({"image_size": 16, "data": {"env_kwargs": {}}})
TRAINING = np.arange(100)


def collect(split, policy="passive", **settings):
    settings = {"episodes": 3, "steps": 4} | settings
    return evaluation_set(split, CONFIG, TRAINING, policy, **settings)


@pytest.mark.parametrize(("split", "first"), [("validation", 10_000), ("heldout", 20_000)])
def test_splits_have_their_own_seeds(split, first):
    with collect(split) as buffer:
        assert_array_equal(buffer.seeds, [first, first + 1, first + 2])
        assert_array_equal(buffer.lengths, [5, 5, 5])
        assert buffer.frame_shape == (16, 16, 3)
        assert buffer.state_dim == 4


def test_passive_and_driven_sets_differ_in_their_actions():
    with (
        collect("heldout") as passive,
        collect("heldout", "random", env_kwargs={"start": "uniform"}) as driven,
    ):
        everything = np.arange(3), np.zeros(3, int), 5
        assert not passive.windows(*everything).actions.any()
        assert driven.windows(*everything).actions.any()
        assert np.abs(driven.states(*everything)[:, 0, 2:]).max() > 0.2


def test_a_set_is_as_large_and_long_as_the_configuration_and_its_progress_is_reported():
    config = build_config({"image_size": 16, "data": {"heldout_size": 4}})
    recorder = RecordingCallback()
    with evaluation_set("heldout", config, TRAINING, "passive", callbacks=[recorder]) as buffer:
        assert recorder.progress == [("heldout episodes", n) for n in (1, 2, 3, 4)]
        assert buffer.lengths.tolist() == [62] * 4


@pytest.mark.parametrize("fails", [False, True])
def test_the_files_are_removed_whatever_happens(fails):
    class MishapError(Exception):
        pass

    path = None
    try:
        with collect("heldout") as buffer:
            path = buffer.path
            assert path.exists()
            if fails:
                raise MishapError
    except MishapError:
        pass
    assert not path.parent.exists()


def test_episodes_that_were_trained_on_are_refused():
    seeds = np.array([0, 20_001])
    with (
        pytest.raises(ValueError, match=r"1 evaluation episodes were trained on.*seed 20001"),
        evaluation_set("heldout", CONFIG, seeds, "passive", episodes=3),
    ):
        pass


def test_a_full_disk_is_reported_before_anything_is_collected(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    full = SimpleNamespace(free=2**20)
    monkeypatch.setattr("worldmodel.files.shutil.disk_usage", lambda path: full)
    with (
        pytest.raises(
            OSError, match=r"no space for 9 episodes in .*; lower the number of episodes"
        ),
        evaluation_set("heldout", CONFIG, TRAINING, "passive", episodes=9),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_unknown_training_seeds_do_not_overlap():
    require_disjoint(np.array([-1, -1, 5]), np.array([20_000, -1]))


@pytest.mark.parametrize(
    ("split", "episodes", "message"),
    [
        ("test", 3, "'validation', 'heldout'"),
        ("validation", 10_001, "has 10000 seeds"),
        ("heldout", 0, "do not fit"),
    ],
)
def test_splits_refuse_what_they_do_not_have(split, episodes, message):
    with pytest.raises(ValueError, match=message):
        split_seeds(split, episodes)


def test_training_seeds_skip_those_of_the_splits():
    seeds = training_seeds(10_003)
    assert seeds[:10_000] == list(range(10_000))
    assert seeds[10_000:] == [1_000_000, 1_000_001, 1_000_002]
    require_disjoint(np.array(seeds), np.arange(10_000, 40_000))
