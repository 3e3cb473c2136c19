"""Evaluation sets: named splits, seeds no training has, nothing left behind."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import worldmodel  # noqa: F401
from worldmodel.evaluation import evaluation_set, require_disjoint, split_seeds, step_seconds

ENV = {"env_id": "DoublePendulumPixels-v0", "image_size": 16}
TRAINING = np.arange(100)


def collect(split, **kwargs):
    return evaluation_set(split, **ENV, training_seeds=TRAINING, episodes=3, frames=5, **kwargs)


@pytest.mark.parametrize(("split", "first"), [("validation", 10_000), ("heldout", 20_000)])
def test_splits_have_their_own_seeds(split, first):
    with collect(split, policy="passive") as buffer:
        assert_array_equal(buffer.seeds, [first, first + 1, first + 2])
        assert_array_equal(buffer.lengths, [5, 5, 5])
        assert buffer.frame_shape == (16, 16, 3)
        assert buffer.state_dim == 4


def test_passive_and_driven_sets_differ_in_their_actions():
    with (
        collect("heldout", policy="passive") as passive,
        collect("heldout", policy="random", env_kwargs={"start": "uniform"}) as driven,
    ):
        everything = np.arange(3), np.zeros(3, int), 5
        assert not passive.windows(*everything).actions.any()
        assert driven.windows(*everything).actions.any()
        assert np.abs(driven.states(*everything)[:, 0, 2:]).max() > 0.2


@pytest.mark.parametrize("fails", [False, True])
def test_the_files_are_removed_whatever_happens(fails):
    class MishapError(Exception):
        pass

    path = None
    try:
        with collect("heldout", policy="passive") as buffer:
            path = buffer.path
            assert path.exists()
            if fails:
                raise MishapError
    except MishapError:
        pass
    assert not path.parent.exists()


def test_episodes_that_were_trained_on_are_refused():
    with (
        pytest.raises(ValueError, match=r"1 evaluation episodes were trained on.*seed 20001"),
        evaluation_set(
            "heldout", **ENV, training_seeds=np.array([0, 20_001]), policy="passive", episodes=3
        ),
    ):
        pass


def test_unknown_training_seeds_are_no_overlap():
    require_disjoint(np.array([-1, -1, 5]), np.array([20_000, -1]))


@pytest.mark.parametrize(
    ("split", "episodes", "message"),
    [
        ("test", 3, "'validation', 'heldout'"),
        ("validation", 10_001, "has 10000 seeds"),
        ("heldout", 0, "do not fit"),
    ],
)
def test_what_no_split_offers_is_refused(split, episodes, message):
    with pytest.raises(ValueError, match=message):
        split_seeds(split, episodes)


@pytest.mark.parametrize(
    ("env_id", "kwargs", "seconds"),
    [
        ("DoublePendulumPixels-v0", {}, 0.05),
        ("DoublePendulumPixels-v0", {"dt": 0.03}, 0.03),
        ("CartPole-v1", {}, 0.02),
        ("FrozenLake-v1", {}, 0.25),
    ],
)
def test_a_step_lasts_what_the_environment_says(env_id, kwargs, seconds):
    assert step_seconds(env_id, kwargs) == pytest.approx(seconds)
