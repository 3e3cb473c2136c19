"""The directory of a run: its files, written atomically and validated when read.

::

    config.yaml       the resolved configuration
    models/           spec.json, one .pth of weights per part, imagination.pt (domain and start
                      latents), probe.pt
    checkpoint.pt     what resumption needs
    metrics.json      the evaluation on held-out episodes
    report.html       the same as one page that opens offline
    forecast.mp4  reconstruction.png  forecast.png
    signature         shows that this user made the run, see `worldmodel.trust`
    tensorboard/      training curves
    rl/               agents
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from worldmodel.config import MODES, Config, dump, override, validate
from worldmodel.distributed import is_main_process
from worldmodel.errors import ConfigError, RunError
from worldmodel.files import load_tensors, save_tensors, write_json, write_text
from worldmodel.hub import local_path
from worldmodel.models import ModelSpec, WorldModel
from worldmodel.settings import read_yaml
from worldmodel.trust import named_by_config, named_by_spec, require_trust, sign

if TYPE_CHECKING:
    from torch import Tensor

    from worldmodel.evaluation.metrics import Metrics
    from worldmodel.evaluation.probes import MLPProbe
    from worldmodel.imagination import Domain


class RunDirectory:
    """The files of a run; `Run` opens what is in them.

    Args:
        path: path of the directory.
        device: device of the model: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        trust: import the code that an untrusted run names; see `worldmodel.trust`.
    """

    def __init__(self, path: str | Path, device: str = "auto", *, trust: bool = False) -> None:
        self.path = local_path(path)
        self.device = device
        self.trust = trust

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @classmethod
    def create(cls, config: Config, path: Path | None = None) -> Self:
        """Create a run directory with the configuration in it.

        Args:
            config: of the run.
            path: the directory, which may exist already; by default it is a new one,
                ``<output_dir>/<environment>_<timestamp>``.

        Raises:
            RunError: If the directory cannot be created.
        """
        place = path or config.output_dir
        try:
            place.mkdir(parents=True, exist_ok=True)
            place = path or _new_directory(config)
            (place / "models").mkdir(exist_ok=True)
            write_text(place / "config.yaml", dump(config))
            sign(place)
        except OSError as error:
            raise RunError(
                f"cannot write the run directory {place}: {error.strerror}; choose another "
                "place with --output-dir"
            ) from error
        return cls(place, config.device, trust=True)

    @cached_property
    def config(self) -> Config:
        """The configuration that the run was made with.

        Raises:
            RunError: If this is not a run directory, its configuration is damaged, or it is not
                trusted; see `worldmodel.trust`.
        """
        config = self.read_config()
        require_trust(self.path, named_by_config(config), trusted=self.trust)
        return config

    def read_config(self) -> Config:
        """Read the configuration to show it, not to use it.

        Raises:
            RunError: If this is not a run directory, or its configuration is damaged.
        """
        path = self.path / "config.yaml"
        if not path.is_file():
            reason = "it has no config.yaml" if self.path.is_dir() else "it does not exist"
            raise RunError(
                f"{self.path} is not a run directory: {reason}; give a directory that "
                f"`worldmodel train` created, such as {self._example()}"
            )
        try:
            return validate(read_yaml(path))
        except ConfigError as error:
            raise RunError(f"{path} is damaged: {error}") from error

    def _example(self) -> Path:
        """Find the run that the user may have meant: in this directory, or beside it."""
        place = self.path if self.path.is_dir() else self.path.parent
        runs = sorted(place.glob("*/config.yaml"), key=lambda found: found.stat().st_mtime)
        names = [found.parent.name for found in runs]
        if names:
            return place / [names[-1], *get_close_matches(self.path.name, names, 1)][-1]
        return Path("results/pendulum_image_20260101_120000")

    def change_config(self, changes: Mapping[str, Any]) -> None:
        """Change the configuration of the run, also on disk.

        Args:
            changes: nested values.
        """
        self.config = validate(override(self.config.model_dump(mode="json"), changes))
        if is_main_process():
            write_text(self.path / "config.yaml", dump(self.config))
            sign(self.path)

    @property
    def finished(self) -> bool:
        """Whether the run has been trained and evaluated."""
        return (self.path / "metrics.json").is_file()

    def weights_path(self, name: str) -> Path:
        """Return the path of the weights of one of `WorldModel.PARTS`."""
        return self.path / "models" / f"{name}.pth"

    def save_spec(self, spec: ModelSpec) -> None:
        """Write the spec of the model."""
        if is_main_process():
            write_text(self._spec_path, spec.model_dump_json(indent=2) + "\n")
            sign(self.path)

    def save_weights(self, model: WorldModel, names: Sequence[str] | None = None) -> None:
        """Write the weights of some parts, or of all, to ``models/<name>.pth``."""
        for name, part in model.parts().items():
            if is_main_process() and (names is None or name in names):
                save_tensors(self.weights_path(name), part.state_dict())

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write what resumption needs."""
        if is_main_process():
            save_tensors(self.path / "checkpoint.pt", state)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Read what resumption needs; None before the first checkpoint.

        Raises:
            RunError: If the file is damaged.
        """
        path = self.path / "checkpoint.pt"
        return load_tensors(path, "train the run again") if path.exists() else None

    def save_metrics(self, metrics: Metrics) -> None:
        """Write the metrics of the evaluation."""
        write_json(self.path / "metrics.json", metrics.to_dict())
        self.__dict__["metrics"] = metrics

    def save_probe(self, probe: MLPProbe) -> None:
        """Write the probe that reads angles."""
        save_tensors(self.path / "models" / "probe.pt", probe.state())
        self.__dict__["probe"] = probe

    def save_imagination(self, starts: Tensor, domain: Domain) -> None:
        """Write start latents and domain, and attach them to the model."""
        content = {"starts": starts, "domain": domain.state_dict()}
        save_tensors(self._imagination_path, content)
        if (model := self.__dict__.get("model")) is not None:
            model.starts, model.domain = starts, domain

    def load_imagination(self, model: WorldModel) -> tuple[Tensor, Domain]:
        """Read start latents (M, D) and domain, onto the device of the model that they are of.

        Raises:
            RunError: If the file is damaged, or is of another model.
        """
        from worldmodel.imagination import Domain

        path = self._imagination_path
        content = load_tensors(path, self._evaluate_hint, model.device)
        try:
            starts, domain = content["starts"], Domain.from_state_dict(content["domain"])
            domain.require_fit(starts, model.spec.latent_dim)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            hint = f"delete it, then {self._evaluate_hint}"
            raise RunError(f"{path} is damaged ({error!r}); {hint}") from error
        return starts, domain.to(model.device)

    @property
    def has_imagination(self) -> bool:
        """Whether start latents and domain are saved."""
        return self._imagination_path.is_file()

    def read_spec(self) -> ModelSpec:
        """Read the spec of the model, to make it.

        Raises:
            RunError: If training has not started, the file is damaged, or the run is not trusted.
        """
        spec = self.parse_spec()
        require_trust(self.path, named_by_spec(spec), trusted=self.trust)
        return spec

    def parse_spec(self) -> ModelSpec:
        """Read the spec of the model to show it, not to use it.

        Raises:
            RunError: If training has not started, or the file is damaged.
        """
        try:
            return ModelSpec.model_validate_json(self._spec_path.read_text(encoding="utf-8"))
        except OSError as error:
            self.read_config()  # a clearer error if this is not a run directory at all
            raise RunError(f"{self.path} holds no model yet: {self._resume_hint}") from error
        except (ValidationError, UnicodeDecodeError) as error:
            raise RunError(f"{self._spec_path} is damaged: {error}") from error

    @property
    def _spec_path(self) -> Path:
        return self.path / "models" / "spec.json"

    @property
    def _imagination_path(self) -> Path:
        return self.path / "models" / "imagination.pt"

    @property
    def _resume_hint(self) -> str:
        return f"the run has not finished; resume it with `worldmodel train --resume {self.path}`"

    @property
    def _evaluate_hint(self) -> str:
        return f"run `worldmodel evaluate {self.path}` to rewrite it"


def _new_directory(config: Config) -> Path:
    stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
    path = base = config.output_dir / f"{_directory_name(config)}_{stamp}"
    for attempt in range(2, 1000):
        try:
            path.mkdir()
            break
        except FileExistsError:
            path = base.with_name(f"{base.name}_{attempt}")
    return path


def _directory_name(config: Config) -> str:
    """Name a run by the mode of the original command line, else by the environment."""
    if config.env.id is None:
        from worldmodel.data.own_data import source_name

        return source_name(config.data.sources)
    for mode, values in MODES.items():
        if values == {"env": {"id": config.env.id}, "observation": config.observation}:
            return mode
    return config.env.id.replace("/", "-").replace(":", "-")
