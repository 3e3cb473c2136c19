"""Fixed seeds and steps: the default recipe learns the physics, measured on validation seeds."""

import pytest
import torch

from worldmodel.config import build_config
from worldmodel.data import load_or_collect
from worldmodel.data.datasets import evaluation_set
from worldmodel.evaluation import HeldOut, evaluate
from worldmodel.evaluation.warnings import find_warnings
from worldmodel.models import ModelSpec, WorldModel
from worldmodel.optim import tuned_cpu
from worldmodel.phases import decoder_heads_phase, jepa_phase
from worldmodel.plugins import find_plugin

pytestmark = pytest.mark.slow

ENV = {"env_id": "DoublePendulumPixels-v0", "env_kwargs": {"start": "uniform"}}
UPDATES = 400


@pytest.fixture(scope="module")
def train_buffer(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "train"
    with load_or_collect(path=path, episodes=2000, seeds=range(2000), steps=30, **ENV) as buffer:
        yield buffer


def train(buffer, **changes):
    epochs = UPDATES * 128 // buffer.num_episodes
    config = build_config({"phase1": {"epochs": epochs}, "phase2": {"epochs": epochs}}, changes)
    torch.manual_seed(0)
    model = WorldModel(ModelSpec.of(config, buffer.frame_shape, buffer.action_space))
    with tuned_cpu():
        for make_phase in (jepa_phase, decoder_heads_phase):
            make_phase(model, buffer, config).run()
    return model.eval()


def measure(model, buffer):
    plugin = find_plugin(ENV["env_id"], ENV["env_kwargs"])
    config = build_config()
    with evaluation_set("validation", config, buffer.seeds, "passive", episodes=128) as validation:
        heldout = HeldOut(validation, passive=validation)
        return evaluate(model, buffer, heldout, plugin=plugin)


def test_the_default_recipe_learns_positions_velocities_and_forecasts(train_buffer):
    metrics = measure(train(train_buffer), train_buffer)
    error, frames = metrics.forecast.angle.error, metrics.forecast.frames
    assert metrics.probes.mlp.worst_r2 > 0.98
    assert metrics.probes.linear.worst_r2 > 0.8
    assert error["0"] < 0.03
    assert error["5"] < 0.1
    assert error["10"] < 0.15
    assert error["20"] < 0.25
    assert frames.psnr["10"] > frames.psnr_persistence["10"] + 2
    assert metrics.collapse.effective_rank > 8
    assert find_warnings(metrics) == []


def test_the_variance_hinge_alone_collapses_in_rank(train_buffer):
    metrics = measure(train(train_buffer, objective={"name": "variance"}), train_buffer)
    assert metrics.collapse.effective_rank < 8
