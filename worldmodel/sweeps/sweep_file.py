"""The sweep file: configurations and seeds, validated, and expanded into trials."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from worldmodel.config import Config, build_config, override
from worldmodel.config_errors import explain
from worldmodel.errors import ConfigError
from worldmodel.evaluation.metrics import Metrics
from worldmodel.hyperparameters import Section
from worldmodel.settings import nest_keys, nested, read_yaml

DEFAULT_METRICS = (
    "forecast.angle.error.10",
    "forecast.angle.error.40",
    "forecast.latent.error.10",
    "forecast.frames.psnr.10",
    "probes.linear.worst_r2",
    "collapse.effective_rank",
)
"""Columns of the table if the file lists none; those that no run has are left out."""

_ELSEWHERE = {
    "seed": "list it under seeds",
    "output_dir": "it is --output-dir of the command",
    "evaluation.split": "it is evaluate_on",
}
"""Keys of the configuration that a sweep sets itself -> what to write instead."""


def _settings(value: Any) -> Any:
    """Nest dotted keys: ``{"phase1.updates": 2}`` becomes ``{"phase1": {"updates": 2}}``."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return value  # reported by the validation
    return nest_keys(value)


def _distinct(values: list[Any]) -> list[Any]:
    if len({json.dumps(value, sort_keys=True) for value in values}) < len(values):
        raise ValueError("a value is listed twice")
    return values


def _known_metric(path: str) -> str:
    """Check that metrics.json can have a number at a dotted path."""
    kind: Any = Metrics
    done: list[str] = []
    for key in path.split("."):
        options = [arm for arm in get_args(kind) if arm is not NoneType]
        if NoneType in get_args(kind):
            kind = options[0]
        if dataclasses.is_dataclass(kind):
            hints = get_type_hints(kind)
            names = [field.name for field in dataclasses.fields(kind)]
            if key not in names:
                place = ".".join(done) or "metrics.json"
                raise ValueError(f"{place} has no {key!r}; expected one of {', '.join(names)}")
            kind = hints[key]
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif get_origin(kind) in (list, tuple) and key.isdecimal():
            kind = get_args(kind)[0]
        else:
            raise ValueError(f"{'.'.join(done)} has no parts")
        done.append(key)
    if not {int, float} & {kind, *get_args(kind)} or get_origin(kind) in (dict, list, tuple):
        raise ValueError("it is not a number")
    return path


