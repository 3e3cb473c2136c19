"""What a run directory or a replay buffer holds, in a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worldmodel.data import ReplayBuffer
from worldmodel.datasets import summary
from worldmodel.run import Run, RunError


def describe(path: Path) -> dict[str, Any]:
    """Describe a run directory or a replay buffer, as JSON values.

    Raises:
        RunError: it is neither.
        ReplayBufferError: the buffer is damaged.
    """
    if (path / "header.json").exists():
        with ReplayBuffer.open(path) as buffer:
            return summary(buffer)
    run = Run(path)
    if not (path / "config.yaml").exists():
        raise RunError(
            f"{path} is neither a run directory (no config.yaml) nor a replay buffer (no "
            "header.json)"
        )
    description: dict[str, Any] = {
        "path": str(path),
        "finished": run.metrics.exists(),
        "config": run.config().model_dump(mode="json"),
        "parts": sorted(part.stem for part in run.models.glob("*.pth")),
    }
    if run.metrics.exists():
        metrics = run.load_metrics()
        angle = metrics["forecast"]["angle"]
        description["forecast"] = {
            key: angle[key] for key in ("error", "horizon", "reason") if key in angle
        }
        description["effective_rank"] = metrics["collapse"]["effective_rank"]
    return description
