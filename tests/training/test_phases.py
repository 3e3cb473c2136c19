"""Both phases: they learn, they touch only what is theirs, and they resume exactly."""

import copy
import platform

import psutil
import pytest
import torch
from tiny_training import new_model, tiny_buffer, tiny_config, whole_and_resumed
from torch import nn
from torch.nn import functional as F

from worldmodel.batches import WindowSampler
from worldmodel.hyperparameters import Phase1
from worldmodel.objectives import regularized_prediction
from worldmodel.optim import tuned_cpu
from worldmodel.phases import (
    decoder_heads_phase,
    evaluation_mode,
    jepa_phase,
    predict_targets,
    update_target,
)
from worldmodel.registry import reference


@pytest.fixture(scope="module")
def config():
    return tiny_config()


@pytest.fixture(scope="module")
def buffer(tmp_path_factory, config):
    with tiny_buffer(tmp_path_factory.mktemp("data") / "buffer", config) as buffer:
        yield buffer


def weights(module):
    return copy.deepcopy(module.state_dict())


def same(left, right):
    return all(torch.equal(left[k], right[k]) for k in left)


def finish(phase):
    while phase.step < phase.updates:
        terms = phase.update()
    return terms


@pytest.mark.parametrize(
    ("objective", "optimizer", "epochs"),
    [
        ("vicreg", "muon", 300),
        ("sigreg", "muon", 150),
        ("variance", "muon", 150),
        ("vicreg", "adamw", 150),
    ],
)
def test_phase1_lowers_the_relative_forecast_error(buffer, objective, optimizer, epochs):
    config = tiny_config(
        objective={"name": objective},
        phase1={
            "epochs": epochs,
            "ema_start": 0.9,
            "learning_rate": 4e-3,
            "optimizer": optimizer,
        },
    )
    model = new_model(config)
    batch = WindowSampler(buffer, 5, 24, seed=(9,)).batch(0, model)
    finish(jepa_phase(model, buffer, config))
    with evaluation_mode(model):
        predictions, targets, _ = predict_targets(model, batch, config.objective)
    persistence = F.mse_loss(predictions[:1].expand_as(targets[1:]), targets[1:])
    assert F.mse_loss(predictions[1:], targets[1:]) < 0.7 * persistence


def test_the_target_encoder_follows_by_the_momentum(config):
    model = new_model(config)
    before = weights(model.target_encoder)
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(1.0)
    update_target(model.target_encoder, model.encoder, 0.9)
    for name, value in model.target_encoder.state_dict().items():
        torch.testing.assert_close(value, before[name] + 0.1)


def test_targets_carry_no_gradient_and_come_from_the_target_encoder(buffer, config):
    model = new_model(config)
    with torch.no_grad():
        for p in model.target_encoder.parameters():
            p.mul_(0)
    batch = WindowSampler(buffer, 5, 4, seed=(0,)).batch(0, model)
    predictions, targets, _ = predict_targets(model, batch, config.objective)
    assert predictions.requires_grad
    assert not targets.requires_grad
    assert targets.abs().max() == 0
    assert predictions.shape == targets.shape == (3, 4, 8)


def test_a_forecast_is_compared_with_the_frame_that_many_steps_later(buffer, config):
    model = new_model(config)
    batch = WindowSampler(buffer, 5, 4, seed=(0,)).batch(0, model)
    _, targets, _ = predict_targets(model, batch, config.objective)
    for row, k in enumerate(config.objective.offsets):
        obs = torch.cat((batch.frames[:, k], batch.frames[:, k + 1]), -1)
        torch.testing.assert_close(targets[row], model.target_encoder(obs))


def test_the_action_that_leads_out_of_the_context_comes_first(buffer, config):
    model = new_model(config)
    torch.nn.init.normal_(model.predictor.net[-1].weight)
    batch = WindowSampler(buffer, 5, 4, seed=(0,)).batch(0, model)
    predictions, _, _ = predict_targets(model, batch, config.objective)
    z = model.encoder(model.frames.observe(batch.frames, 1))
    torch.testing.assert_close(predictions[1], model.predictor(z, batch.actions[1]))


