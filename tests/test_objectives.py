"""Every regularizer against an independent formula, and against the collapse it must detect."""

import numpy as np
import pytest
import torch
from scipy import integrate

from worldmodel.errors import ConfigError
from worldmodel.hyperparameters import ObjectiveConfig
from worldmodel.objectives import (
    check_objective,
    covariance_penalty,
    random_directions,
    sigreg,
    variance_hinge,
)
from worldmodel.registry import reference


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_variance_hinge_matches_numpy_per_offset(generator):
    z = torch.randn(3, 50, 4, generator=generator) * torch.tensor([0.1, 0.5, 1.0, 2.0])
    std = np.sqrt(z.numpy().var(axis=1, ddof=1) + 1e-4)
    assert variance_hinge(z).item() == pytest.approx(np.maximum(0, 1 - std).mean(), rel=1e-5)


def test_variance_hinge_gradient_spreads_a_shrunken_batch(generator):
    z = (0.1 * torch.randn(64, 4, generator=generator)).requires_grad_()
    variance_hinge(z).backward()
    moved = z.detach() - z.grad
    assert moved.std(0).min() > z.detach().std(0).min()


def test_covariance_penalty_matches_numpy_and_scales_with_the_dimension(generator):
    z = torch.randn(2, 40, 5, generator=generator) @ torch.randn(5, 5, generator=generator)
    expected = []
    for batch in z.numpy():
        covariance = np.cov(batch.T)
        expected.append((covariance**2).sum() - (np.diag(covariance) ** 2).sum())
    assert covariance_penalty(z).item() == pytest.approx(np.mean(expected) / 5, rel=1e-4)


def test_covariance_penalty_sees_dimensions_that_vary_together(generator):
    independent = torch.randn(256, 8, generator=generator)
    together = independent[:, :1].expand(-1, 8)
    assert covariance_penalty(together) > 20 * covariance_penalty(independent)


def test_sigreg_matches_the_integral_of_the_characteristic_functions(generator):
    z = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    directions = random_directions(3, 4, generator, torch.device("cpu")).double()

    def integrand(t, x):
        empirical = np.exp(1j * t * x).mean()
        return np.abs(empirical - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)

    projections = (z @ directions).numpy().T
    exact = [integrate.quad(integrand, -8, 8, args=(x,))[0] for x in projections]
    assert sigreg(z, directions).item() == pytest.approx(30 * np.mean(exact), rel=1e-3)


@pytest.mark.parametrize("spoil", ["constant", "one line", "wide"])
def test_sigreg_prefers_a_standard_normal(generator, spoil):
    normal = torch.randn(512, 8, generator=generator)
    other = {
        "constant": torch.zeros_like(normal),
        "one line": normal[:, :1].expand(-1, 8),
        "wide": 3 * normal,
    }[spoil]
    directions = random_directions(8, 64, generator, torch.device("cpu"))
    assert sigreg(other, directions) > 5 * sigreg(normal, directions)


def test_random_directions_have_unit_length_and_follow_the_generator():
    draws = [
        random_directions(16, 32, torch.Generator().manual_seed(s), torch.device("cpu"))
        for s in (0, 0, 1)
    ]
    torch.testing.assert_close(draws[0].norm(dim=0), torch.ones(32))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("name", ["vicreg", "sigreg", "variance", "prediction"])
def test_built_in_objectives_pass_the_check(name):
    check_objective(ObjectiveConfig(name=name), 8, 2)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (lambda *_: 3, "fails: cannot unpack"),
        (lambda *_: (3.0, {}), "returns the loss 3.0; expected"),
        (lambda forecast, *_: (forecast.predictions.mean(), None), "returns terms None"),
        (lambda forecast, *_: forecast.nothing, "fails: .*nothing"),
    ],
)
def test_an_objective_that_does_not_fit_is_reported(objective, message):
    with pytest.raises(ConfigError, match=message):
        check_objective(ObjectiveConfig(name=reference(objective)), 8, 2)
