"""Optimizers find the best action sequences, with noise of the stated spectrum."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from worldmodel.planning.planners import CEM, MPPI, Search, icem, make_planner
from worldmodel.planning.planners import _noise as noise

H, B, A = 6, 3, 2
TARGET = torch.linspace(-0.8, 0.8, H * B * A).view(H, B, A)


def score(candidates):
    return -(candidates - TARGET[:, :, None]).square().sum((0, 3))


def empty():
    return Search.zeros(H, B, A, torch.device("cpu"))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("optimizer", "error"),
    [
        (CEM(iterations=8), 0.1),
        (icem(samples=200, iterations=10, elites=20), 0.25),
        (MPPI(samples=2000, iterations=60, temperature=0.05, spread=0.3, noise_exponent=0.0), 0.2),
    ],
)
def test_each_problem_of_a_batch_gets_its_own_best_actions(optimizer, error):
    found = optimizer.search(score, empty(), generator())
    assert found.actions.shape == (H, B, A)
    assert (found.actions - TARGET).abs().max() < error


def test_reused_elites_make_the_next_search_no_worse():
    optimizer = icem(samples=40, iterations=2, elites=8)
    search, values = empty(), []
    for step in range(5):
        search = optimizer.search(score, search, generator(step))
        values.append(score(search.actions[:, :, None])[:, 0])
    assert search.elites.shape[2] > 0
    assert all((later >= earlier).all() for earlier, later in pairwise(values))


def test_a_shifted_search_starts_one_step_later():
    actions = torch.arange(H, dtype=torch.float32).view(H, 1, 1)
    shifted = Search(actions, actions, actions[:, :, None]).shifted()
    for part in shifted:
        assert part.flatten().tolist() == [1, 2, 3, 4, 5, 5]


def test_candidates_stay_within_the_range_of_actions():
    seen = []

    def watch(candidates):
        seen.append(candidates.abs().max())
        return score(candidates)

    CEM(spread=3.0).search(watch, empty(), generator())
    assert max(seen) == 1.0


@pytest.mark.parametrize("steps", [20, 21])
def test_colored_noise_has_unit_variance_and_falling_power(steps):
    made = noise((4000, steps), 2.0, generator(), torch.device("cpu"))
    assert made.std() == pytest.approx(1.0, abs=0.02)
    power = np.square(np.abs(np.fft.rfft(made.numpy()))).mean(0)
    assert power[2] / power[6] == pytest.approx(9.0, rel=0.15)
    white = noise((4000, steps), 0.0, generator(), torch.device("cpu"))
    power = np.square(np.abs(np.fft.rfft(white.numpy()))).mean(0)
    assert power[2] / power[6] == pytest.approx(1.0, rel=0.15)


def test_the_same_seed_gives_the_same_search():
    first, again = (icem().search(score, empty(), generator(3)) for _ in range(2))
    assert torch.equal(first.actions, again.actions)


def test_methods_have_short_names_and_invalid_settings_are_rejected():
    assert make_planner("cem") == CEM(150, 3, 15)
    assert make_planner("mppi", samples=7).samples == 7
    few = make_planner("icem", samples=10, iterations=1)
    assert few.search(score, empty(), generator()).actions.shape == (H, B, A)
    with pytest.raises(ValueError, match="expected one of icem, cem, mppi, or module:Name"):
        make_planner("shooting")
    with pytest.raises(ValueError, match="at least 2 elites"):
        CEM(samples=10, elites=20)
    with pytest.raises(ValueError, match="at least 1 iteration"):
        MPPI(iterations=0)
