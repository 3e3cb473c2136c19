"""Guards that keep agents from exploiting model errors."""

import numpy as np
import pytest
import torch

import worldmodel
from worldmodel.agent_config import AgentConfig, Ensemble
from worldmodel.errors import RunError
from worldmodel.files import save_tensors
from worldmodel.models.predictors import ResidualPredictor
from worldmodel.rl import guards as guards_module
from worldmodel.rl.envs import AgentEnvs
from worldmodel.rl.guards import (
    DisagreementPenalty,
    LeavingTerminates,
    PredictorEnsemble,
    find_ensemble,
    guard,
    load_ensemble,
    lowest_reward,
    save_ensemble,
    train_ensemble,
)
from worldmodel.run import Run


@pytest.fixture
def dream(driven_run):
    made = Run(driven_run).imagine(6, autoreset_mode="Disabled")
    made.reset(seed=0)
    return made


def start_outside(dream):
    """Start two of six imagined episodes far outside the domain."""
    latents = dream.starts[:6].clone()
    latents[:2] = dream.domain.high
    dream.domain.radius = dream.domain.distance(latents[2:]).max() * 1.5
    dream.reset(options={"latents": latents})


def test_leaving_the_domain_terminates_at_the_lowest_value(dream):
    guarded = LeavingTerminates(dream, dream, gamma=0.98)
    guarded.lowest_value = -50.0
    start_outside(dream)
    _, rewards, terminated, truncated, info = guarded.step(np.zeros((6, 2), np.float32))
    left = info["out_of_domain"]
    assert left[:2].all()
    assert not left[2:].any()
    assert (terminated == left).all()
    assert not truncated.any()
    assert (rewards[left] < -40).all()
    assert (rewards[~left] > -10).all()


@pytest.mark.parametrize(("gamma", "steps"), [(0.98, 50), (0.9, 10), (0.9999, 60)])
def test_the_lowest_value_is_the_lowest_reward_over_the_effective_horizon(dream, gamma, steps):
    dream.max_episode_steps = 60
    with torch.no_grad():
        for parameter in dream.wm.reward_head.parameters():
            parameter.zero_()
        last = [p for p in dream.wm.reward_head.parameters() if p.ndim == 1][-1]
        last.fill_(-0.5)
    assert lowest_reward(dream) == pytest.approx(-0.5)
    guarded = guard(dream, AgentConfig(gamma=gamma))
    assert guarded.lowest_value == pytest.approx(-0.5 * steps)
    last.data.fill_(0.5)
    assert lowest_reward(dream) == 0.0


def test_disagreement_lowers_the_reward(dream):
    predictors = [ResidualPredictor(8, 2, 16) for _ in range(3)]
    for i, predictor in enumerate(predictors):
        torch.nn.init.constant_(predictor.net[-1].bias, 0.1 * i)
    ensemble = PredictorEnsemble(predictors, scale=0.5)
    z = dream.latents.clone()
    actions = np.zeros((6, 2), np.float32)
    _, plain, *_ = dream.step(actions)
    dream.reset(options={"latents": z})
    _, penalized, *_ = DisagreementPenalty(dream, dream, ensemble, 0.3).step(actions)
    expected = np.sqrt(8) * 0.1 / 0.5  # each of 8 dimensions has 0, 0.1, 0.2: σ = 0.1
    np.testing.assert_allclose(plain - penalized, 0.3 * expected, rtol=1e-5)


