"""Every regularizer against an independent formula, and against the collapse it must detect."""

import numpy as np
import pytest
import torch
from scipy import integrate
from tiny_training import new_model, tiny_buffer, tiny_config
from torch.func import functional_call

from worldmodel.batches import WindowSampler
from worldmodel.errors import ConfigError
from worldmodel.hyperparameters import ObjectiveConfig
from worldmodel.objectives import (
    Forecast,
    check_objective,
    covariance_penalty,
    make_objective,
    random_directions,
    regularized_prediction,
    sigreg,
    variance_hinge,
)
from worldmodel.phases import predict_targets
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


@pytest.mark.parametrize("name", ["vicreg", "inverse", "sigreg", "variance", "prediction"])
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


def independent_forecast(generator, batch=64):
    """Predictions, targets and actions that have nothing to do with each other."""
    predictions, targets = torch.randn(2, 3, batch, 4, generator=generator)
    actions = torch.randn(2, batch, 2, generator=generator)
    return Forecast(predictions.requires_grad_(), targets, actions)


def inverse(**settings):
    return ObjectiveConfig(name="inverse", **settings)


def test_inverse_dynamics_reads_the_action_from_two_latents(generator):
    settings = inverse(horizon=2, inverse_weight=3.0)
    objective = make_objective(settings, latent_dim=4, action_dim=2)
    forecast = independent_forecast(generator)
    loss, terms = objective(forecast, settings, generator)
    plain, _ = regularized_prediction(forecast, settings, generator)
    read = objective.net(torch.cat([forecast.predictions[0], forecast.targets[1]], dim=-1))
    expected = (read - forecast.actions[0]).square().mean()
    torch.testing.assert_close(terms["inverse"], expected.detach())
    torch.testing.assert_close(loss, plain + 3.0 * expected)


def test_gradients_of_inverse_dynamics_are_those_of_its_formula(generator):
    """By finite differences, in the latents and in the weights of the network."""
    settings = inverse(horizon=2, inverse_weight=3.0)
    objective = make_objective(settings, latent_dim=4, action_dim=2).double()
    names, weights = zip(*objective.named_parameters())
    forecast = independent_forecast(generator, batch=5)
    targets, actions = forecast.targets.double(), forecast.actions.double()

    def loss(predictions, *values):
        arguments = (Forecast(predictions, targets, actions), settings, generator)
        return functional_call(objective, dict(zip(names, values)), arguments)[0]

    inputs = [forecast.predictions.detach().double(), *(weight.detach() for weight in weights)]
    assert torch.autograd.gradcheck(
        loss, [value.requires_grad_() for value in inputs], fast_mode=True
    )


def test_the_error_of_the_action_reaches_the_context_latent_and_the_network_alone(generator):
    forecast = independent_forecast(generator)
    gradients = []
    for weight in (0.0, 3.0):
        settings = inverse(horizon=2, inverse_weight=weight)
        objective = make_objective(settings, latent_dim=4, action_dim=2)
        loss, _ = objective(forecast, settings, generator)
        inputs = [forecast.predictions, *objective.parameters()]
        gradients.append(torch.autograd.grad(loss, inputs, allow_unused=True))
    without, latents = gradients[0][0], gradients[1][0]
    assert (latents[0] != without[0]).any(dim=-1).all()
    assert torch.equal(latents[1:], without[1:])
    assert all(gradient.abs().sum() > 0 for gradient in gradients[1][1:])


def test_inverse_dynamics_train_the_encoder_and_not_the_target_encoder(generator, tmp_path):
    config = tiny_config(objective={"name": "inverse", "horizon": 3, "offsets": (0, 1, 3)})
    model = new_model(config)
    model.target_encoder.requires_grad_(True)  # so that a gradient would show
    objective = make_objective(config.objective, model.spec.latent_dim, model.spec.actions.dim)
    with tiny_buffer(tmp_path, config) as buffer:
        length = model.frames.window(3)
        batch = WindowSampler(buffer, length, 16, seed=(0, 1)).batch(0, model)
    forecast = predict_targets(model, batch, config.objective)
    loss, _ = objective(forecast, config.objective, generator)
    loss.backward()
    for part in (model.encoder, model.predictor, objective):
        assert all(weight.grad is not None for weight in part.parameters())
    assert all(weight.grad is None for weight in model.target_encoder.parameters())


def test_inverse_dynamics_needs_the_first_step():
    with pytest.raises(ConfigError, match=r"offsets \(0, 2\) must begin with 0 and 1"):
        check_objective(inverse(horizon=2, offsets=(0, 2)), 8, 2)


def test_inverse_dynamics_keep_what_the_actions_change(generator):
    """The action moves one of two numbers, and the network reads it from their change."""
    settings = inverse(horizon=1, variance_weight=0.0, covariance_weight=0.0)
    objective = make_objective(settings, latent_dim=2, action_dim=1)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    start = torch.randn(256, 2, generator=generator)
    actions = torch.randn(1, 256, 1, generator=generator)
    after = start + torch.cat([torch.zeros(256, 1), actions[0]], dim=-1)
    for _ in range(200):
        forecast = Forecast(torch.stack([start, after]), torch.stack([start, after]), actions)
        loss, terms = objective(forecast, settings, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert terms["inverse"] < 0.02
    blind = torch.stack([start, start])
    assert objective(Forecast(blind, blind, actions), settings, generator)[1]["inverse"] > 0.5
