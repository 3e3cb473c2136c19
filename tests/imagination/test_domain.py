"""Out-of-distribution detection: error rate, detection, and the domain as a part of the model."""

import copy

import numpy as np
import pytest
import torch
from tiny_model import TinyModel, simulate, write_buffer
from tiny_training import new_model, tiny_buffer, tiny_config

from worldmodel.evaluation_config import Evaluation
from worldmodel.imagination import Domain, domain_of, fit_domain, start_latents
from worldmodel.latents import encode_at

MODEL = TinyModel()
SETTINGS = Evaluation()


def latents(path, episodes, seed, speed=4.0):
    buffer = write_buffer(path, *simulate(episodes, 12, seed, speed=speed), 0)
    return buffer, torch.as_tensor(encode_at(MODEL, buffer, *MODEL.frames.times(buffer)))


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    return latents(tmp_path_factory.mktemp("train"), 900, 0)[0]


@pytest.mark.parametrize("rate", [0.05, 0.01])
def test_error_rate_holds_on_unseen_observations(training, tmp_path, rate):
    _, z = latents(tmp_path, 900, 1)
    domain = fit_domain(MODEL, training, Evaluation(ood_false_positive_rate=rate))
    fraction = domain.outside(z).float().mean().item()
    assert rate / 2 < fraction < rate * 2


def test_detects_higher_speeds_points_off_the_data_and_nan(training, tmp_path):
    domain = fit_domain(MODEL, training, SETTINGS)
    _, fast = latents(tmp_path, 100, 2, speed=30.0)
    assert domain.outside(fast).float().mean() > 0.5
    _, z = latents(tmp_path / "true", 20, 3)
    assert domain.outside(z + 3 * torch.randn(8)).all()
    assert domain.outside(torch.full((2, 8), float("nan"))).all()
    assert domain.outside(1e6 * torch.ones(1, 8)).all()


def test_box_is_finite_contains_the_training_latents_and_repeats(training):
    domain = fit_domain(MODEL, training, SETTINGS)
    z = torch.as_tensor(encode_at(MODEL, training, *MODEL.frames.times(training)))
    assert torch.isfinite(domain.low).all()
    assert ((z > domain.low) & (z < domain.high)).all()
    again = fit_domain(MODEL, training, SETTINGS)
    assert again.radius == domain.radius
    assert np.array_equal(again.whitening, domain.whitening)


def test_settings_limit_the_observations_and_the_seed_chooses_them(training):
    few = Evaluation(domain_observations=200)
    first, again, other = (fit_domain(MODEL, training, few, seed) for seed in (0, 0, 1))
    assert torch.equal(first.mean, again.mean)
    assert not torch.equal(first.mean, other.mean)
    assert not torch.equal(first.mean, fit_domain(MODEL, training, SETTINGS).mean)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_error_rate_must_be_a_fraction(rate):
    with pytest.raises(ValueError, match="expected a fraction between 0 and 1"):
        domain_of(torch.randn(20, 4), np.arange(20) < 10, rate)


def test_domain_is_a_part_of_the_model(training):
    domain = fit_domain(MODEL, training, SETTINGS)
    wm = new_model(tiny_config())
    assert wm.domain is None
    wm.domain = domain
    assert all(f"domain.{name}" in wm.state_dict() for name in ("mean", "whitening", "radius"))
    assert not list(wm.domain.parameters())
    moved = copy.deepcopy(wm).to("meta")
    for name in ("mean", "whitening", "radius", "low", "high"):
        assert getattr(moved.domain, name).device.type == "meta"


def test_saved_domain_decides_exactly_as_before(training, tmp_path):
    domain = fit_domain(MODEL, training, SETTINGS)
    torch.save(domain.state_dict(), tmp_path / "domain.pt")
    loaded = Domain.from_state_dict(torch.load(tmp_path / "domain.pt", weights_only=True))
    z = torch.as_tensor(encode_at(MODEL, training, *MODEL.frames.times(training)))
    z = domain.mean + (z - domain.mean) * torch.linspace(0.5, 3, len(z))[:, None]
    assert torch.equal(loaded.outside(z), domain.outside(z))
    assert 0 < domain.outside(z).float().mean() < 1
    assert torch.equal(loaded.distance(z), domain.distance(z))


def test_latent_exactly_at_the_radius_is_inside():
    wide = torch.full((2,), 99.0)
    domain = Domain(torch.zeros(2), torch.eye(2), 5.0, -wide, wide)
    beyond = np.nextafter(np.float32(5.0), np.float32(6.0))
    z = torch.tensor([[3.0, 4.0], [0.0, float(beyond)]])
    assert domain.outside(z).tolist() == [False, True]


def test_no_imagined_episode_starts_at_a_terminal_observation(tmp_path):
    config = tiny_config()
    with tiny_buffer(tmp_path / "b", config, episodes=200) as buffer:
        ended = np.flatnonzero(buffer.terminated)
        assert 0 < len(ended) < 100
        model = new_model(config).eval()
        last = encode_at(model, buffer, ended, buffer.lengths[ended] - 1)
        _, times = model.frames.times(buffer)
        starts = start_latents(model, buffer, SETTINGS.starts)
        few = start_latents(model, buffer, 10)
    assert len(starts) == len(times) - len(ended)
    assert torch.cdist(torch.as_tensor(last), starts).min() > 0
    assert 0 < len(few) <= 10