class Constant(torch.nn.Module):
    """Predicts the same latent everywhere."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, z, action):
        return self.value.expand_as(z)


def test_rollouts_of_an_ensemble_draw_a_predictor_for_each_step_and_episode(driven_run):
    mean = Run(driven_run).domain.mean
    ensemble = PredictorEnsemble([Constant(mean), Constant(mean + 0.01)], 1.0)
    settings = Ensemble(size=2, penalty=0, rollouts=True)
    config = AgentConfig(num_envs=16, gamma=0.9, ensemble=settings, leaving_terminates=False)

    def played():
        envs = AgentEnvs(Run(driven_run), "dream").training(config, ensemble)
        envs.reset()
        still = np.zeros((16, 2), np.float32)
        return np.stack([envs.step(still)[0][:, 0] for _ in range(4)]) - mean[0].item()

    first = played()
    drawn = np.isclose(first, 0.01, atol=1e-4)
    assert (drawn | np.isclose(first, 0, atol=1e-4)).all()
    assert 0 < drawn[0].sum() < 16
    assert len(np.unique(drawn, axis=0)) == 4
    np.testing.assert_array_equal(first, played())


def test_guards_are_those_of_the_configuration(dream):
    ensemble = PredictorEnsemble([ResidualPredictor(8, 2, 16) for _ in range(2)], scale=1.0)
    assert guard(dream, AgentConfig(leaving_terminates=False)) is dream
    both = guard(dream, AgentConfig(gamma=0.9, ensemble={"size": 2, "penalty": 0.3}), ensemble)
    assert isinstance(both, LeavingTerminates)
    assert isinstance(both.env, DisagreementPenalty)
    assert both.env.penalty == 0.3
    free = guard(dream, AgentConfig(gamma=0.9, ensemble={"size": 2, "penalty": 0.0}), ensemble)
    assert free.env is dream


def test_an_ensemble_agrees_on_training_data_and_not_far_from_it(driven_run, tmp_path):
    run = Run(driven_run)
    with run.datasets() as data:
        ensemble = train_ensemble(run.model, data.train, Ensemble(size=3), run.config.refinement)
    starts = run.starts
    still = torch.zeros(len(starts), 2)
    near, far = ensemble.disagreement(starts, still), ensemble.disagreement(5 * starts, still)
    assert 0.3 < float(near.median()) < 3.0
    assert float(far.median()) > 2 * float(near.median())
    save_ensemble(tmp_path / "e.pt", ensemble)
    again = load_ensemble(tmp_path / "e.pt", run.model)
    assert torch.equal(again.disagreement(starts, still), near)


def test_a_run_has_one_ensemble_per_training_of_it(run_path, monkeypatch):
    settings = Ensemble(size=2, updates=2, penalty=0.1)
    assert find_ensemble(Run(run_path), Ensemble()) is None
    first = find_ensemble(Run(run_path), settings)

    def trained(*_, **__):
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(guards_module, "train_ensemble", trained)
        changed = {"penalty": 0.7, "rollouts": True}
        again = find_ensemble(Run(run_path), settings.model_copy(update=changed))
    for before, after in zip(first.predictors, again.predictors, strict=True):
        for name, value in before.state_dict().items():
            assert torch.equal(value, after.state_dict()[name])
    find_ensemble(Run(run_path), settings.model_copy(update={"updates": 3}))
    names = [path.name for path in sorted((run_path / "models").glob("ensemble*"))]
    assert names == ["ensemble_2_updates2.pt", "ensemble_2_updates3.pt"]


def test_a_damaged_ensemble_is_reported(driven_run, tmp_path):
    (tmp_path / "e.pt").write_bytes(b"PK")
    with pytest.raises(RunError, match="delete it to train the ensemble again"):
        load_ensemble(tmp_path / "e.pt", worldmodel.load(driven_run))


def test_rounds_do_not_fine_tune_the_predictors_of_an_ensemble():
    with pytest.raises(ValueError, match=r"set loop\.rounds to 0 or ensemble\.rollouts to false"):
        AgentConfig(ensemble={"size": 2, "rollouts": True}, loop={"rounds": 1})


def test_one_predictor_is_no_ensemble():
    with pytest.raises(ValueError, match="expected 2 or more"):
        PredictorEnsemble([ResidualPredictor(8, 2, 16)], 1.0)


@pytest.mark.parametrize("content", [{}, {"scale": 1.0, "predictors": [{}]}, {"predictors": 3}])
def test_a_file_that_holds_no_ensemble_is_reported(run, content):
    path = run.path / "models" / "ensemble_2.pt"
    save_tensors(path, content)
    with pytest.raises(RunError, match=r"ensemble_2.pt is damaged .*delete it to train"):
        find_ensemble(run, Ensemble(size=2))
