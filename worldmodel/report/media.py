"""What a report shows of a model beside figures: forecasts to play, and latents to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.manifold import Isomap

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation.forecast import angle_errors
from worldmodel.evaluation.images import frame_mse
from worldmodel.evaluation.observations import encode_at, sample_times, states_at
from worldmodel.evaluation.probes import MLPProbe
from worldmodel.models import WorldModel
from worldmodel.playback.scenes import Scene, scene
from worldmodel.report.sprites import sprite_sheet

EPISODES = 4
POINTS = 1200
_TILE, _THUMBNAIL = 96, 48
_NEIGHBOURS = 12
_STATE_NAMES = ("θ1", "θ2", "ω1", "ω2")
_STATE_UNITS = ("rad", "rad", "rad/s", "rad/s")


@dataclass(frozen=True)
class Media:
    """JSON values for the page.

    Attributes:
        player: `episodes`, each with `seed` and `errors` (K+1, of the forecast at every step),
            `unit` of the errors, `steps` K+1, and `sheet`, whose tiles are, for every episode, the
            truth, the forecast and the reconstruction of every step. None without a decoder.
        latent: `x` and `y` of N latents in two dimensions, `quantities` (`name`, `unit`,
            `cyclic`, N `values`), and `sheet`, a tile for each (None for vectors).
    """

    player: dict[str, Any] | None
    latent: dict[str, Any]


def gather_media(
    wm: WorldModel,
    heldout: ReplayBuffer,
    probe: MLPProbe | None,
    energy: Any = None,
    *,
    seed: int = 0,
) -> Media:
    """Forecast some held-out episodes and project some held-out latents.

    Args:
        wm: The world model.
        heldout: Held-out episodes.
        probe: Reads angles, to tell the forecasts' errors; None tells the frames' instead.
        energy: States (N, 4) to energies (N,) in J; None leaves it out.
        seed: Of the choice of latents.
    """
    player = None if wm.decoder is None else _player(wm, heldout, probe)
    return Media(player, _latent(wm, heldout, probe, energy, seed))


def _player(wm: WorldModel, heldout: ReplayBuffer, probe: MLPProbe | None) -> dict[str, Any]:
    length = int(np.median(heldout.lengths))
    chosen = np.flatnonzero(heldout.lengths >= length)[:EPISODES]
    windows = heldout.windows(chosen, np.zeros_like(chosen), length)
    scenes = [scene(wm, f, a) for f, a in zip(windows.frames, windows.actions, strict=True)]
    errors = [_errors(wm, heldout, probe, e, s) for e, s in zip(chosen, scenes, strict=True)]
    tiles = [part for s in scenes for part in (s.truth, s.forecast, s.reconstruction)]
    return {
        "episodes": [
            {"seed": int(heldout.seeds[e]), "errors": _rounded(error)}
            for e, error in zip(chosen, errors, strict=True)
        ],
        "unit": "angle error, rad" if probe is not None else "frame error, grey levels",
        "steps": len(scenes[0].truth),
        "sheet": sprite_sheet(np.concatenate(tiles), _TILE),
    }


def _errors(
    wm: WorldModel, heldout: ReplayBuffer, probe: MLPProbe | None, episode: int, played: Scene
) -> np.ndarray:
    """Of every step (K+1,): mean over both angles in rad, or root mean square over pixels."""
    if probe is None:
        return np.sqrt(frame_mse(played.forecast, played.truth))
    first = wm.frame_stack - 1
    true = heldout.states(np.array([episode]), np.array([first]), len(played.truth))[0, :, :2]
    return angle_errors(probe.angles(played.latents), true).mean(axis=1)


def _latent(
    wm: WorldModel, heldout: ReplayBuffer, probe: MLPProbe | None, energy: Any, seed: int
) -> dict[str, Any]:
    episodes, times = sample_times(heldout, wm.frame_stack, POINTS, seed)
    xy = project(encode_at(wm, heldout, episodes, times))
    quantities = []
    if probe is not None:
        states = states_at(heldout, episodes, times)
        for name, unit, values in zip(_STATE_NAMES, _STATE_UNITS, states.T, strict=True):
            quantities.append(_quantity(name, unit, values, cyclic=unit == "rad"))
        if energy is not None:
            quantities.append(_quantity("energy", "J", energy(states)))
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


def project(latents: np.ndarray) -> np.ndarray:
    """Lay latents out in the plane by their distances along the data.

    Isomap (Tenenbaum, de Silva and Langford, Science 290, 2319, 2000) on 12 neighbours; the
    latent is spread over too many dimensions for two principal components to show much.

    Args:
        latents: float (N, D), N >= 3.

    Returns:
        float64 (N, 2), each axis with a standard deviation of 1 (0 if all latents are one).
    """
    neighbours = min(_NEIGHBOURS, len(latents) - 1)
    flat = Isomap(n_neighbors=neighbours, n_components=2, eigen_solver="dense")
    xy = flat.fit_transform(latents.astype(np.float64))
    spread = xy.std(axis=0)
    return xy / np.where(spread > 0.0, spread, 1.0)


def _quantity(name: str, unit: str, values: np.ndarray, *, cyclic: bool = False) -> dict[str, Any]:
    return {"name": name, "unit": unit, "cyclic": cyclic, "values": _rounded(values)}


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(v), 4) for v in values]
