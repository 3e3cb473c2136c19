"""The networks of a model for a page: layers that ``network.js`` computes, and packed weights."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor, nn

from worldmodel.evaluation.probes import MLPProbe
from worldmodel.models import WorldModel
from worldmodel.models.heads import PATCH, PatchDecoder
from worldmodel.models.predictors import DirectPredictor, IdentityPredictor, ResidualPredictor

_ALIGNMENT = 4
_LARGE = 2**17
"""Numbers from which a matrix of the decoder is packed in bytes, if half precision is too large."""

_PREDICTORS: Mapping[type[nn.Module], str] = {
    ResidualPredictor: "residual",
    DirectPredictor: "direct",
    IdentityPredictor: "identity",
}
_ACTIVATIONS: Mapping[type[nn.Module], str] = {nn.ReLU: "relu", nn.SiLU: "silu", nn.GELU: "gelu"}


class Weights:
    """Arrays packed one after another, for a page.

    An entry of the index is ``[kind, offset, count]``: ``f4`` and ``f2`` are floating-point
    numbers of 4 and 2 bytes, and ``i1`` signed bytes with a factor for each row of the matrix,
    followed by the index of those factors. All are little-endian.

    Args:
        compact: whether large matrices of the decoder are packed in bytes, and the predictor, whose
            errors accumulate, in half precision instead of single.
    """

    def __init__(self, *, compact: bool = False) -> None:
        self.index: list[list[Any]] = []
        self.compact = compact
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, values: ArrayLike | Tensor) -> int:
        """Pack numbers in single precision, and return their place in the index."""
        return self._append("f4", _array(values).astype("<f4"))

    def add_half(self, values: ArrayLike | Tensor) -> int:
        """Pack numbers in half precision, or in single where they are out of its range."""
        array = _array(values)
        if np.abs(array).max(initial=0.0) > np.finfo(np.float16).max:
            return self.add(array)
        return self._append("f2", array.astype("<f2"))

    def add_decoding(self, matrix: ArrayLike | Tensor) -> int:
        """Pack a matrix of the decoder (rows, ...), whose errors do not accumulate over steps."""
        array = _array(matrix)
        if not (self.compact and array.size >= _LARGE):
            return self.add_half(array)
        rows = array.reshape(len(array), -1)
        factors = np.maximum(np.abs(rows).max(axis=1), 1e-12) / 127
        place = self._append("i1", np.rint(rows / factors[:, None]).astype(np.int8))
        self.index[place].append(self.add(factors))
        return place

    def text(self) -> str:
        """Return all bytes in base64."""
        return base64.b64encode(b"".join(self._parts)).decode()

    def _append(self, kind: str, array: np.ndarray) -> int:
        self.index.append([kind, self._size, array.size])
        content = array.tobytes()
        content += bytes(-len(content) % _ALIGNMENT)
        self._parts.append(content)
        self._size += len(content)
        return len(self.index) - 1


def _array(values: ArrayLike | Tensor) -> np.ndarray:
    array: np.ndarray = (
        values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    )
    return array


def pack_model(wm: WorldModel, weights: Weights) -> dict[str, Any]:
    """Describe predictor, heads, domain and decoder, and pack their weights.

    Args:
        wm: a world model with a domain.
        weights: what the weights are added to.

    Returns:
        JSON values for ``network.js``.

    Raises:
        ValueError: If the predictor or the decoder is not a built-in one.
    """
    kind = _PREDICTORS.get(type(wm.predictor))
    if kind is None:
        raise _custom("predictor", wm.spec.predictor, "residual, direct, identity")
    if wm.decoder is not None and type(wm.decoder) is not PatchDecoder:
        raise _custom("decoder", wm.spec.decoder, "patches")
    assert wm.domain is not None
    net = getattr(wm.predictor, "net", nn.Sequential())
    return {
        "predictor": {"kind": kind, "layers": pack_layers(net, weights, half=weights.compact)},
        "reward": pack_layers(wm.reward_head.net, weights),
        "termination": pack_layers(wm.termination_head.net, weights),
        "domain": {name: weights.add(value) for name, value in wm.domain.named_buffers()},
        "decoder": None if wm.decoder is None else _pack_decoder(wm, wm.decoder, weights),
    }


def pack_probe(probe: MLPProbe, weights: Weights) -> dict[str, Any]:
    """Describe the probe that reads angles, and pack its weights."""
    scales = {
        f"{name}_{part}": weights.add(getattr(scaler, f"{part}_"))
        for name, scaler in (("inputs", probe.inputs), ("outputs", probe.outputs))
        for part in ("mean", "scale")
    }
    return {"layers": pack_layers(probe.net, weights), **scales}


def pack_layers(
    layers: nn.Sequential, weights: Weights, *, half: bool = True
) -> list[dict[str, Any]]:
    """Describe linear layers and activations, and pack their weights, in half precision or not."""
    packed: list[dict[str, Any]] = []
    for layer in layers:
        if isinstance(layer, nn.Linear):
            place = weights.add_half(layer.weight) if half else weights.add(layer.weight)
            packed.append(_linear(place, layer.bias, layer, weights))
        else:
            packed.append({"kind": _ACTIVATIONS[type(layer)]})
    return packed


def _linear(place: int, bias: Tensor, layer: nn.Linear, weights: Weights) -> dict[str, Any]:
    return {
        "kind": "linear",
        "inputs": layer.in_features,
        "outputs": len(bias),
        "weight": place,
        "bias": weights.add(bias),
    }


def _pack_decoder(wm: WorldModel, decoder: PatchDecoder, weights: Weights) -> dict[str, Any]:
    """Describe the decoder; of the layer that draws, only the newest frame of a stack is kept."""
    side, channels = decoder.image_size // PATCH, wm.spec.frame_shape[-1]
    layers: list[dict[str, Any]] = []
    for layer in decoder.layout:
        if isinstance(layer, nn.Linear):
            place = weights.add_decoding(layer.weight)
            layers.append(_linear(place, layer.bias, layer, weights))
        elif isinstance(layer, nn.Conv2d):
            layers.append({"kind": "convolution", "side": side, **_filters(layer, weights)})
        elif not isinstance(layer, nn.Unflatten):
            layers.append({"kind": _ACTIVATIONS[type(layer)]})
    weight, bias = (
        values.unflatten(0, (PATCH * PATCH, wm.spec.frame_stack, channels))[:, -1]
        for values in (decoder.draw.weight, decoder.draw.bias)
    )
    layers.append(
        {
            "kind": "patches",
            "side": side,
            "patch": PATCH,
            "channels": channels,
            "inputs": decoder.draw.in_features,
            "weight": weights.add_half(weight),
            "bias": weights.add(bias),
        }
    )
    return {"size": decoder.image_size, "channels": channels, "layers": layers}


def _filters(layer: nn.Conv2d, weights: Weights) -> dict[str, Any]:
    assert layer.bias is not None
    return {
        "inputs": layer.in_channels,
        "outputs": layer.out_channels,
        "weight": weights.add_half(layer.weight),
        "bias": weights.add(layer.bias),
    }


def _custom(kind: str, name: str, built_in: str) -> ValueError:
    return ValueError(
        f"a page cannot run the {kind} {name!r}: it has JavaScript for the built-in ones only "
        f"({built_in}); export to a directory instead, as ONNX"
    )


def principal_axes(latents: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Find the two directions in which latents vary most.

    Args:
        latents: float32 (N, D).

    Returns:
        Their mean float64 (D,), and the directions (2, D), unit vectors; the second is zero where
        D is 1.
    """
    z = latents.detach().cpu().double().numpy()
    mean = z.mean(axis=0)
    _, directions = np.linalg.eigh((z - mean).T @ (z - mean))  # in ascending order
    axes = np.zeros((2, z.shape[1]))
    axes[: min(2, z.shape[1])] = directions.T[::-1][:2]
    return mean, axes
