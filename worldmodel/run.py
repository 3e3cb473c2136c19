"""A run directory: everything that one training made, and what exact resumption needs."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from worldmodel.config import DEFAULT_ENVS, Config, ConfigError, dump, read_yaml, validate
from worldmodel.files import replacing
from worldmodel.models import ModelSpec, WorldModel


class RunError(RuntimeError):
    """A run directory is missing, damaged, or cannot be written."""


class Run:
    """Paths and files of one run directory.

    ::

        config.yaml       the resolved configuration
        models/           spec.json, and one .pth of weights for each part
        checkpoint.pt     what resumption needs
        metrics.json      the evaluation on held-out episodes
        report.html       the same to look at, in one file
        forecast.mp4  reconstruction.png  forecast.png
        tensorboard/      training curves
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.models = self.path / "models"
        self.checkpoint = self.path / "checkpoint.pt"
        self.metrics = self.path / "metrics.json"
        self.report = self.path / "report.html"
        self.tensorboard = self.path / "tensorboard"

    @classmethod
    def create(cls, config: Config) -> Run:
        """Make ``<output_dir>/<mode or environment>_<timestamp>`` with the configuration in it.

        Raises:
            RunError: the directory cannot be made.
        """
        stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
        run = cls(config.output_dir / f"{_name(config)}_{stamp}")
        for attempt in range(2, 100):
            if not run.path.exists():
                break
            run = cls(config.output_dir / f"{_name(config)}_{stamp}_{attempt}")
        try:
            run.models.mkdir(parents=True)
            with replacing(run.path / "config.yaml") as path:
                path.write_text(dump(config), encoding="utf-8")
        except OSError as error:
            raise RunError(
                f"cannot write the run directory {run.path}: {error.strerror}; choose another "
                "place with --output-dir"
            ) from error
        return run

    def config(self) -> Config:
        """The configuration that the run was made with.

        Raises:
            RunError: this is no run directory, or its configuration is damaged.
        """
        path = self.path / "config.yaml"
        if not path.is_file():
            raise RunError(
                f"{self.path} is not a run directory: it has no config.yaml; give a directory that "
                "`worldmodel train` made, such as results/pendulum_image_20260101_120000"
            )
        try:
            return validate(read_yaml(path))
        except ConfigError as error:
            raise RunError(f"{path} is damaged: {error}") from error

    def save_spec(self, spec: ModelSpec) -> None:
        """Write the sizes of the model."""
        with replacing(self.models / "spec.json") as path:
            path.write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def save_weights(self, name: str, module: nn.Module) -> None:
        """Write the state dict of one part to ``models/<name>.pth``."""
        with replacing(self.models / f"{name}.pth") as path:
            torch.save(module.state_dict(), path)

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write what resumption needs."""
        with replacing(self.checkpoint) as path:
            torch.save(state, path)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Read what resumption needs; None before the first checkpoint.

        Raises:
            RunError: the file is damaged.
        """
        if not self.checkpoint.exists():
            return None
        return _read_weights(self.checkpoint)

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Write the evaluation."""
        with replacing(self.metrics) as path:
            path.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")

    def load_metrics(self) -> dict[str, Any]:
        """Read the evaluation.

        Raises:
            RunError: the file is damaged.
        """
        return read_json(self.metrics, f"`worldmodel evaluate {self.path}` writes it anew")

    def load_model(self, device: torch.device) -> WorldModel:
        """Build the model and load its weights, in evaluation mode.

        Raises:
            RunError: training has not finished, or a file is damaged.
        """
        spec_path = self.models / "spec.json"
        try:
            spec = ModelSpec.model_validate_json(spec_path.read_text(encoding="utf-8"))
        except OSError as error:
            self.config()
            raise RunError(f"{self.path} holds no model yet: {_resume_hint(self.path)}") from error
        except ValidationError as error:
            raise RunError(f"{spec_path} is damaged: {error}") from error
        model = WorldModel(spec)
        for name, module in model.named_children():
            path = self.models / f"{name}.pth"
            if not path.is_file():
                raise RunError(f"{path} is missing: {_resume_hint(self.path)}")
            _load_state(module, path)
        return model.to(device).eval().requires_grad_(False)


def read_json(path: Path, mend: str) -> dict[str, Any]:
    """Read a JSON file of a run.

    Raises:
        RunError: it is damaged; the message ends with how to mend that.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}); {mend}") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} is damaged (it holds no JSON object); {mend}")
    return content


def _name(config: Config) -> str:
    """The mode, or the environment where it is not the mode's own."""
    if config.env.id == DEFAULT_ENVS[config.mode]:
        return config.mode
    return config.env.id.replace("/", "-").replace(":", "-")


def _resume_hint(path: Path) -> str:
    return f"the run has not finished; go on with `worldmodel train --resume {path}`"


def _read_weights(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for damaged files
        raise RunError(f"{path} is damaged and cannot be read: {error}") from error


def _load_state(module: nn.Module, path: Path) -> None:
    try:
        module.load_state_dict(_read_weights(path))
    except RuntimeError as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{path} does not fit models/spec.json: {error}") from error


def choose_device(name: str) -> torch.device:
    """Turn ``auto`` or a torch device name into a device that works here.

    Raises:
        ValueError: there is no such device on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device {name!r} cannot be used on this machine ({str(error).splitlines()[0]}); "
            "expected auto, cpu, cuda, cuda:N or mps"
        ) from error
    return device


def load(run: str | Path, device: str = "auto") -> WorldModel:
    """Load a trained world model.

    Args:
        run: a run directory, as in ``results/pendulum_image_20260101_120000``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        RunError: there is no finished run in the directory, or a file is damaged.
        ValueError: there is no such device on this machine.
    """
    return Run(run).load_model(choose_device(device))
