"""The proof of what a model learned: figures, video and pictures from held-out episodes."""

from __future__ import annotations

from rich.console import Console

from worldmodel.config import Config
from worldmodel.datasets import Datasets
from worldmodel.models import WorldModel
from worldmodel.run import Run


def prove(run: Run, config: Config, model: WorldModel, datasets: Datasets, console: Console) -> None:
    raise NotImplementedError
