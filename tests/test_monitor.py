"""A collapsed representation is recognised, and the user is told loudly."""

import io

import pytest
import torch
from rich.console import Console
from tiny_training import tiny_buffer, tiny_config
from torch.utils.tensorboard import SummaryWriter

from worldmodel import pipeline
from worldmodel.models import ModelSpec, WorldModel, describe_actions
from worldmodel.monitor import check_health
from worldmodel.training.batches import WindowSampler


@pytest.fixture
def setting(tmp_path):
    config = tiny_config()
    torch.manual_seed(0)
    with tiny_buffer(tmp_path / "buffer", config) as buffer:
        spec = ModelSpec(
            frame_shape=buffer.frame_shape,
            frame_stack=2,
            actions=describe_actions(buffer.action_space),
            **config.model.model_dump(),
        )
        yield config, buffer, WorldModel(spec)


def scale_output(model, factor):
    with torch.no_grad():
        model.encoder.output.weight.mul_(factor)


def on_a_line(model):
    with torch.no_grad():
        weight = model.encoder.output.weight
        weight.copy_(weight[:1].expand_as(weight))


@pytest.mark.parametrize(
    ("spoil", "collapsed"),
    [
        (lambda model: scale_output(model, 100), False),
        (lambda model: scale_output(model, 0), True),
        (lambda model: (scale_output(model, 100), on_a_line(model)), True),
    ],
)
def test_points_and_lines_count_as_collapsed(setting, tmp_path, spoil, collapsed):
    config, buffer, model = setting
    spoil(model)
    batch = WindowSampler(buffer, 5, 24, seed=(0,)).batch(0, model)
    assert check_health(model, batch, config.objective).collapsed == collapsed
    stream = io.StringIO()
    with SummaryWriter(str(tmp_path / "curves")) as writer:
        inspect = pipeline._phase1_inspection(model, buffer, config, writer, Console(file=stream))
        inspect(50, {"prediction": 0.0})
        assert "COLLAPSE" not in stream.getvalue()
        inspect(250, {"prediction": 0.0})
        inspect(300, {"prediction": 0.0})
    assert stream.getvalue().count("COLLAPSE") == collapsed