def test_phase1_repeats_itself_and_depends_on_the_seed(buffer, config):
    runs = []
    for seed in (0, 0, 1):
        model = new_model(config)
        finish(jepa_phase(model, buffer, config.model_copy(update={"seed": seed})))
        runs.append(weights(model.encoder))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


@pytest.mark.parametrize("objective", ["vicreg", "sigreg", "inverse"])
def test_phase1_resumes_as_if_never_stopped(buffer, objective):
    config = tiny_config(objective={"name": objective})
    whole = new_model(config)
    finish(jepa_phase(whole, buffer, config))
    first = new_model(config)
    phase = jepa_phase(first, buffer, config)
    for _ in range(4):
        phase.update()
    state, saved = copy.deepcopy(phase.state_dict()), weights(first)
    second = new_model(config, seed=5)
    second.load_state_dict(saved)
    phase = jepa_phase(second, buffer, config)
    phase.load_state_dict(state)
    finish(phase)
    assert same(weights(whole), weights(second))


def test_phase2_changes_no_byte_of_phase1(buffer, config):
    model = new_model(config)
    finish(jepa_phase(model, buffer, config))
    parts = ("encoder", "target_encoder", "predictor")
    before = {name: weights(getattr(model, name)) for name in parts}
    heads = weights(model.reward_head)
    finish(decoder_heads_phase(model, buffer, config))
    assert all(same(before[name], weights(getattr(model, name))) for name in parts)
    assert not same(heads, weights(model.reward_head))


def test_phase2_resumes_as_if_never_stopped(buffer, config):
    whole, first, second = (new_model(config) for _ in range(3))
    finish(decoder_heads_phase(whole, buffer, config))
    phase = decoder_heads_phase(first, buffer, config)
    for _ in range(4):
        phase.update()
    state = copy.deepcopy(phase.state_dict())
    second.load_state_dict(first.state_dict())
    phase = decoder_heads_phase(second, buffer, config)
    phase.load_state_dict(state)
    finish(phase)
    assert same(weights(whole), weights(second))


def test_phase2_learns_pixels_and_rewards(buffer):
    config = tiny_config(phase1={"epochs": 60}, phase2={"epochs": 150})
    model = new_model(config)
    finish(jepa_phase(model, buffer, config))
    phase = decoder_heads_phase(model, buffer, config)
    first = phase.update()
    last = finish(phase)
    assert last["pixels"] < 0.5 * first["pixels"]
    assert last["reward"] < 0.1 * first["reward"]


def test_an_epoch_visits_every_trajectory_once(buffer, config):
    sampler = WindowSampler(buffer, 5, 6, seed=(0,))
    visited = torch.cat([torch.as_tensor(sampler._order(e)) for e in range(3)]).view(3, -1)
    assert sampler.updates(Phase1(epochs=3)) == 12
    assert sampler.updates(Phase1(updates=5)) == 5
    for epoch in visited:
        assert sorted(epoch.tolist()) == list(range(24))
    assert not torch.equal(visited[0], visited[1])


def test_batches_larger_than_the_data_still_come(buffer, config):
    model = new_model(config)
    assert len(WindowSampler(buffer, 5, 100, seed=(0,)).batch(0, model).frames) == 100


def test_windows_longer_than_every_trajectory_are_refused(buffer):
    with pytest.raises(ValueError, match=r"no trajectory in .* has the 50 frames"):
        WindowSampler(buffer, 50, 4, seed=(0,))


def test_without_stop_gradient_the_targets_are_the_encoders_own_and_learn(buffer):
    config = tiny_config(objective={"horizon": 3, "offsets": (0, 1, 3), "stop_gradient": False})
    model = new_model(config)
    with torch.no_grad():
        for p in model.target_encoder.parameters():
            p.add_(1.0)
    batch = WindowSampler(buffer, 5, 16, seed=(9,)).batch(0, model)
    predictions, targets, _ = predict_targets(model, batch, config.objective)
    torch.testing.assert_close(targets[0], predictions[0])
    assert targets.requires_grad


