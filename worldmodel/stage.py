"""What playback needs of a run: its model, its environment and a measure of its errors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from worldmodel.config import Config
from worldmodel.datasets import environment
from worldmodel.evaluation import step_seconds
from worldmodel.evaluation.probe_file import load_probe
from worldmodel.imagination import Domain, load_dream
from worldmodel.models import WorldModel
from worldmodel.playback.meter import Meter, choose_meter
from worldmodel.run import Run, load


@dataclass(frozen=True)
class Stage:
    """A run, opened for playback.

    Attributes:
        run: Its directory.
        config: Its configuration.
        wm: Its model, with a decoder.
        domain: What the model knows.
        meter: Measures dreams.
        dt: Seconds a step.
    """

    run: Path
    config: Config
    wm: WorldModel
    domain: Domain
    meter: Meter
    dt: float


def open_stage(run: Path, device: str = "auto") -> Stage:
    """Open a finished run.

    Raises:
        RunError: There is no finished run.
        ValueError: Its model has no decoder, so there is nothing to show.
    """
    config, wm = Run(run).config(), load(run, device)
    if wm.decoder is None:
        raise ValueError(
            f"{run} was trained on vectors and has no pictures to show; train on pixels, with "
            "--mode pendulum_image"
        )
    dream, world = load_dream(run, wm), environment(config)
    meter = choose_meter(load_probe(run), dream["starts"].cpu().numpy())
    dt = step_seconds(world["env_id"], world["env_kwargs"])
    return Stage(run, config, wm, dream["domain"], meter, dt)
