"""bfloat16 on the CPU: losses like those of float32, float32 weights, exact resumption."""

import pytest
import torch
from tiny_training import new_model, tiny_buffer, tiny_config, whole_and_resumed

import worldmodel
from worldmodel.accelerator import Accelerator, choose_precision
from worldmodel.callbacks import Callback
from worldmodel.errors import InterruptedRunError
from worldmodel.hyperparameters import Training
from worldmodel.models.encoders import KeypointEncoder
from worldmodel.models.heads import HEADS
from worldmodel.phases import (
    decoder_heads_phase,
    encode_some,
    heads_phase,
    jepa_phase,
    refinement_phase,
)
from worldmodel.registry import reference

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(scope="module")
def buffer(tmp_path_factory):
    with tiny_buffer(tmp_path_factory.mktemp("data") / "buffer", tiny_config()) as buffer:
        yield buffer


def heads_alone(model, buffer, config):
    accelerator = Accelerator.of(config.training, model.device)
    parts, settings = [encode_some(model, buffer, config, stream=4)], config.phase2
    return heads_phase(model, parts, settings, updates=12, seed=0, accelerator=accelerator)


PHASES = (jepa_phase, refinement_phase, decoder_heads_phase, heads_alone)


def losses(buffer, precision):
    """Losses of every update of every phase by name, and the trained model."""
    # Muon gives rounding errors the size of everything else, so AdamW shows the precision alone.
    rate = {"optimizer": "adamw", "learning_rate": 1e-3, "batch_size": 16}
    config = tiny_config(
        training={"precision": precision},
        phase1={**rate, "updates": 12},
        refinement={**rate, "updates": 12, "horizon": 3},
        phase2={**rate, "updates": 12},
    )
    model, found = new_model(config), {}
    for make in PHASES:
        phase = make(model, buffer, config)
        for i in range(phase.updates):
            found |= {f"{phase.name} {i} {k}": float(v) for k, v in phase.update().items()}
    return found, model


def test_losses_in_bfloat16_are_close_to_those_in_float32(buffer):
    # bfloat16 has 8 significant bits, so each layer rounds by up to 2 ** -9 = 0.2 %. A loss is a
    # square, which doubles relative errors, and after some layers and updates 5 % bound them.
    single, _ = losses(buffer, "float32")
    half, model = losses(buffer, "bfloat16")
    assert half == pytest.approx(single, rel=0.05, abs=1e-3)
    assert half != single
    assert len(single) > 100
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_only_networks_run_in_bfloat16(buffer):
    seen = {}

    def objective(forecast, settings, generator):
        seen["forecast"] = {part.dtype for part in forecast}
        seen["product"] = (forecast.predictions[0].mT @ forecast.predictions[0]).dtype
        loss = (forecast.predictions - forecast.targets).square().mean()
        return loss, {"prediction": loss.detach()}

    config = tiny_config(
        objective={"name": reference(objective), "horizon": 3},
        training={"precision": "bfloat16"},
    )
    model = new_model(config)
    model.predictor.net[0].register_forward_hook(
        lambda module, inputs, output: seen.update(layer=output.dtype)
    )
    phase = jepa_phase(model, buffer, config)
    phase.update()
    assert seen["layer"] == torch.bfloat16
    assert seen["forecast"] == {torch.float32}
    assert seen["product"] == torch.float32
    assert {p.grad.dtype for p in phase.parameters} == {torch.float32}
    states = [value for optimizer in phase.optimizers for value in optimizer.state.values()]
    assert {tensor.dtype for state in states for tensor in state.values()} == {torch.float32}
    assert {p.dtype for p in model.target_encoder.parameters()} == {torch.float32}


def test_losses_of_decoder_and_heads_are_computed_in_float32(buffer, monkeypatch):
    seen = set()

    def spy(loss):
        def call(output, step):
            seen.update((output.dtype, *(part.dtype for part in step)))
            return loss(output, step)

        return call

    for name, loss in HEADS.items():
        monkeypatch.setitem(HEADS, name, spy(loss))
    config = tiny_config(training={"precision": "bfloat16"})
    phase = decoder_heads_phase(new_model(config), buffer, config)
    assert {term.dtype for term in phase.update().values()} == {torch.float32}
    assert seen == {torch.float32}


def test_keypoints_are_not_rounded_under_autocast():
    encoder = KeypointEncoder((16, 16, 1), 2, 8, 4)
    frames = torch.randint(256, (3, 16, 16, 2), dtype=torch.uint8)
    expected = encoder.keypoints(frames[..., :1])
    with torch.autocast("cpu", torch.bfloat16):
        positions, strength = encoder.keypoints(frames[..., :1])
        assert encoder(frames).dtype == torch.bfloat16
    assert torch.equal(positions, expected[0])
    assert torch.equal(strength, expected[1])


def test_phases_resume_exactly_in_bfloat16(buffer):
    config = tiny_config(training={"precision": "bfloat16"})
    for make in (jepa_phase, decoder_heads_phase):
        whole, resumed = whole_and_resumed(make, buffer, config, 4)
        expected = whole.state_dict()
        assert all(torch.equal(v, expected[k]) for k, v in resumed.state_dict().items())


class _Stop(Callback):
    """Stops at an update of phase 1, and keeps the warnings."""

    def __init__(self, update):
        self.update, self.warnings = update, []

    def on_update(self, state):
        state.stop = state.phase == "phase 1" and state.update == self.update

    def on_message(self, text, *, warning=False):
        if warning:
            self.warnings.append(text)


def test_a_run_saves_its_precision_and_float32_weights_and_names_a_change(driven_run, tmp_path):
    config = worldmodel.Run(driven_run).config.model_dump(mode="json")
    config |= {"output_dir": str(tmp_path), "training": {"precision": "bfloat16"}}
    with pytest.raises(InterruptedRunError):
        worldmodel.train(
            config=worldmodel.config.validate(config), progress=False, callbacks=[_Stop(3)]
        )
    (path,) = tmp_path.iterdir()
    checkpoint = torch.load(path / "checkpoint.pt", weights_only=True)
    assert checkpoint["precision"] == "bfloat16"
    assert {value.dtype for value in checkpoint["model"].values()} == {torch.float32}
    again = _Stop(5)
    with pytest.raises(InterruptedRunError):
        worldmodel.resume(path, progress=False, callbacks=[again])
    assert again.warnings == []
    worldmodel.Run(path).change_config({"training": {"precision": "auto"}})
    changed = _Stop(6)
    with pytest.raises(InterruptedRunError):
        worldmodel.resume(path, progress=False, callbacks=[changed])
    (text,) = changed.warnings
    assert "in bfloat16 so far and continues in float32" in text
    assert "training.precision=auto on cpu" in text


@pytest.mark.parametrize("supported", [True, False])
def test_auto_is_bfloat16_on_gpus_that_have_it_and_float32_elsewhere(monkeypatch, supported):
    auto = Training()
    emulated = {True: True, False: supported}
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: emulated[including_emulation],
    )
    assert choose_precision(auto, GPU) == ("bfloat16" if supported else "float32")
    assert choose_precision(auto, CPU) == choose_precision(auto, torch.device("mps")) == "float32"
    assert choose_precision(Training(precision="bfloat16"), CPU) == "bfloat16"
    assert choose_precision(Training(precision="float32"), GPU) == "float32"
