"""The domain holds true latents but for the stated share, and nothing that is unlike them."""

import numpy as np
import pytest
import torch
from tiny_model import TinyModel, simulate, write_buffer
from tiny_training import new_model, tiny_buffer, tiny_config

from worldmodel.evaluation.observations import all_times, encode_at
from worldmodel.imagination import fit_domain, start_latents

MODEL = TinyModel()


def latents(path, episodes, seed, speed=4.0):
    buffer = write_buffer(path, *simulate(episodes, 12, seed, speed=speed), 0)
    return buffer, torch.as_tensor(encode_at(MODEL, buffer, *all_times(buffer, 2)))


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    return latents(tmp_path_factory.mktemp("train"), 900, 0)[0]


@pytest.mark.parametrize("rate", [0.05, 0.01])
def test_it_fires_on_unseen_true_latents_about_as_often_as_stated(training, tmp_path, rate):
    _, z = latents(tmp_path, 900, 1)
    share = fit_domain(MODEL, training, rate=rate).outside(z).float().mean().item()
    assert rate / 2 < share < rate * 2


def test_it_fires_on_speeds_never_seen_on_points_off_the_data_and_on_nan(training, tmp_path):
    domain = fit_domain(MODEL, training)
    _, fast = latents(tmp_path, 100, 2, speed=30.0)
    assert domain.outside(fast).float().mean() > 0.5
    _, z = latents(tmp_path / "true", 20, 3)
    assert domain.outside(z + 3 * torch.randn(8)).all()
    assert domain.outside(torch.full((2, 8), float("nan"))).all()
    assert domain.outside(1e6 * torch.ones(1, 8)).all()


def test_the_box_is_finite_and_holds_all_that_was_seen(training):
    domain = fit_domain(MODEL, training)
    z = torch.as_tensor(encode_at(MODEL, training, *all_times(training, 2)))
    assert torch.isfinite(domain.low).all()
    assert ((z > domain.low) & (z < domain.high)).all()
    again = fit_domain(MODEL, training)
    assert again.radius == domain.radius
    assert np.array_equal(again.whitening, domain.whitening)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_rate_that_is_no_share_is_refused(training, rate):
    with pytest.raises(ValueError, match="expected a share between 0 and 1"):
        fit_domain(MODEL, training, rate=rate)


def test_no_dream_starts_where_an_episode_ended(tmp_path):
    config = tiny_config()
    with tiny_buffer(tmp_path / "b", config, episodes=200) as buffer:
        ended = np.flatnonzero(buffer.terminated)
        assert 0 < len(ended) < 100
        model = new_model(config).eval()
        last = encode_at(model, buffer, ended, buffer.lengths[ended] - 1)
        _, times = all_times(buffer, model.frame_stack)
        starts = start_latents(model, buffer)
    assert len(starts) == len(times) - len(ended)
    assert torch.cdist(torch.as_tensor(last), starts).min() > 0
