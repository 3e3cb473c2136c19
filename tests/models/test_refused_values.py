"""Values that no model or environment can have are refused by name, not computed with."""

import numpy as np
import pytest
import torch

from worldmodel.models import ModelSpec, WorldModel
from worldmodel.models.spec import BoxActions, DiscreteActions


@pytest.mark.parametrize("space", [BoxActions(low=(-1, 2), high=(1, 2)), DiscreteActions(n=3)])
def test_what_is_not_finite_or_not_possible_is_refused_by_name(space):
    spec = ModelSpec(
        **{"frame_shape": (5,), "frame_stack": 2, "latent_dim": 4, "width": 4, "hidden": 8},
        actions=space,
    )
    model = WorldModel(spec).eval()
    discrete = isinstance(space, DiscreteActions)
    z = torch.zeros(2, 4)
    good = np.array([0, 2]) if discrete else np.array([[0.5, 2.0], [-1.0, 2.0]])
    assert model.predict(z, good).isfinite().all()
    assert model.predict(z, good.astype(float)).equal(model.predict(z, good))
    with pytest.raises(ValueError, match="observations hold NaN or infinity"):
        model.encode(np.full((1, 10), np.inf, np.float32))
    for bad in (np.nan, np.inf):
        wrong = z.clone()
        wrong[1, 2] = bad
        for use in (model.predict, lambda z, a: model.rollout(z, a[None])):
            with pytest.raises(ValueError, match="latents hold NaN or infinity"):
                use(wrong, good)
            actions = good.astype(float)
            actions[0] = bad
            with pytest.raises(ValueError, match="actions hold NaN or infinity"):
                use(z, actions)
    for bad in (0.9, 3, -1) if discrete else (50.0, -1.1):
        actions = good.astype(float)
        actions[0] = bad
        with pytest.raises(ValueError, match=rf"action {bad:g} is not in"):
            model.predict(z, actions)
        with pytest.raises(ValueError, match=rf"action {bad:g} is not in"):
            model.outcome(z, actions, z)


def test_an_action_that_is_always_the_same_changes_nothing():
    bounds = {"low": (-1.0, 2.0), "high": (1.0, 2.0)}
    spec = ModelSpec(
        **{"frame_shape": (5,), "frame_stack": 2, "latent_dim": 4, "width": 4, "hidden": 8},
        actions=BoxActions(**bounds),
    )
    vectors = WorldModel(spec).action_vector(np.array([[0.5, 2.0], [-1.0, 2.0]]))
    assert vectors.tolist() == [[0.5, -1.0], [-1.0, -1.0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": {"kind": "box", "low": [1.0], "high": [-1.0]}}, "do not fit each other"),
        ({"actions": {"kind": "box", "low": [-1.0], "high": [1.0, 1.0]}}, "do not fit each other"),
        ({"actions": {"kind": "box", "low": [], "high": []}}, "at least 1 item"),
        ({"actions": {"kind": "box", "low": ["nan"], "high": [1.0]}}, "finite number"),
        ({"actions": {"kind": "discrete", "n": 0}}, "greater than or equal to 1"),
        ({"latent_dim": -4}, "greater than or equal to 1"),
        ({"frame_shape": [0]}, "greater than 0"),
        ({"frame_shape": None}, "valid tuple"),
        ({"frame_shape": [5, 5]}, r"expected \(H, W, C\) or \(d,\)"),
        ({"frame_shape": [5000, 5000, 3]}, "of at most 4,194,304 numbers"),
        ({"latent_dim": 10**15}, "less than or equal to 4096"),
        ({"heads": ["forward"]}, "unknown heads"),
    ],
)
def test_a_spec_that_describes_no_model_is_refused(changes, message):
    good = {"frame_shape": [5], "frame_stack": 2, "latent_dim": 4, "width": 4, "hidden": 8}
    good["actions"] = {"kind": "discrete", "n": 2}
    ModelSpec.model_validate(good)
    with pytest.raises(ValueError, match=message):
        ModelSpec.model_validate(good | changes)
