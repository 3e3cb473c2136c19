"""Updates as on a GPU, run on the CPU: nothing waits for the device, and skips are exact."""

import copy
from types import SimpleNamespace

import pytest
import torch
from tiny_training import new_model, tiny_buffer, tiny_config
from torch.utils._python_dispatch import TorchDispatchMode

from worldmodel import optim
from worldmodel.callbacks import (
    Callback,
    CallbackList,
    CollapseMonitor,
    TensorBoardLogger,
    TrainingState,
)
from worldmodel.device_buffer import cache_on_device
from worldmodel.objectives import regularized_prediction
from worldmodel.phases import decoder_heads_phase, jepa_phase, refinement_phase
from worldmodel.registry import reference
from worldmodel.terminal import TerminalProgress
from worldmodel.training import LOG_EVERY, _run_phase

aten = torch.ops.aten
WAITING = {aten._local_scalar_dense, aten.equal, aten.masked_select, aten.nonzero}
"""Operators that read values of a tensor; item, bool and float call the first one."""


class Waits(TorchDispatchMode):
    """Lists what would make the CPU wait for a GPU."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.found, self.active = [], False
        for name in ("cpu", "numpy", "tolist"):
            monkeypatch.setattr(torch.Tensor, name, self._listed(name, getattr(torch.Tensor, name)))

    def _listed(self, name, method):
        def call(*arguments, **options):
            if self.active:
                self.found.append(name)
            return method(*arguments, **options)

        return call

    def __enter__(self):
        self.active = True
        return super().__enter__()

    def __exit__(self, *exception):
        self.active = False
        super().__exit__(*exception)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masked = func.overloadpacket is aten.index and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if func.overloadpacket in WAITING or masked:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(optim, "skips_on_device", lambda parameters: True)


@pytest.fixture
def buffer(tmp_path):
    with tiny_buffer(tmp_path / "buffer", tiny_config()) as buffer:
        yield buffer


def waits(monkeypatch, make, buffer, config, cached=False):
    """What an update waits for, after a first one that makes the state of the optimizers."""
    model = new_model(config)
    phase = make(model, cache_on_device(buffer, model, cached), config)
    phase.update()
    with Waits(monkeypatch) as waiting:
        phase.update()
    return waiting.found


@pytest.mark.parametrize("make", [jepa_phase, refinement_phase, decoder_heads_phase])
@pytest.mark.parametrize("objective", ["inverse", "sigreg"])
@pytest.mark.parametrize("cached", [False, True])
def test_an_update_waits_for_nothing(monkeypatch, as_on_a_gpu, buffer, make, objective, cached):
    config = tiny_config(objective={"name": objective}, phase2={"max_grad_norm": 1.0})
    assert waits(monkeypatch, make, buffer, config, cached) == []


class Between(Callback):
    """Watches the training loop from one update to another one, between two logs."""

    def __init__(self, waiting, first, last):
        self.waiting, self.first, self.last = waiting, first, last

    def on_update(self, state):
        if state.update == self.first:
            self.waiting.__enter__()
        if state.update == self.last:
            self.waiting.__exit__(None, None, None)


def test_the_training_loop_waits_for_nothing_between_logs(
    monkeypatch, as_on_a_gpu, buffer, tmp_path
):
    config = tiny_config(phase1={"updates": LOG_EVERY})
    model = new_model(config)
    run = SimpleNamespace(config=config, path=tmp_path, save_checkpoint=lambda state: None)
    state = TrainingState(run, model, buffer)
    between = Between(Waits(monkeypatch), 2, LOG_EVERY - 1)
    watching = CallbackList(
        [CollapseMonitor(pytest.fail), TensorBoardLogger(), TerminalProgress(), between]
    )
    watching.on_train_start(state)
    _run_phase(jepa_phase(model, buffer, config), state, watching)
    watching.on_train_end(state)
    assert between.waiting.found == []
    assert state.scalars["phase1/prediction"] > 0


def test_an_update_on_a_cpu_reads_whether_gradients_are_finite(monkeypatch, buffer):
    found = waits(monkeypatch, jepa_phase, buffer, tiny_config())
    assert "aten._local_scalar_dense.default" in found


class Overflow:
    """An objective whose gradients are infinite while `now` is set."""

    def __init__(self):
        self.now = False

    def __call__(self, forecast, settings, generator):
        if self.now:
            forecast = forecast._replace(predictions=forecast.predictions * 1e30)
        return regularized_prediction(forecast, settings, generator)


def overflowing(buffer, optimizer):
    objective = Overflow()
    config = tiny_config(
        objective={"name": reference(objective), "horizon": 3}, phase1={"optimizer": optimizer}
    )
    model = new_model(config)
    return objective, model, jepa_phase(model, buffer, config)


def states(phase):
    """Weights and the state of the optimizers, copied."""
    saved = copy.deepcopy(phase.state_dict()["optimizers"])
    tensors = [
        value for part in saved for state in part["state"].values() for value in state.values()
    ]
    return [*tensors, *(parameter.detach().clone() for parameter in phase.parameters)]


def equal(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_skipped_update_changes_no_weight_and_no_state(as_on_a_gpu, buffer, optimizer):
    objective, _, phase = overflowing(buffer, optimizer)
    phase.update()
    before = states(phase)
    objective.now = True
    assert float(phase.update()["skipped"]) == 1.0
    assert equal(states(phase), before)
    assert phase.state_dict()["skipped"] == 1
    objective.now = False
    assert float(phase.update()["skipped"]) == 1.0
    assert not any(torch.equal(a, b) for a, b in zip(states(phase), before, strict=True))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_updates_and_skips_are_those_of_a_cpu(monkeypatch, buffer, optimizer):
    found = []
    for on_device in (False, True):
        monkeypatch.setattr(optim, "skips_on_device", lambda parameters, on=on_device: on)
        objective, _, phase = overflowing(buffer, optimizer)
        for i in range(4):
            objective.now = i == 2
            phase.update()
        found.append(states(phase))
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("first_on_gpu", [False, True])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_checkpoint_of_one_device_continues_on_another(
    monkeypatch, buffer, first_on_gpu, optimizer
):
    def make(on_device):
        monkeypatch.setattr(optim, "skips_on_device", lambda parameters: on_device)
        return overflowing(buffer, optimizer)[1:]

    _, whole = make(first_on_gpu)
    model, phase = make(first_on_gpu)
    for _ in range(3):
        whole.update()
        phase.update()
    whole.update()
    other, continued = make(not first_on_gpu)
    other.load_state_dict(model.state_dict())
    continued.load_state_dict(copy.deepcopy(phase.state_dict()))
    continued.update()
    for left, right in zip(states(continued), states(whole), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
