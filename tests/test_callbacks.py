"""Callbacks: the collapse monitor, TensorBoard, progress, and a user's own."""

import pytest
import torch
from tiny_training import new_model, tiny_buffer, tiny_config

import worldmodel
from worldmodel.callbacks import (
    Callback,
    CallbackList,
    CollapseMonitor,
    TensorBoardLogger,
    TrainingState,
)


class FakeRun:
    """The configuration is all that the monitor reads of a run."""

    def __init__(self, config):
        self.config = config


@pytest.fixture
def setting(tmp_path):
    config = tiny_config()
    with tiny_buffer(tmp_path / "buffer", config) as buffer:
        yield config, buffer, new_model(config)


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
def test_points_and_lines_are_reported_as_collapse_once_and_not_early(setting, spoil, collapsed):
    config, buffer, model = setting
    spoil(model)
    warnings = []
    monitor = CollapseMonitor(warnings.append)
    losses = {"prediction": torch.tensor(0.5)}
    state = TrainingState(FakeRun(config), model, buffer, phase="phase 1", losses=losses)
    monitor.on_train_start(state)
    for update, expected in ((50, 0), (250, collapsed), (300, collapsed)):
        state.update = update
        monitor.on_log(state)
        assert len(warnings) == expected
    assert all("collapse" in text and "--objective vicreg" in text for text in warnings)
    assert state.scalars["validation/std"] >= 0
    assert state.note.startswith("prediction 0.500, rank")


def test_tensorboard_separates_skipped_updates_from_losses(setting):
    config, buffer, model = setting
    tags = []

    class Writer:
        def add_scalar(self, tag, value, step):
            tags.append(tag)

    logger = TensorBoardLogger()
    logger._writer = Writer()
    state = TrainingState(FakeRun(config), model, buffer, phase="phase 1")
    state.scalars = {"phase1/prediction": 0.5, "phase1/skipped": 0.0, "validation/std": 1.0}
    logger.on_log(state)
    assert tags == ["phase1/prediction", "skipped_updates/phase1", "validation/std"]


def test_a_task_ends_even_if_it_fails():
    events = []

    class Recorder(Callback):
        def on_task_start(self, task, total, done):
            events.append(("start", task, total, done))

        def on_task_update(self, task, done, note):
            events.append(("update", task, done, note))

        def on_task_end(self, task):
            events.append(("end", task))

    def work():
        with CallbackList([Recorder()]).task("work", 3, 1) as advance:
            advance(2, "half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert events == [("start", "work", 3, 1), ("update", "work", 2, "half"), ("end", "work")]


class Stopper(Callback):
    """Records what it sees and stops after a number of updates."""

    def __init__(self, after):
        self.after, self.phases, self.scalars, self.ended = after, set(), {}, 0

    def on_update(self, state):
        self.phases.add(state.phase)
        assert state.losses
        self.after -= 1
        state.stop = self.after == 0

    def on_log(self, state):
        self.scalars.update(state.scalars)

    def on_train_end(self, state):
        self.ended += 1


def test_a_users_callback_sees_every_update_and_can_stop_a_run_that_resumes(tmp_path):
    settings = {
        "model": {"latent_dim": 8, "width": 4, "hidden": 32},
        "data": {"heldout_size": 4},
        "evaluation": {
            "resamples": 100,
            "steps": 21,
            "probe": {"updates": 50, "observations": 1000, "baseline_observations": 500},
        },
    }
    options = {"size": 16, "image_size": 16, "batch_size": 8, "output_dir": tmp_path / "results"}
    stopper = Stopper(after=10)
    with pytest.raises(worldmodel.InterruptedRunError, match="--resume"):
        worldmodel.train(
            preset="smoke",
            settings=settings,
            callbacks=[stopper],
            progress=False,
            data_dir=tmp_path / "data",
            **options,
        )
    assert stopper.phases == {"phase 1", "refinement"}
    assert "phase1/prediction" in stopper.scalars
    assert "validation/effective_rank" in stopper.scalars
    assert stopper.ended == 1
    (path,) = (tmp_path / "results").iterdir()
    run = worldmodel.resume(path, progress=False)
    assert run.metrics.collapse.effective_rank > 0