def test_the_direct_predictor_has_no_residual_connection():
    model = new_model(tiny_config(model={"predictor": "direct"}))
    z, action = torch.randn(5, 8), torch.randn(5, 2)
    plain = model.predictor.net(torch.cat((z, action), -1))
    assert torch.equal(model.predictor(z, action), plain)
    assert float(plain.detach().abs().max()) > 0


def test_updates_with_non_finite_gradients_are_skipped_and_counted(buffer):
    overflow = {"now": False}

    def objective(forecast, settings, generator):
        if overflow["now"]:
            forecast = forecast._replace(predictions=forecast.predictions * 1e30)
        return regularized_prediction(forecast, settings, generator)

    config = tiny_config(objective={"name": reference(objective), "horizon": 3})
    model = new_model(config)
    phase = jepa_phase(model, buffer, config)
    phase.update()
    before = weights(model.encoder), weights(model.predictor)
    overflow["now"] = True
    assert float(phase.update()["skipped"]) == 1.0
    assert same(before[0], model.encoder.state_dict())
    assert same(before[1], model.predictor.state_dict())
    overflow["now"] = False
    assert float(phase.update()["skipped"]) == 1.0
    assert not same(before[0], model.encoder.state_dict())


class BatchNormEncoder(nn.Module):
    """Statistics of a batch as an encoder."""

    def __init__(self, frame_shape, frame_stack, latent_dim, width):
        super().__init__()
        size = frame_stack * frame_shape[0] * frame_shape[1] * frame_shape[2]
        self.norm = nn.BatchNorm1d(size)
        self.output = nn.Linear(size, latent_dim)

    def forward(self, observation):
        return self.output(self.norm(observation.flatten(1).float()))


def test_buffers_of_the_target_encoder_follow_too(buffer):
    config = tiny_config(model={"encoder": reference(BatchNormEncoder), "latent_dim": 8})
    model = new_model(config)
    before = model.target_encoder.norm.running_mean.clone()
    model.encoder.norm.running_mean.add_(1.0)
    model.encoder.norm.num_batches_tracked.fill_(7)
    update_target(model.target_encoder, model.encoder, 0.9)
    torch.testing.assert_close(model.target_encoder.norm.running_mean, before + 0.1)
    assert int(model.target_encoder.norm.num_batches_tracked) == 7


def test_batch_norm_statistics_freeze_with_the_encoder_and_resume_exactly(buffer):
    config = tiny_config(model={"encoder": reference(BatchNormEncoder), "latent_dim": 8})
    whole, resumed = whole_and_resumed(jepa_phase, buffer, config, 3)
    assert same(weights(whole), weights(resumed))
    statistics = weights(whole.encoder)
    finish(decoder_heads_phase(whole, buffer, config))
    assert same(statistics, weights(whole.encoder))


def test_measuring_changes_no_statistics(buffer):
    config = tiny_config(model={"encoder": reference(BatchNormEncoder), "latent_dim": 8})
    model = new_model(config)
    before = weights(model)
    batch = WindowSampler(buffer, 5, 8, seed=(0,)).batch(0, model)
    with evaluation_mode(model):
        predict_targets(model, batch, config.objective)
    assert same(before, weights(model))
    assert model.encoder.norm.training


def test_numbers_below_the_normal_range_count_as_zero_in_training():
    tiny = torch.full((8,), 2e-38)
    with tuned_cpu():
        assert not (tiny * 0.1).any()
        with tuned_cpu():
            pass
        assert not (tiny * 0.1).any()
    assert (tiny * 0.1).all()


def test_a_training_leaves_the_process_as_it_was(driven_run):
    assert (torch.full((8,), 2e-38) * 0.1).all()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_memory_is_kept_in_training_and_returned_afterwards():
    resident = psutil.Process().memory_info
    with tuned_cpu():
        block = torch.ones(2**25)  # 128 MB
        del block
        kept = resident().rss
    assert kept - resident().rss > 100 * 2**20
    block = torch.ones(2**25)
    used = resident().rss
    del block
    assert used - resident().rss > 100 * 2**20