Settings = Annotated[dict[str, Any], BeforeValidator(_settings)]
Values = Annotated[list[Any], Field(min_length=1), AfterValidator(_distinct)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Metric = Annotated[str, AfterValidator(_known_metric)]


class Resources(Section):
    """What Ray reserves for each trial.

    Attributes:
        cpus: cores, and threads of torch.
        gpus: GPUs; a fraction shares one.
    """

    cpus: int = Field(default=1, ge=1)
    gpus: float = Field(default=0, ge=0)


class SweepFile(Section):
    """What a sweep file holds. Settings are keys of the configuration, dotted or nested.

    Attributes:
        preset: the preset below all settings.
        base: settings of all trials.
        variants: name -> settings; names are those of the table.
        grid: dotted key -> values; all combinations, of every variant.
        seeds: seeds of every variant.
        resources: of each trial.
        metrics: dotted paths of numbers in metrics.json.
        evaluate_on: ``validation`` to choose hyperparameters by the results, else ``heldout``.
    """

    preset: Literal["smoke", "quick", "standard"] = "quick"
    base: Settings = Field(default={})
    variants: dict[Annotated[str, Field(min_length=1)], Settings] = Field(default={})
    grid: dict[str, Values] = Field(default={})
    seeds: Annotated[list[Seed], AfterValidator(_distinct)] = Field(default=[0, 1, 2], min_length=1)
    resources: Resources = Resources()
    metrics: list[Metric] | None = Field(default=None, min_length=1)
    evaluate_on: Literal["validation", "heldout"] = "validation"


@dataclass(frozen=True)
class Trial:
    """One variant with one seed.

    Attributes:
        name: name of its run directory.
        variant: name of the variant.
        seed: seed of the training.
        config: configuration of the run.
    """

    name: str
    variant: str
    seed: int
    config: Config


@dataclass(frozen=True)
class Sweep:
    """A validated sweep.

    Attributes:
        source: the file, for messages.
        file: its content, with `grid` expanded into `variants`.
        trials: every variant with every seed, the first seed of all variants first.
        output_dir: where the run directories are.
    """

    source: str
    file: SweepFile
    trials: list[Trial]
    output_dir: Path

    def to_dict(self) -> dict[str, Any]:
        """Return a sweep file without a grid that gives the same trials, as YAML values."""
        return self.file.model_dump(mode="json", exclude={"grid"}, exclude_none=True)


def read_sweep(source: str | Path | Mapping[str, Any], output_dir: str | Path | None) -> Sweep:
    """Read a sweep file and expand it.

    Args:
        source: path of the file, or its content.
        output_dir: where the run directories are; by default ``results/<name of the file>``.

    Raises:
        ConfigError: If it is invalid; the message names the file and every error with its field.
    """
    if isinstance(source, Mapping):
        name, values = "sweep", dict(source)
    else:
        name, values = str(source), read_yaml(Path(source))
    path = Path(output_dir) if output_dir is not None else Path("results", Path(name).stem)
    try:
        file = SweepFile.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{name}: {explain(error, SweepFile)}") from error
    if misplaced := list(_misplaced(file)):
        raise ConfigError(f"{name}: " + "; ".join(misplaced))
    variants = dict(_expand(file))
    if len(variants) < _count(file):
        raise ConfigError(f"{name}: variants and grid give the same name twice; rename a variant")
    file = file.model_copy(update={"variants": variants, "grid": {}})
    return Sweep(name, file, _trials(name, file, path), path)


def _misplaced(file: SweepFile) -> Iterator[str]:
    """Describe the settings that a sweep makes itself."""
    sections = {"base": file.base, **{f"variants.{name}": s for name, s in file.variants.items()}}
    for key, values in file.grid.items():
        sections[f"grid.{key}"] = nested(key, values)
    for place, settings in sections.items():
        for key, instead in _ELSEWHERE.items():
            value: Any = settings
            for part in key.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if value is not None:
                yield f"{place}: {key} does not belong here: {instead}"


def _count(file: SweepFile) -> int:
    combinations = 1
    for values in file.grid.values():
        combinations *= len(values)
    return max(len(file.variants), 1) * combinations


def _expand(file: SweepFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and settings of every combination of a variant and values of the grid."""
    for variant, settings in (file.variants or {"": {}}).items():
        for values in itertools.product(*file.grid.values()):
            parts = [variant] if variant else []
            merged = settings
            for key, value in zip(file.grid, values):
                text = value if isinstance(value, str) else json.dumps(value)
                parts.append(f"{key}={text}")
                merged = override(merged, nested(key, value))
            yield ", ".join(parts) or "base", merged


def _trials(source: str, file: SweepFile, output_dir: Path) -> list[Trial]:
    """Build the configuration of every trial.

    Raises:
        ConfigError: If any is invalid; the message lists every error.
    """
    own = {
        "output_dir": str(output_dir),
        "evaluation": {"split": file.evaluate_on},
    }
    below = {"data": {"workers": file.resources.cpus}}
    trials, errors = [], {}
    for seed, (variant, settings) in itertools.product(file.seeds, file.variants.items()):
        layers = (below, file.base, settings, {**own, "seed": seed})
        try:
            config = build_config(*layers, preset=file.preset)
        except ConfigError as error:
            errors[variant] = str(error)
            continue
        trials.append(Trial(_directory(variant, seed), variant, seed, config))
    if errors:
        raise ConfigError(f"{source}: {_explain_variants(errors, len(file.variants))}")
    _require_distinct(source, file.variants)
    return trials


def _explain_variants(errors: Mapping[str, str], count: int) -> str:
    """Name the variant of each error; errors of all variants are those of the base."""
    texts = list(errors.values())
    if len(errors) == count and len(set(texts)) == 1:
        return f"base: {texts[0]}"
    return "; ".join(f"variants.{name}: {text}" for name, text in errors.items())


def _directory(variant: str, seed: int) -> str:
    slug = re.sub(r"[^\w.+=-]+", "-", variant).strip("-.")
    return f"{slug}_seed{seed}"


def _require_distinct(source: str, variants: Iterable[str]) -> None:
    by_directory: dict[str, list[str]] = {}
    for variant in variants:
        by_directory.setdefault(_directory(variant, 0).casefold(), []).append(variant)
    for directory, names in by_directory.items():
        if len(names) > 1 or directory.startswith("_"):
            raise ConfigError(
                f"{source}: variants {', '.join(map(repr, names))} need names that differ in "
                "letters and digits, because their directories are named after them"
            )
