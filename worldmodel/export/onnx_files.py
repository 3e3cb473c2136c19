"""The parts of a world model as ONNX files, beside a JSON file that describes them."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from worldmodel.errors import RunError
from worldmodel.extras import require
from worldmodel.files import replacing, write_json

if TYPE_CHECKING:
    from worldmodel.models import WorldModel
    from worldmodel.run import Run

DESCRIPTION = "world.json"
FORMAT = "worldmodel-onnx"
PARTS = ("encoder", "predictor", "decoder", "reward", "termination")
VERSION = 1

TOLERANCE = 1e-4
"""Largest difference, absolute or relative, between onnxruntime and PyTorch."""

_STARTS = 16
_BATCH = 3
_LIBRARIES = ("onnx", "onnxscript", "onnxruntime")


class _Decoder(nn.Module):
    """Decodes latents (B, D) to pixels in [0, 1], float32 (B, H, W, S*C)."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, latent: Tensor) -> Tensor:
        images: Tensor = self.decoder(latent).clamp(0, 1)
        return images


class _Termination(nn.Module):
    """Predicts the probability (B,) that a transition terminates the episode."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, latent: Tensor, action: Tensor, next_latent: Tensor) -> Tensor:
        probability: Tensor = self.head(latent, action, next_latent).sigmoid()
        return probability


@dataclass(frozen=True)
class _Part:
    """One file.

    Attributes:
        module: what is exported.
        inputs: name -> example, a batch.
        output: name of the output.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    output: str

    def shapes(self) -> dict[str, Any]:
        """Describe inputs and output: name -> shape, the batch axis as ``"batch"``."""
        with torch.no_grad():
            result = self.module(*self.inputs.values())
        tensors = {**self.inputs, self.output: result}
        shapes = {name: ["batch", *tensor.shape[1:]] for name, tensor in tensors.items()}
        output = {self.output: shapes.pop(self.output)}
        return {"inputs": shapes, "outputs": output}


def write_onnx(run: Run, path: Path) -> dict[str, Any]:
    """Write encoder, predictor, decoder and heads as ONNX, and ``world.json``.

    Every file has a dynamic batch axis, and onnxruntime is checked to give the same as PyTorch.
    `docs/export.md` describes inputs, outputs and the JSON file.

    Args:
        run: a finished run.
        path: the directory: a new or an empty one, or one of an earlier export.

    Returns:
        `path`, `bytes`, and `deviation`: part -> largest absolute difference from PyTorch.

    Raises:
        MissingLibraryError: If a library is not installed.
        ValueError: If the directory holds other files, or a part cannot be exported.
        RunError: If onnxruntime gives another result than PyTorch.
        OSError: If the files cannot be written.
    """
    for library in _LIBRARIES:
        require(library, "onnx")
    _require_replaceable(path)
    parts = _parts(run.model)
    models = {name: _convert(name, part) for name, part in parts.items()}
    deviation = {name: _deviation(name, parts[name], model) for name, model in models.items()}
    path.mkdir(parents=True, exist_ok=True)
    for name in PARTS:
        if name in models:
            with replacing(path / f"{name}.onnx") as temporary:
                temporary.write_bytes(models[name])
        else:
            (path / f"{name}.onnx").unlink(missing_ok=True)
    write_json(path / DESCRIPTION, _describe(run, parts))
    size = sum(file.stat().st_size for file in path.iterdir())
    return {"path": str(path), "bytes": size, "deviation": deviation}


def _require_replaceable(path: Path) -> None:
    """Check that a directory is new, empty, or an earlier export and nothing else."""
    if not path.exists():
        return
    if not path.is_dir():
        raise ValueError(f"{path} is a file; expected a directory for the ONNX files")
    names = {entry.name for entry in path.iterdir()}
    unknown = sorted(names - {DESCRIPTION, *(f"{name}.onnx" for name in PARTS)})
    if unknown or (names and not _is_export(path / DESCRIPTION)):
        other = unknown[0] if unknown else sorted(names)[0]
        raise ValueError(
            f"{path} is not an earlier export: it holds {other}; export to a new or an empty "
            "directory"
        )


