"""What keeps agents from living off their model's errors."""

import numpy as np
import pytest
import torch

import worldmodel
from worldmodel.datasets import open_datasets
from worldmodel.imagination import LatentVectorEnv, load_dream
from worldmodel.imagination.ensemble import Ensemble, load_ensemble, save_ensemble, train_ensemble
from worldmodel.models.predictor import ResidualPredictor
from worldmodel.rl.guards import DISCOUNT, DisagreementPenalty, LeavingEnds, least_reward
from worldmodel.run import Run, RunError


@pytest.fixture
def dream(driven_run):
    wm = worldmodel.load(driven_run)
    made = LatentVectorEnv(wm, 6, **load_dream(driven_run, wm), autoreset_mode="Disabled")
    made.reset(seed=0)
    return made


def far_off(dream):
    """Begin two of six dreams far outside the domain."""
    latents = dream.starts[:6].clone()
    dream.domain = type(dream.domain)(
        dream.domain.mean, dream.domain.whitening, 1e9, dream.domain.low, dream.domain.high
    )
    latents[:2] = dream.domain.high
    dream.domain = type(dream.domain)(
        dream.domain.mean,
        dream.domain.whitening,
        float(dream.domain.distance(latents[2:]).max()) * 1.5,
        dream.domain.low,
        dream.domain.high,
    )
    dream.reset(options={"latents": latents})


def test_leaving_ends_a_dream_at_the_worst_value(dream):
    guarded = LeavingEnds(dream, dream)
    guarded.worst = -50.0
    far_off(dream)
    _, rewards, terminated, truncated, info = guarded.step(np.zeros((6, 2), np.float32))
    left = info["out_of_domain"]
    assert left[:2].all()
    assert not left[2:].any()
    assert (terminated == left).all()
    assert not truncated.any()
    assert (rewards[left] < -40).all()
    assert (rewards[~left] > -10).all()


def test_the_worst_value_is_that_of_the_least_reward_for_ever(dream):
    with torch.no_grad():
        for parameter in dream.wm.reward_head.parameters():
            parameter.zero_()
        last = [p for p in dream.wm.reward_head.parameters() if p.ndim == 1][-1]
        last.fill_(-0.5)
    assert least_reward(dream) == pytest.approx(-0.5)
    assert LeavingEnds(dream, dream).worst == pytest.approx(-0.5 / (1 - DISCOUNT))
    last.data.fill_(0.5)
    assert least_reward(dream) == 0.0


def test_disagreement_costs_reward(dream):
    predictors = [ResidualPredictor(8, 2, 16) for _ in range(3)]
    for i, predictor in enumerate(predictors):
        torch.nn.init.constant_(predictor.net[-1].bias, 0.1 * i)
    ensemble = Ensemble(predictors, scale=0.5)
    plain, z = dream, dream.latents.clone()
    actions = np.zeros((6, 2), np.float32)
    _, free, *_ = plain.step(actions)
    plain.reset(options={"latents": z})
    _, paid, *_ = DisagreementPenalty(plain, plain, ensemble, 0.3).step(actions)
    expected = np.sqrt(8) * 0.1 / 0.5  # each of 8 dimensions has 0, 0.1, 0.2: σ = 0.1
    np.testing.assert_allclose(free - paid, 0.3 * expected, rtol=1e-5)


def test_an_ensemble_agrees_on_data_and_not_far_from_it(driven_run, tmp_path, capsys):
    wm, run = worldmodel.load(driven_run), Run(driven_run)
    from rich.console import Console

    with open_datasets(run.config(), Console(stderr=True)) as data:
        ensemble = train_ensemble(wm, data.train, 3, seed=0, progress=lambda *_: None)
    starts = load_dream(driven_run, wm)["starts"]
    still = torch.zeros(len(starts), 2)
    near, far = ensemble.disagreement(starts, still), ensemble.disagreement(5 * starts, still)
    assert 0.3 < float(near.median()) < 3.0
    assert float(far.median()) > 2 * float(near.median())
    save_ensemble(tmp_path / "e.pt", ensemble)
    again = load_ensemble(tmp_path / "e.pt", wm)
    assert torch.equal(again.disagreement(starts, still), near)


def test_a_damaged_ensemble_is_told(driven_run, tmp_path):
    (tmp_path / "e.pt").write_bytes(b"PK")
    with pytest.raises(RunError, match="delete it to train it anew"):
        load_ensemble(tmp_path / "e.pt", worldmodel.load(driven_run))


def test_one_predictor_is_no_ensemble():
    with pytest.raises(ValueError, match="expected 2 or more"):
        Ensemble([ResidualPredictor(8, 2, 16)], 1.0)
