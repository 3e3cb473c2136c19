"""Refinement of the predictor after phase 1, and further updates of the heads after phase 2."""

import pytest
import torch
from tiny_training import new_model, tiny_buffer, tiny_config

from worldmodel.phases import extra_heads_phase, refinement_phase


@pytest.fixture(scope="module")
def config():
    return tiny_config(refinement={"updates": 100, "learning_rate": 0.03, "horizon": 3})


@pytest.fixture(scope="module")
def buffer(tmp_path_factory, config):
    with tiny_buffer(tmp_path_factory.mktemp("data") / "b", config, episodes=32) as made:
        yield made


def trained(phase, updates):
    return [phase.update()["prediction"] for _ in range(updates)]


def test_refinement_lowers_the_error_and_changes_the_predictor_alone(buffer, config):
    model = new_model(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    errors = [float(e) for e in trained(refinement_phase(model, buffer, config), 100)]
    assert sum(errors[-10:]) < 0.6 * sum(errors[:10])
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert changed
    assert all(name.startswith("predictor.") for name in changed)


def test_refinement_resumes_as_if_never_stopped(buffer, config):
    whole = new_model(config)
    trained(refinement_phase(whole, buffer, config), 20)
    stopped = new_model(config)
    first = refinement_phase(stopped, buffer, config)
    trained(first, 9)
    again = new_model(config)
    again.load_state_dict(stopped.state_dict())
    second = refinement_phase(again, buffer, config)
    second.load_state_dict(first.state_dict())
    trained(second, 11)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_without_updates_or_weights_there_is_no_refinement(buffer):
    config = tiny_config(refinement={"updates": 0})
    assert refinement_phase(new_model(config), buffer, config) is None
    config = tiny_config(model={"latent_dim": 8, "predictor": "identity"})
    assert refinement_phase(new_model(config), buffer, config) is None


def test_after_a_short_phase_2_the_heads_are_trained_further(buffer):
    config = tiny_config(phase2={"head_updates": 150})
    model = new_model(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    phase = extra_heads_phase(model, buffer, config)
    errors = [float(sum(phase.update().values())) for _ in range(phase.updates)]
    assert len(errors) == 150
    assert sum(errors[-10:]) < 0.5 * sum(errors[:10])
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert {name.split(".")[0] for name in changed} == {"reward_head", "termination_head"}


def test_the_heads_resume_as_if_never_stopped(buffer):
    config = tiny_config(phase2={"head_updates": 30})
    whole, stopped = new_model(config), new_model(config)
    uninterrupted = extra_heads_phase(whole, buffer, config)
    for _ in range(30):
        uninterrupted.update()
    first = extra_heads_phase(stopped, buffer, config)
    for _ in range(11):
        first.update()
    second = extra_heads_phase(stopped, buffer, config)
    second.load_state_dict(first.state_dict())
    second.run()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, stopped.state_dict()[name]), name


def test_after_a_long_phase_2_the_heads_are_not_trained_further(buffer):
    long = tiny_config(phase2={"epochs": 250, "head_updates": 9})
    assert extra_heads_phase(new_model(long), buffer, long) is None
    none = tiny_config(phase2={"head_updates": 0})
    assert extra_heads_phase(new_model(none), buffer, none) is None
