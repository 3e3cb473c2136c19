"""Goals of planning: what to maximize, and when it is reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from worldmodel.data.frames import resize
from worldmodel.models import WorldModel, imagined_return
from worldmodel.planning.policy import PlanObjective, goal_distance
from worldmodel.run import Run


class StepOutcome(NamedTuple):
    """What is known after a step of the environment, or after its reset.

    Attributes:
        info: of the environment.
        terminated: whether the environment terminated.
        z: float32 (1, D), latent of the observation.
        after_reset: whether it was a reset, whose info may lack entries that those of steps have.
    """

    info: Mapping[str, Any]
    terminated: bool
    z: Tensor
    after_reset: bool = False


GoalTest = Callable[[StepOutcome], bool]
"""Whether a step ended at the goal."""


@dataclass(frozen=True)
class Goal:
    """An objective, and a test of success.

    Attributes:
        name: as the user gave it.
        objective: what the planner maximizes.
        reached: the test of one step; None if there is nothing to reach.
        criterion: what `reached` tests, in words; None without a test.
    """

    name: str
    objective: PlanObjective
    reached: GoalTest | None = None
    criterion: str | None = None


def choose_goal(name: str, run: Run) -> Goal:
    """Choose a goal by its name.

    Args:
        name: ``"reward"``, a goal of the environment's plug-in, or the path of an image.
        run: the run whose model plans.

    Raises:
        ValueError: If it is none of these, or does not fit the run.
    """
    if name == "reward":
        return Goal(name, imagined_return)
    test = run.plugin.goal_test(name)
    if test is not None:
        return Goal(
            name,
            imagined_return,
            _state_test(test, name, run.config.data.state_key),
            run.plugin.goal_description(name),
        )
    return _image_goal(Path(name), run)


def _state_test(test: Callable[[np.ndarray], bool], name: str, state_key: str) -> GoalTest:
    def reached(outcome: StepOutcome) -> bool:
        state = outcome.info.get(state_key)
        if state is None:
            raise ValueError(
                f"goal {name!r} is tested on the true state, and the environment's info has no "
                f"{state_key!r}; set data.state_key, or use another goal"
            )
        return bool(test(np.asarray(state, np.float64)))

    return reached


def _image_goal(path: Path, run: Run) -> Goal:
    if not path.is_file():
        names = dict.fromkeys(("reward", run.plugin.default_goal))
        raise ValueError(
            f"goal is {str(path)!r}, and there is no such file; expected "
            f"{', '.join(map(repr, names))}, or an image's path"
        )
    goal = run.model.encode(_observation(path, run.model))
    objective, reached = goal_distance(goal[0]), latent_test(run, goal)
    return Goal(str(path), objective, reached, latent_criterion(run))


def latent_test(run: Run, goal: Tensor) -> GoalTest:
    """Return the test whether a latent is close to that of a goal (1, D)."""
    quantile = run.config.planning.goal_quantile
    close = torch.quantile((run.starts - goal).norm(dim=-1), quantile)
    return lambda outcome: bool((outcome.z - goal).norm() <= close)


def latent_criterion(run: Run) -> str:
    """Describe what `latent_test` tests."""
    quantile = run.config.planning.goal_quantile
    return f"latent as close as the closest {100 * quantile:g}% of training latents"


def _observation(path: Path, wm: WorldModel) -> np.ndarray:
    """Read an image as an observation at rest, uint8 (1, H, W, S*C)."""
    if not wm.spec.pixels:
        raise ValueError(
            "this model was trained on vectors, so its goal cannot be an image; use goal 'reward'"
        )
    side, _, channels = wm.spec.frame_shape
    try:
        image = Image.open(path).convert("L" if channels == 1 else "RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"cannot read the image {path}: {error}") from error
    frame = resize(np.asarray(image).reshape(image.height, image.width, channels), side)
    observation: np.ndarray = wm.frames.repeat(frame)[None]
    return observation
