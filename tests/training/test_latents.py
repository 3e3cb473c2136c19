"""Predictors and heads trained on encoded episodes."""

import numpy as np
import pytest
import torch
from tiny_model import TinyModel, simulate, write_buffer

from worldmodel.hyperparameters import Optimization
from worldmodel.latents import LatentEpisodes, concatenate, encode_episodes
from worldmodel.models import unroll
from worldmodel.models.predictors import ResidualPredictor
from worldmodel.phases import predictor_phase


def fit(predictor, parts, *, learning_rate, batch_size=256, **settings):
    optimization = Optimization(
        learning_rate=learning_rate, batch_size=batch_size, weight_decay=1e-2, max_grad_norm=5.0
    )
    predictor_phase("test", predictor, parts, optimization, seed=0, **settings).run()


def linear_system(episodes, length, seed):
    """z' = z turned by 0.3 rad, pushed by the action."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.tensor([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]).float()
    z = [torch.randn(episodes, 2, generator=generator)]
    actions = torch.randn(length - 1, episodes, 1, generator=generator)
    for a in actions:
        z.append(z[-1] @ turn.T + 0.1 * a)
    flat = torch.stack(z, 1).flatten(0, 1)
    padded = torch.cat((actions.transpose(0, 1), torch.zeros(episodes, 1, 1)), 1).flatten(0, 1)
    n = episodes * length
    remaining = torch.arange(length - 1, -1, -1).repeat(episodes)
    return LatentEpisodes(flat, padded, torch.zeros(n), torch.zeros(n), remaining)


def test_windows_stay_within_an_episode():
    part = linear_system(5, 7, 0)
    starts = part.starts(3)
    assert len(starts) == 5 * 4
    z, actions = part.windows(starts, 3)
    assert z.shape == (4, 20, 2)
    assert actions.shape == (3, 20, 1)
    turn = torch.tensor([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]).float()
    torch.testing.assert_close(z[:-1] @ turn.T + 0.1 * actions, z[1:])
    assert (part.episodes() == np.repeat(np.arange(5), 7)).all()


def test_a_predictor_learns_the_dynamics():
    train, test = linear_system(200, 10, 0), linear_system(50, 10, 1)
    torch.manual_seed(0)
    predictor = ResidualPredictor(2, 1, 64)
    z, actions = test.windows(test.starts(5), 5)

    def error():
        with torch.no_grad():
            return float((unroll(predictor, z[0], actions) - z[1:]).square().mean())

    before = error()
    fit(predictor, [train], updates=300, learning_rate=5e-3, horizon=5)
    assert error() < 0.02 * before


def test_a_gradient_that_is_not_finite_changes_no_weight():
    part = linear_system(20, 8, 0)
    part.z[3] = 1e30
    torch.manual_seed(0)
    predictor = ResidualPredictor(2, 1, 16)
    fit(predictor, [part], updates=5, learning_rate=5e-3, horizon=5, batch_size=64)
    assert all(bool(p.isfinite().all()) for p in predictor.parameters())


def test_terminal_rows_are_known():
    part = linear_system(3, 4, 0)
    part.terminated[[2, 10]] = 1.0
    assert part.terminal().nonzero()[:, 0].tolist() == [3, 11]


def test_fractions_set_how_much_of_each_part_is_in_a_batch():
    train, other = linear_system(50, 10, 0), linear_system(50, 10, 1)
    other.z.zero_()
    other.actions.zero_()
    seen = []

    class Spy(ResidualPredictor):
        def forward(self, z, action):
            seen.append(float((z == 0).all(-1).float().mean()))
            return super().forward(z, action)

    parts = [train, other]
    fit(Spy(2, 1, 8), parts, updates=3, learning_rate=1e-3, horizon=1, fractions=(0.75, 0.25))
    assert seen == [0.25] * 3


def test_a_horizon_longer_than_every_episode_is_refused():
    with pytest.raises(ValueError, match="the 12 latents that a window needs"):
        fit(
            ResidualPredictor(2, 1, 8),
            [linear_system(3, 5, 0)],
            updates=1,
            learning_rate=1e-3,
            horizon=11,
        )


def test_encoded_episodes_line_up_with_their_actions(tmp_path):
    states, actions = simulate(6, 9, 0, push=0.5)
    wm = TinyModel()
    wm.action_vector = lambda a: torch.as_tensor(a, dtype=torch.float32)
    with write_buffer(tmp_path / "b", states, actions, 0) as buffer:
        part = encode_episodes(wm, buffer, np.arange(6))
    assert part.z.shape == (6 * 8, 8)
    z, taken = part.windows(part.starts(1), 1)
    torch.testing.assert_close(wm.predict(z[0], taken[0]), z[1], atol=2e-3, rtol=0)
    both = concatenate([part, part])
    assert len(both.starts(7)) == 12
