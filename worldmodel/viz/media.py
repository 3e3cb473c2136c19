"""Media of the report: episodes to play, and a map of the latent space."""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import SparseEfficiencyWarning
from sklearn.manifold import Isomap

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation.forecast import frame_mse
from worldmodel.evaluation.probes import Probes, states_at
from worldmodel.latents import encode_at
from worldmodel.models import WorldModel
from worldmodel.plugins import Energy
from worldmodel.viz.canvas import to_rgb
from worldmodel.viz.forecast_error import AngleError
from worldmodel.viz.video import ForecastClip, forecast_clip

EPISODES = 4
"""Held-out episodes in the player."""
POINTS = 1200
"""Held-out latents on the map."""

_TILE, _THUMBNAIL = 96, 48
"""Longest side in pixels of the frames of the player and of the map."""
_NEIGHBORS = 12
_QUALITY = 82
_MAX_SIDE = 16_000
"""Longest side of a picture in pixels; the WebP format allows 16,383."""

_GREEK = {"alpha": "α", "beta": "β", "theta": "θ", "phi": "φ", "psi": "ψ", "omega": "ω"}


@dataclass(frozen=True)
class Media:
    """JSON values for the page.

    Attributes:
        player: content of the player: `episodes`, each with `seed` and `errors` (K+1, of the
            forecast at every step); `measure` of the errors; `steps` K+1; and `sheet`, whose tiles
            are, for each episode, ground truth, forecast and reconstruction at every step. None
            without a decoder.
        latent: content of the map: `x` and `y` of N latents in two dimensions, `quantities`
            (`name`, `unit`, `cyclic`, N `values`), and `sheet`, a tile for each (None for vectors).
    """

    player: dict[str, Any] | None
    latent: dict[str, Any]


def gather_media(
    wm: WorldModel,
    heldout: ReplayBuffer,
    probes: Probes | None,
    energy: Energy | None = None,
    *,
    seed: int = 0,
) -> Media:
    """Forecast some held-out episodes and project some held-out latents.

    Args:
        wm: the world model.
        heldout: held-out episodes.
        probes: fitted probes. If they read angles, forecasts are measured by angle errors, else by
            frame errors. None if there are no true states.
        energy: function from true states (N, d) to energies (N,), for environments whose readout
            does not include them.
        seed: random seed of the choice of latents.
    """
    player = None if wm.decoder is None else _player(wm, heldout, probes)
    return Media(player, _latent_map(wm, heldout, probes, energy, seed))


def readable(name: str) -> str:
    """Make the name of a target readable: ``sin_theta1`` becomes ``sin θ1``."""
    for word, letter in _GREEK.items():
        name = name.replace(word, letter)
    return name.replace("_", " ")


