"""Training an agent while its learning curve, measured in the real environment, is kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from worldmodel.interrupt import StopRequest
from worldmodel.progress import Advance

POINTS = 10
"""Judgements of a learning curve."""

Judge = Callable[[Any], dict[str, Any]]


@dataclass
class Curve:
    """A learning curve.

    Attributes:
        points: `steps` (of training), `seconds` (of training, judging left out), `mean` (return)
            and `reward_a_step` (both in the real environment, on validation seeds).
        seconds: Of training so far.
    """

    points: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


class Watch(BaseCallback):
    """Judges the agent now and then, shows progress, and stops when asked.

    Args:
        curve: Grows.
        judge: Plays the agent in the real environment.
        every: Steps between two judgements.
        last: Step at which this training ends.
        bar: Shows progress.
        stop: Whether the user asked to stop.
    """

    def __init__(
        self, curve: Curve, judge: Judge, every: int, last: int, bar: Advance, stop: StopRequest
    ) -> None:
        super().__init__()
        self.curve, self.judge, self.every, self.last = curve, judge, every, last
        self.bar, self.stop = bar, stop
        self.due = 0
        self.since = 0.0

    def _on_training_start(self) -> None:
        self.due = self.num_timesteps + self.every
        self.since = time.perf_counter()

    def _on_step(self) -> bool:
        return not self.stop.asked

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self.due and self.num_timesteps < self.last:
            self._measure()
            self.due += self.every
        mean = self.curve.points[-1]["mean"] if self.curve.points else None
        remark = "" if mean is None else f"return {mean:.1f} in the real environment"
        self.bar(min(self.num_timesteps, self.last), remark)

    def _on_training_end(self) -> None:
        self._measure()
        self.logger.dump(self.num_timesteps)
        self.bar(
            min(self.num_timesteps, self.last),
            f"return {self.curve.points[-1]['mean']:.1f} in the real environment",
        )

    def _measure(self) -> None:
        self.curve.seconds += time.perf_counter() - self.since
        judged = self.judge(self.model)
        point = {
            "steps": self.num_timesteps,
            "seconds": self.curve.seconds,
            "mean": judged["mean"],
            "reward_a_step": judged["reward_a_step"],
        }
        self.curve.points.append(point)
        for name in ("mean", "reward_a_step"):
            self.logger.record(f"real/{name}", judged[name])
        self.since = time.perf_counter()