def _is_export(description: Path) -> bool:
    try:
        content = json.loads(description.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def _parts(wm: WorldModel) -> dict[str, _Part]:
    """Return what is exported, on the CPU, with examples of the inputs."""
    spec, generator = wm.spec, torch.Generator().manual_seed(0)
    assert wm.starts is not None
    z = wm.starts.cpu()[torch.arange(_BATCH) % len(wm.starts)]
    action = torch.rand(_BATCH, spec.actions.dim, generator=generator) * 2 - 1
    shape = (_BATCH, *spec.observation_shape)
    if spec.pixels:
        observation = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    else:
        observation = torch.randn(shape, generator=generator)

    def on_cpu(part: nn.Module) -> nn.Module:
        return copy.deepcopy(part).cpu().eval()

    step = {"latent": z, "action": action, "next_latent": z.flip(0)}
    parts = {
        "encoder": _Part(on_cpu(wm.encoder), {"observation": observation}, "latent"),
        "predictor": _Part(on_cpu(wm.predictor), {"latent": z, "action": action}, "next_latent"),
        "reward": _Part(on_cpu(wm.reward_head), step, "reward"),
        "termination": _Part(_Termination(on_cpu(wm.termination_head)), step, "probability"),
    }
    if wm.decoder is not None:
        parts["decoder"] = _Part(_Decoder(on_cpu(wm.decoder)), {"latent": z}, "image")
    return parts


def _convert(name: str, part: _Part) -> bytes:
    """Convert one part.

    Raises:
        ValueError: If PyTorch cannot.
    """
    with _quiet():
        try:
            program = torch.onnx.export(
                part.module,
                tuple(part.inputs.values()),
                input_names=list(part.inputs),
                output_names=[part.output],
                dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in part.inputs),
                dynamo=True,
                verbose=False,
            )
        except Exception as error:  # any operation of a custom part may fail in its own way
            reason = next(iter(str(error.__cause__ or error).strip().splitlines()), "")
            raise ValueError(
                f"the {name} cannot be converted to ONNX ({type(error).__name__}: {reason}); "
                "torch.onnx.export has to be able to trace its forward"
            ) from error
    assert program is not None
    model = program.model_proto
    _strip(model)
    content: bytes = model.SerializeToString()
    return content


def _strip(model: Any) -> None:
    """Remove the notes of the exporter, which hold paths of this machine."""
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        holder.ClearField("doc_string")
        holder.ClearField("metadata_props")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of the exporter, which are about its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _deviation(name: str, part: _Part, model: bytes) -> float:
    """Compare onnxruntime with PyTorch, on the example and on a batch of one.

    Returns:
        The largest absolute difference.

    Raises:
        RunError: If it is larger than `TOLERANCE`.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    largest = 0.0
    for count in (_BATCH, 1):
        inputs = {key: value[:count] for key, value in part.inputs.items()}
        with torch.no_grad():
            expected = part.module(*inputs.values()).numpy()
        try:
            (found,) = session.run(None, {key: value.numpy() for key, value in inputs.items()})
        except Exception as error:  # onnxruntime has no common class of errors
            raise RunError(
                f"onnxruntime cannot run the {name} on a batch of {count}, but of {_BATCH}: its "
                "forward has to read the batch size from z.shape, not from len(z)"
            ) from error
        if not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
            raise RunError(
                f"onnxruntime gives another {part.output} than PyTorch for the {name}, by up to "
                f"{np.abs(found - expected).max():.3g}; expected {TOLERANCE:g} or less"
            )
        largest = max(largest, float(np.abs(found - expected).max()))
    return largest


def _describe(run: Run, parts: Mapping[str, _Part]) -> dict[str, Any]:
    """Describe the files, for a program that knows nothing else about the run."""
    spec, domain, starts = run.model.spec, run.domain, run.starts
    chosen = torch.linspace(0, len(starts) - 1, min(_STARTS, len(starts))).long()
    return {
        "format": FORMAT,
        "version": VERSION,
        "run": run.path.resolve().name,
        "env": run.config.env.id,
        "seconds_per_step": run.dt,
        "observation": {
            "shape": list(spec.observation_shape),
            "dtype": "uint8" if spec.pixels else "float32",
            "frame_shape": list(spec.frame_shape),
            "frame_stack": spec.frame_stack,
        },
        "latent": {
            "dim": spec.latent_dim,
            "low": domain.low.tolist(),
            "high": domain.high.tolist(),
        },
        "action": {**spec.actions.model_dump(mode="json"), "dim": spec.actions.dim},
        "starts": starts.cpu()[chosen].tolist(),
        "parts": {
            name: {"file": f"{name}.onnx", **parts[name].shapes()}
            for name in PARTS
            if name in parts
        },
    }
