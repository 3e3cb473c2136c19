"""The optimizer orthogonalizes, whatever the parameter's shape, and learns; its schedule."""

import pytest
import torch
from torch import nn

from worldmodel.optim import Muon, learning_rate, orthogonalize


@pytest.mark.parametrize("shape", [(8, 8), (8, 12), (16, 64), (1, 5)])
def test_singular_values_move_towards_one(shape):
    generator = torch.Generator().manual_seed(0)
    u, s, v = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    spread = torch.logspace(0, -1.5, len(s))
    values = torch.linalg.svdvals(orthogonalize(u @ torch.diag(spread) @ v))
    assert values.min() > 0.4
    assert values.max() < 1.6


def test_the_wide_and_the_square_paths_agree():
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(16, 16, generator=generator)
    padded = torch.cat((square, torch.zeros(16, 32)), 1)  # wide enough for the Gram space
    torch.testing.assert_close(
        orthogonalize(padded)[:, :16], orthogonalize(square), rtol=1e-3, atol=1e-3
    )


def test_directions_of_the_matrix_are_kept():
    generator = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(6, 20, generator=generator), full_matrices=False)
    matrix = u @ torch.diag(torch.logspace(0, -1.5, 6)) @ v

    def alignment(x):
        return (x * (u @ v)).sum() / (x.norm() * 6**0.5)

    assert alignment(matrix) < 0.7
    assert alignment(orthogonalize(matrix)) > 0.9


def test_it_fits_a_convolution_and_a_matrix():
    torch.manual_seed(0)
    x = torch.randn(64, 3, 8, 8)
    teacher, student = (
        nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.Tanh(), nn.Flatten(), nn.Linear(24, 5))
        for _ in range(2)
    )
    target = teacher(x).detach()
    optimizer = Muon([p for p in student.parameters() if p.ndim > 1], lr=2e-2)
    losses = []
    for _ in range(200):
        loss = (student(x) - target).square().mean()
        student.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_the_learning_rate_rises_to_its_peak_and_falls_on_a_cosine():
    rates = [learning_rate(step, 101, 2.0, 4, 0.1) for step in range(102)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[4] == max(rates)
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)
    assert rates[101] == pytest.approx(0.2)
    assert learning_rate(0, 20, 2.0, 100, 0.1) == 1.0  # at most a tenth of all steps
