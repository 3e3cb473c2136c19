"""Ranks and spreads of latents, against known spectra and independent formulas."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from worldmodel.evaluation import collapse, effective_rank, rankme

RNG = np.random.default_rng(0)


def orthonormal(rows, columns):
    return np.linalg.qr(RNG.normal(size=(rows, columns)))[0]


def centered_with_spectrum(variances):
    """(N, D) latents of mean zero whose covariance has exactly the given eigenvalues."""
    n, d = 64, len(variances)
    basis = np.linalg.qr(np.column_stack([np.ones(n), RNG.normal(size=(n, d))]))[0][:, 1:]
    return basis * np.sqrt(n * np.asarray(variances)) @ orthonormal(d, d).T


@pytest.mark.parametrize(
    ("variances", "expected"),
    [([1, 1, 1, 1, 1], 5.0), ([3, 3, 0, 0], 2.0), ([7, 0, 0], 1.0), ([0.5, 0.25, 0.25], 2**1.5)],
)
def test_effective_rank_of_known_spectra(variances, expected):
    assert_allclose(effective_rank(centered_with_spectrum(variances)), expected, rtol=1e-6)


def test_effective_rank_ignores_an_offset_and_rankme_does_not():
    z = centered_with_spectrum([1, 1, 1, 1])
    shifted = z + 100.0
    assert_allclose(effective_rank(shifted), 4.0, rtol=1e-6)
    assert rankme(shifted) < 1.5 < 3.9 < rankme(z)


def test_effective_rank_matches_an_entropy_of_numpy_covariance():
    z = RNG.normal(size=(500, 16)) @ RNG.normal(size=(16, 16))
    p = np.linalg.eigvalsh(np.cov(z.T))
    p /= p.sum()
    assert_allclose(effective_rank(z), np.prod(p**-p), rtol=1e-9)


def test_rankme_matches_its_definition_by_singular_values():
    z = RNG.normal(size=(500, 16)) @ RNG.normal(size=(16, 16)) + 1.0
    s = np.linalg.svd(z, compute_uv=False)
    p = s / np.abs(s).sum()
    assert_allclose(rankme(z), np.exp(-(p * np.log(p)).sum()), rtol=1e-6)


def test_standard_deviations_are_those_of_numpy():
    z = RNG.normal(size=(300, 5)) * [0.0, 1.0, 2.0, 3.0, 1e-3] + 4.0
    assert_allclose(collapse(z).std, z.std(axis=0), rtol=1e-6, atol=1e-7)


def test_a_constant_latent_has_rank_zero():
    statistics = collapse(np.zeros((10, 3)))
    assert statistics.effective_rank == statistics.rankme == 0.0


def test_dimensions_that_vary_together_count_as_one():
    line = RNG.normal(size=(200, 1)) @ RNG.normal(size=(1, 32))
    assert_allclose(effective_rank(line), 1.0, atol=1e-6)


def test_tensors_with_gradients_and_arrays_give_the_same():
    z = RNG.normal(size=(40, 6)).astype(np.float32)
    from_tensor = collapse(torch.tensor(z, requires_grad=True))
    assert from_tensor.rankme == collapse(z).rankme


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 3, 2)), r"shape \(4, 3, 2\)"),
        (np.zeros((1, 3)), "N >= 2"),
        (np.full((4, 3), np.nan), "diverged"),
    ],
)
def test_invalid_latents_are_rejected(bad, message):
    with pytest.raises(ValueError, match=message):
        collapse(bad)
