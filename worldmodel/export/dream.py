"""The dream as one page: the world model runs in the browser, driven by the visitor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from worldmodel.callbacks import CallbackList
from worldmodel.export.network import Weights, pack_model, pack_probe, principal_axes
from worldmodel.export.starts import Starts, find_starts
from worldmodel.files import replacing
from worldmodel.imagination.vector import TERMINATION_THRESHOLD
from worldmodel.pendulum import STATE_DIM, DoublePendulum, PendulumReadout
from worldmodel.viz.media import sprite_sheet
from worldmodel.viz.page import asset, load_template, source_hash, to_json
from worldmodel.viz.viewer import KEY_PAIRS, SHOWN_STEPS, SPEEDS

if TYPE_CHECKING:
    from worldmodel.run import Run

MAX_BYTES = 6_000_000
"""Largest size of a page."""

_PACKAGE = "worldmodel.export"
_MARK = '<meta name="generator" content="worldmodel export">'
_SCRIPTS = ("network.js", "pendulum.js", "controls.js", "dream.js")
_JOINTS = ("shoulder", "elbow")
_THUMBNAIL = 64
_CLOUD = 600
"""Training latents on the map."""


def write_dream(run: Run, path: Path, callbacks: CallbackList) -> dict[str, Any]:
    """Write one offline HTML file in which the model runs.

    The predictor is embedded in single precision, because its errors accumulate, and decoder and
    heads in half precision, with the latents of some real observations to start at; the encoder is
    not needed. For the double pendulum, the page integrates the true physics beside it. If the page
    would be larger than `MAX_BYTES`, the predictor is embedded in half precision, and large
    matrices of the decoder in 8 bits.

    Args:
        run: a finished run.
        path: path of the HTML file.
        callbacks: callbacks that show progress and messages.

    Returns:
        `path`, `bytes`, and `starts`: their number and where they come from.

    Raises:
        ValueError: If the model has a custom predictor or decoder, the page would be too large, or
            there is another file.
        OSError: If the file cannot be written.
    """
    _require_replaceable(path)
    pack_model(run.model, Weights())  # refuses custom parts before data is collected
    starts = find_starts(run, callbacks)
    page = _render(run, starts, Weights())
    if len(page) > MAX_BYTES:
        page = _render(run, starts, Weights(compact=True))
    if len(page) > MAX_BYTES:
        raise ValueError(
            f"the page would have {len(page) / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:g} MB; "
            "export to a directory instead, as ONNX, or train a smaller decoder (--image-size, "
            "model.width)"
        )
    with replacing(path) as temporary:
        temporary.write_bytes(page)
    count = f"{len(starts.latents)} of {starts.source}"
    return {"path": str(path), "bytes": len(page), "starts": count}


def _require_replaceable(path: Path) -> None:
    """Check that a path is free, or a page that was exported before."""
    if not path.absolute().parent.is_dir():
        raise ValueError(f"cannot write {path}: expected a file in an existing directory")
    if not path.exists():
        return
    if not path.is_file():
        raise ValueError(f"{path} is a directory; expected the path of an HTML file")
    with path.open("rb") as file:
        head = file.read(2000)
    if _MARK.encode() not in head:
        raise ValueError(
            f"{path} exists and is not an earlier export; give another path, or remove it"
        )


def _render(run: Run, starts: Starts, weights: Weights) -> bytes:
    content = _content(run, starts, weights)
    script = "\n".join(asset(_PACKAGE, name) for name in _SCRIPTS)
    script, style = f'(() => {{\n"use strict";\n{script}}})();\n', asset(_PACKAGE, "dream.css")
    page: str = load_template(_PACKAGE, "dream.html").render(
        mark=Markup(_MARK),
        run=content,
        passive=run.config.data.policy == "passive",
        source=starts.source,
        data=to_json(content),
        weights=weights.text(),
        script=Markup(script),
        style=Markup(style),
        script_hash=source_hash(script),
        style_hash=source_hash(style),
    )
    return page.encode()


def _content(run: Run, starts: Starts, weights: Weights) -> dict[str, Any]:
    """Collect the JSON values of the page, and pack its weights."""
    spec, pendulum = run.model.spec, _pendulum(run, starts, weights)
    names = [_JOINTS[joint] for joint in pendulum["joints"]] if pendulum else []
    actions = {
        **spec.actions.model_dump(mode="json"),
        "dim": spec.actions.dim,
        "keys": KEY_PAIRS,
        "names": names or [f"action {i + 1}" for i in range(spec.actions.dim)],
    }
    mean, axes = principal_axes(run.starts)
    latents = run.starts.cpu().numpy().astype(np.float64)
    cloud = (latents[:: -(-len(latents) // _CLOUD)] - mean) @ axes.T
    model = pack_model(run.model, weights)
    return {
        "name": run.path.resolve().name,
        "env": run.config.env.id or "own data",
        "dt": run.dt,
        "speeds": SPEEDS,
        "shownSteps": SHOWN_STEPS,
        "latentDim": spec.latent_dim,
        "actions": actions,
        "threshold": TERMINATION_THRESHOLD,
        "model": model,
        "starts": {
            "count": len(starts.latents),
            "latents": weights.add(starts.latents),
            "sheet": None if starts.frames is None else sprite_sheet(starts.frames, _THUMBNAIL),
        },
        "map": {"mean": weights.add(mean), "axes": weights.add(axes), "cloud": weights.add(cloud)},
        "pendulum": pendulum,
        "weights": weights.index,
    }


def _pendulum(run: Run, starts: Starts, weights: Weights) -> dict[str, Any] | None:
    """Describe the true physics of the double pendulum; None where they are unknown."""
    plugin, states = run.plugin, starts.states
    known = isinstance(plugin, DoublePendulum) and not run.config.env.wrappers
    if not known or states is None or states.shape[1] != STATE_DIM:
        return None
    assert isinstance(plugin, DoublePendulum)
    from worldmodel.envs import physics, raster, task

    readable = run.probe is not None and isinstance(run.readout(STATE_DIM), PendulumReadout)
    return {
        "params": plugin.task.params._asdict(),
        "dt": plugin.task.dt,
        "repeats": run.config.env.frame_skip,
        "joints": list(task.ACTUATED[plugin.task.torque]),
        "maxTorque": float(plugin.task.max_torque),
        "torqueCost": task.TORQUE_COST,
        "speedCost": task.SPEED_COST,
        "stepAngle": physics.STEP_ANGLE,
        "maxSubsteps": physics.MAX_SUBSTEPS,
        "states": states.tolist(),
        "probe": pack_probe(run.probe, weights) if readable and run.probe else None,
        "scene": {
            "background": raster.BACKGROUND,
            "rod1": raster.ROD1,
            "pivot": raster.PIVOT,
            "rod2": raster.ROD2,
            "bob1": raster.BOB1,
            "bob2": raster.BOB2,
            "rodRadius": raster.ROD_RADIUS,
            "pivotRadius": raster.PIVOT_RADIUS,
            "bobRadius": raster.BOB_RADIUS,
            "margin": raster.MARGIN,
        },
    }
