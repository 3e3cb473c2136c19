"""Fixed seeds and steps: the default recipe learns the physics. Judged on validation seeds."""

import pytest
import torch

from worldmodel.config import build_config
from worldmodel.data import load_or_collect
from worldmodel.evaluation import HeldOut, evaluate, evaluation_set, pendulum_task
from worldmodel.models import ModelSpec, WorldModel, describe_actions
from worldmodel.training.cpu import tune_cpu
from worldmodel.training.grounding import GroundingTrainer
from worldmodel.training.jepa import JEPATrainer

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
    tune_cpu()
    torch.manual_seed(0)
    model = WorldModel(
        ModelSpec(
            frame_shape=buffer.frame_shape,
            frame_stack=2,
            actions=describe_actions(buffer.action_space),
            **config.model.model_dump(),
        )
    )
    for phase in (JEPATrainer, GroundingTrainer):
        phase(model, buffer, config).finish()
    return model.eval()


def judge(model, buffer):
    with evaluation_set(
        "validation", training_seeds=buffer.seeds, policy="passive", episodes=128, **ENV
    ) as validation:
        task = pendulum_task(ENV["env_id"], ENV["env_kwargs"])
        return evaluate(model, buffer, HeldOut(validation), dt=task.dt, task=task)


def test_the_default_recipe_learns_positions_velocities_and_forecasts(train_buffer):
    metrics = judge(train(train_buffer), train_buffer)
    error = metrics["forecast"]["angle"]["error"]
    frames = metrics["forecast"]["frames"]
    assert metrics["probes"]["mlp"]["worst_r2"] > 0.98
    assert metrics["probes"]["linear"]["worst_r2"] > 0.8
    assert error["0"] < 0.03
    assert error["5"] < 0.1
    assert error["10"] < 0.15
    assert error["20"] < 0.25
    assert frames["psnr"]["10"] > frames["psnr_persistence"]["10"] + 2
    assert metrics["collapse"]["effective_rank"] > 8


def test_the_variance_hinge_alone_collapses_in_rank(train_buffer):
    metrics = judge(train(train_buffer, objective={"name": "variance"}), train_buffer)
    assert metrics["collapse"]["effective_rank"] < 8
