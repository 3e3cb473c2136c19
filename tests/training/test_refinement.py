"""The predictor going on by itself at the end of phase 1."""

import pytest
import torch
from tiny_training import new_model, tiny_buffer, tiny_config

from worldmodel.training.refinement import refinement


@pytest.fixture(scope="module")
def config():
    return tiny_config(refinement={"updates": 100, "learning_rate": 0.03, "horizon": 3})


@pytest.fixture(scope="module")
def buffer(tmp_path_factory, config):
    with tiny_buffer(tmp_path_factory.mktemp("data") / "b", config, episodes=32) as made:
        yield made


def trained(trainer, updates):
    return [trainer.update()["prediction"] for _ in range(updates)]


def test_it_lowers_the_error_and_changes_the_predictor_alone(buffer, config):
    model = new_model(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    errors = [float(e) for e in trained(refinement(model, buffer, config), 100)]
    assert sum(errors[-10:]) < 0.6 * sum(errors[:10])
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert changed
    assert all(name.startswith("predictor.") for name in changed)


def test_it_resumes_as_if_never_stopped(buffer, config):
    whole = new_model(config)
    trained(refinement(whole, buffer, config), 20)
    stopped = new_model(config)
    first = refinement(stopped, buffer, config)
    trained(first, 9)
    again = new_model(config)
    again.load_state_dict(stopped.state_dict())
    second = refinement(again, buffer, config)
    second.load_state_dict(first.state_dict())
    trained(second, 11)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_without_updates_or_weights_there_is_nothing_to_do(buffer):
    config = tiny_config(refinement={"updates": 0})
    assert refinement(new_model(config), buffer, config) is None
    config = tiny_config(model={"latent_dim": 8, "predictor": "identity"})
    assert refinement(new_model(config), buffer, config) is None