def sprite_sheet(frames: np.ndarray, side: int) -> dict[str, Any]:
    """Arrange frames row by row in one WebP picture.

    Args:
        frames: uint8 (N, H, W, C), C 1 or 3.
        side: longest side of a tile in pixels; larger frames are reduced to it.

    Returns:
        `uri`, `width` and `height` of a tile, and `columns`: tile i is in column i % columns and
        row i // columns.
    """
    height, width = _tile_size(frames.shape[1], frames.shape[2], side)
    columns = min(max(int(np.ceil(np.sqrt(len(frames) * height / width))), 1), _MAX_SIDE // width)
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height))
    for i, frame in enumerate(frames):
        tile = Image.fromarray(to_rgb(frame))
        if tile.size != (width, height):
            tile = tile.resize((width, height), Image.Resampling.BOX)
        sheet.paste(tile, (i % columns * width, i // columns * height))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=_QUALITY, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
    return {"uri": uri, "width": width, "height": height, "columns": columns}


def project(latents: np.ndarray) -> np.ndarray:
    """Project latents to two dimensions so that distances along the data are kept.

    Isomap (Tenenbaum, de Silva and Langford, Science 290, 2319, 2000) with 12 neighbors; the
    latents use too many dimensions for two principal components to show their structure.

    Args:
        latents: float (N, D), N >= 3.

    Returns:
        float64 (N, 2), each axis with a standard deviation of 1 (0 if all latents are equal).
    """
    if not np.ptp(latents, axis=0).any():
        return np.zeros((len(latents), 2))
    neighbors = min(_NEIGHBORS, len(latents) - 1)
    isomap = Isomap(n_neighbors=neighbors, n_components=2, eigen_solver="dense")
    with warnings.catch_warnings():  # clusters of equal latents are connected, edge by edge
        warnings.filterwarnings("ignore", "The number of connected components", UserWarning)
        warnings.simplefilter("ignore", SparseEfficiencyWarning)
        xy: np.ndarray = isomap.fit_transform(latents.astype(np.float64))
    spread = xy.std(axis=0)
    return xy / np.where(spread > 0.0, spread, 1.0)


def _tile_size(height: int, width: int, side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _player(wm: WorldModel, heldout: ReplayBuffer, probes: Probes | None) -> dict[str, Any]:
    length = int(np.median(heldout.lengths))
    chosen = np.flatnonzero(heldout.lengths >= length)[:EPISODES]
    windows = heldout.windows(chosen, np.zeros_like(chosen), length)
    clips = [forecast_clip(wm, f, a) for f, a in zip(windows.frames, windows.actions, strict=True)]
    error = None
    if probes is not None and probes.readout.angle_names:
        error = AngleError(probes.mlp, probes.readout)
    episodes = [
        {"seed": int(heldout.seeds[e]), "errors": _rounded(_errors(wm, heldout, error, e, s))}
        for e, s in zip(chosen, clips, strict=True)
    ]
    tiles = [part for s in clips for part in (s.truth, s.forecast, s.reconstruction)]
    return {
        "episodes": episodes,
        "measure": "frame error, gray levels" if error is None else error.title,
        "steps": len(clips[0].truth),
        "sheet": sprite_sheet(np.concatenate(tiles), _TILE),
    }


def _errors(
    wm: WorldModel,
    heldout: ReplayBuffer,
    error: AngleError | None,
    episode: int,
    played: ForecastClip,
) -> np.ndarray:
    """Compute errors at every step (K+1,): of angles, or root mean square over pixels."""
    if error is None:
        rmse: np.ndarray = np.sqrt(frame_mse(played.forecast, played.truth))
        return rmse
    start, steps = np.array([wm.frames.first]), len(played.truth)
    states = heldout.states(np.array([episode]), start, steps)[0]
    return error(played.latents, played.encoded, states)


def _latent_map(
    wm: WorldModel,
    heldout: ReplayBuffer,
    probes: Probes | None,
    energy: Energy | None,
    seed: int,
) -> dict[str, Any]:
    episodes, times = wm.frames.sample_times(heldout, POINTS, seed)
    xy = project(encode_at(wm, heldout, episodes, times))
    quantities = []
    if probes is not None:
        states = states_at(heldout, episodes, times)
        quantities = _state_quantities(probes, energy, states)
    quantities.append(_quantity("time in episode", "steps", times))
    sheet = None
    if len(heldout.frame_shape) == 3:
        frames = heldout.windows(episodes, times, 1).frames[:, 0]
        sheet = sprite_sheet(frames, _THUMBNAIL)
    return {
        "x": _rounded(xy[:, 0]),
        "y": _rounded(xy[:, 1]),
        "quantities": quantities,
        "sheet": sheet,
    }


def _state_quantities(
    probes: Probes, energy: Energy | None, states: np.ndarray
) -> list[dict[str, Any]]:
    """List angles, targets of the readout, and energy of states (N, d)."""
    readout = probes.readout
    angles = zip(readout.angle_names, readout.true_angles(states).T, strict=True)
    targets = zip(readout.names, readout.units, readout.targets(states).T, strict=True)
    quantities = [_quantity(name, "rad", values, cyclic=True) for name, values in angles]
    quantities += [_quantity(readable(name), unit, values) for name, unit, values in targets]
    if energy is not None and "energy" not in readout.names:
        quantities.append(_quantity("energy", "J", energy(states)))
    return quantities


def _quantity(name: str, unit: str, values: np.ndarray, *, cyclic: bool = False) -> dict[str, Any]:
    return {"name": name, "unit": unit, "cyclic": cyclic, "values": _rounded(values)}


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(v), 4) for v in values]
