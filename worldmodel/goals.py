"""What planning is for, and when it has succeeded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from worldmodel.config import Config
from worldmodel.datasets import environment
from worldmodel.evaluation import pendulum_task
from worldmodel.imagination.planning import Objective, imagined_return, nearness
from worldmodel.models import WorldModel

UPRIGHT_HEIGHT = 0.9
"""Height of the tip, as a share of its range, over which a pendulum is upright."""

NEAR_SHARE = 0.01
"""Share of training latents that are as near a goal image as counts for reached."""

Reached = Callable[[np.ndarray | None, torch.Tensor], bool]
"""Whether a true state (d,) with its latent (1, D) is at the goal."""


@dataclass(frozen=True)
class Goal:
    """An objective and its test.

    Attributes:
        name: As the user gave it.
        objective: For the planner.
        reached: Tells of each step; None if there is nothing to reach.
        criterion: The same in words.
    """

    name: str
    objective: Objective
    reached: Reached | None
    criterion: str


def choose_goal(name: str, config: Config, wm: WorldModel, starts: torch.Tensor) -> Goal:
    """A goal by its name.

    Args:
        name: ``"reward"``, ``"upright"`` (the double pendulum's), or the path of an image.
        config: Of the run.
        wm: Its model.
        starts: float32 (M, D), latents of training observations.

    Raises:
        ValueError: If it is none of these, or does not fit the run.
    """
    if name == "reward":
        return Goal(name, imagined_return, None, "none, the return is all")
    if name == "upright":
        return _upright(config)
    return _image(Path(name), wm, starts)


def _upright(config: Config) -> Goal:
    world = environment(config)
    task = pendulum_task(world["env_id"], world["env_kwargs"])
    if task is None:
        raise ValueError(
            f"only a double pendulum can be upright, and this run is about {world['env_id']}; use "
            "--goal reward, or an image"
        )

    def reached(state: np.ndarray | None, z: torch.Tensor) -> bool:
        assert state is not None
        return bool(task.heights(np.asarray(state, float)[None])[0] > UPRIGHT_HEIGHT)

    return Goal("upright", imagined_return, reached, f"tip above {UPRIGHT_HEIGHT} of its range")


def _image(path: Path, wm: WorldModel, starts: torch.Tensor) -> Goal:
    if not path.is_file():
        raise ValueError(f"goal is {str(path)!r}; expected 'reward', 'upright', or an image's path")
    goal = wm.encode(_observation(path, wm))
    near = torch.quantile((starts - goal).norm(dim=-1), NEAR_SHARE)

    def reached(state: np.ndarray | None, z: torch.Tensor) -> bool:
        return bool((z - goal).norm() <= near)

    criterion = f"latent as near as the nearest {NEAR_SHARE:.0%} of training"
    return Goal(str(path), nearness(goal[0]), reached, criterion)


def _observation(path: Path, wm: WorldModel) -> np.ndarray:
    """The image at rest, as an observation uint8 (1, H, W, S*C)."""
    if not wm.spec.pixels:
        raise ValueError("this model was trained on vectors, so an image means nothing to it")
    height, width, channels = wm.spec.frame_shape
    try:
        image = Image.open(path).convert("L" if channels == 1 else "RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} is no image that can be read: {error}") from error
    resized = np.asarray(image.resize((width, height), Image.Resampling.BOX))
    frame = resized.reshape(height, width, channels)
    return np.concatenate([frame] * wm.frame_stack, -1)[None]
