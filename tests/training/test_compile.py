"""`training.compile` on the CPU: losses and names of weights like those of eager networks."""

import shutil
import sys

import pytest
import torch
from tiny_training import new_model, tiny_buffer, tiny_config
from torch._dynamo.utils import counters

from worldmodel import accelerator
from worldmodel.accelerator import Accelerator, check_compiler
from worldmodel.errors import ConfigError
from worldmodel.hyperparameters import Training
from worldmodel.phases import decoder_heads_phase, jepa_phase, refinement_phase

needs_compiler = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("g++") is None,
    reason="needs a C++ compiler; compiled on Linux only",
)


def trained(make, buffer, compiled):
    """Losses of some updates of a phase, and the trained model."""
    rate = {"optimizer": "adamw", "learning_rate": 1e-3, "batch_size": 16, "updates": 3}
    config = tiny_config(
        training={"compile": compiled},
        phase1=rate,
        refinement={**rate, "horizon": 3},
        phase2=rate,
    )
    model = new_model(config)
    phase = make(model, buffer, config)
    found = [phase.update() for _ in range(phase.updates)]
    return [float(term) for terms in found for term in terms.values()], model


@needs_compiler
@pytest.mark.parametrize(
    "make",
    [
        refinement_phase,
        pytest.param(jepa_phase, marks=pytest.mark.slow),
        pytest.param(decoder_heads_phase, marks=pytest.mark.slow),
    ],
)
def test_compiled_networks_have_the_losses_and_names_of_eager_ones(tmp_path, make):
    with tiny_buffer(tmp_path / "buffer", tiny_config()) as buffer:
        eager, plain = trained(make, buffer, compiled=False)
        counters.clear()
        losses, model = trained(make, buffer, compiled=True)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert losses == pytest.approx(eager, rel=1e-4, abs=1e-6)
    assert list(model.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(model.state_dict())


@needs_compiler
def test_a_working_compiler_is_accepted():
    check_compiler(Training(compile=True), torch.device("cpu"))


def test_a_missing_compiler_is_an_error_before_training(monkeypatch):
    def fail(function, **options):
        raise RuntimeError("No working C++ compiler found\nmore text")

    monkeypatch.setattr(torch, "compile", fail)
    check_compiler(Training(), torch.device("cpu"))
    with pytest.raises(
        ConfigError, match=r"fails on cpu \(No working C\+\+ compiler found\).*compile=false"
    ):
        check_compiler(Training(compile=True), torch.device("cpu"))


def test_networks_become_cuda_graphs_on_gpus_alone(monkeypatch):
    calls = []

    def record(function, **options):
        calls.append(options)
        return function

    monkeypatch.setattr(accelerator.torch, "compile", record)
    monkeypatch.setattr(
        accelerator.torch.compiler, "cudagraph_mark_step_begin", lambda: calls.append("new step")
    )
    run = Accelerator(torch.device("cuda", 0), compile=True).prepare(lambda x: x + 1)
    assert [run(1), run(2)] == [2, 3]
    assert calls == [{"dynamic": False, "mode": "reduce-overhead"}, "new step", "new step"]
    calls.clear()
    assert Accelerator(torch.device("cpu"), compile=True).prepare(lambda x: x + 1)(1) == 2
    assert calls == [{"dynamic": False, "mode": "default"}]
    assert Accelerator(torch.device("cuda", 0)).prepare(len) is len
