"""ONNX files agree with PyTorch for any batch, and are played without it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from untrained import TINY, untrained_run

from worldmodel.errors import RunError
from worldmodel.export import onnx_files
from worldmodel.models.encoders import KeypointEncoder, MLPEncoder

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

EXAMPLE = Path(__file__).parents[2] / "examples" / "play_onnx.py"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run with discrete actions and three gray frames per observation, and its files."""
    folder = tmp_path_factory.mktemp("onnx")
    env = {"id": TINY, "kwargs": {"actions": "from_one", "size": 16, "channels": 1}}
    run = untrained_run(folder, env=env, frame_stack=3, model={"encoder": "conv"})
    run.export(folder / "onnx")
    return run, folder / "onnx"


def run_part(folder, name, **inputs):
    session = ort.InferenceSession(folder / f"{name}.onnx")
    (output,) = session.run(None, {key: value.numpy() for key, value in inputs.items()})
    return output


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_every_part_agrees_with_pytorch(exported, batch):
    (run, folder), close = exported, {"atol": 1e-4, "rtol": 0}
    wm, generator = run.model, torch.Generator().manual_seed(batch)
    observation = torch.randint(256, (batch, 16, 16, 3), generator=generator, dtype=torch.uint8)
    z = run_part(folder, "encoder", observation=observation)
    np.testing.assert_allclose(z, wm.encode(observation), **close)
    z = run.starts[:batch]
    action = wm.action_vector(torch.randint(1, 4, (batch,), generator=generator))
    z_next = run_part(folder, "predictor", latent=z, action=action)
    np.testing.assert_allclose(z_next, wm.predictor(z, action), **close)
    image = run_part(folder, "decoder", latent=z)
    np.testing.assert_allclose(image, wm.decoder(z).clamp(0, 1), **close)
    step = {"latent": z, "action": action, "next_latent": torch.as_tensor(z_next)}
    reward = run_part(folder, "reward", **step)
    np.testing.assert_allclose(reward, wm.reward_head(*step.values()), **close)
    probability = run_part(folder, "termination", **step)
    np.testing.assert_allclose(probability, wm.termination_head(*step.values()).sigmoid(), **close)


@pytest.mark.parametrize(
    ("encoder", "observation"),
    [
        (KeypointEncoder((16, 16, 3), 2, 6, 4), torch.randint(256, (3, 16, 16, 6)).byte()),
        (MLPEncoder((3,), 2, 6), torch.randn(3, 6)),
    ],
)
def test_the_other_encoders_agree_with_pytorch(encoder, observation):
    part = onnx_files._Part(encoder.eval(), {"observation": observation}, "latent")
    assert onnx_files._deviation("encoder", part, onnx_files._convert("encoder", part)) < 1e-4


def test_the_description_is_complete(exported):
    run, folder = exported
    world = json.loads((folder / "world.json").read_text())
    assert world["observation"] == {
        "shape": [16, 16, 3],
        "dtype": "uint8",
        "frame_shape": [16, 16, 1],
        "frame_stack": 3,
    }
    assert world["action"] == {"kind": "discrete", "n": 3, "start": 1, "dim": 3}
    assert world["parts"]["predictor"] == {
        "file": "predictor.onnx",
        "inputs": {"latent": ["batch", 6], "action": ["batch", 3]},
        "outputs": {"next_latent": ["batch", 6]},
    }
    assert world["parts"]["reward"]["outputs"] == {"reward": ["batch"]}
    assert np.shape(world["starts"]) == (16, 6)
    assert world["latent"]["low"] == pytest.approx(run.domain.low.tolist())


def test_no_path_of_this_machine_is_written(exported):
    _, folder = exported
    paths = (str(Path(torch.__file__).parent), str(Path(onnx_files.__file__).parents[1]))
    for file in folder.iterdir():
        assert not [path for path in paths if path.encode() in file.read_bytes()], file


def test_an_earlier_export_is_replaced(exported, tmp_path, monkeypatch):
    run, folder = exported
    content = {file.stem: file.read_bytes() for file in folder.glob("*.onnx")}
    monkeypatch.setattr(onnx_files, "_convert", lambda name, part: content[name])
    target = shutil.copytree(folder, tmp_path / "onnx")
    (target / "reward.onnx").write_bytes(b"old")
    monkeypatch.setitem(run.model._modules, "decoder", None)  # as if it were a model of vectors
    run.export(target)
    assert (target / "reward.onnx").read_bytes() == content["reward"]
    assert not (target / "decoder.onnx").exists()
    assert "decoder" not in json.loads((target / "world.json").read_text())["parts"]


def test_files_that_disagree_with_pytorch_are_not_written(exported, tmp_path, monkeypatch):
    run, folder = exported
    content = {file.stem: file.read_bytes() for file in folder.glob("*.onnx")}
    monkeypatch.setattr(onnx_files, "_convert", lambda name, part: content[name])
    monkeypatch.setitem(content, "reward", content["termination"])
    with pytest.raises(RunError, match="another reward than PyTorch"):
        run.export(tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_the_example_plays_without_pytorch(exported):
    _, folder = exported
    blocked = "import sys; sys.modules['torch'] = sys.modules['worldmodel'] = None; "
    play = f"import runpy; sys.argv = ['play', {str(folder)!r}, '3']; "
    code = blocked + play + f"runpy.run_path({str(EXAMPLE)!r})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "step 1: reward" in result.stdout
    assert "▀" in result.stdout


class SingularValues(torch.nn.Module):
    """A part with an operation that ONNX does not have."""

    def forward(self, z):
        return torch.linalg.svdvals(z)


class FixedBatch(torch.nn.Module):
    """A part that fixes the size of the batch where it is traced."""

    def forward(self, z):
        return z.reshape(len(z), -1).flip(-1)


@pytest.mark.parametrize(
    ("module", "message"),
    [(SingularValues(), "cannot be converted to ONNX"), (FixedBatch(), "not from len")],
)
def test_a_part_that_cannot_be_converted_is_named(module, message):
    part = onnx_files._Part(module, {"z": torch.randn(3, 4)}, "image")
    with pytest.raises((ValueError, RunError), match=f"the decoder.*{message}"):
        onnx_files._deviation("decoder", part, onnx_files._convert("decoder", part))
