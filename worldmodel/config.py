"""The configuration of a run, and where it comes from: presets, YAML, ``--set`` and keywords.

``Config()`` is what `worldmodel train` does. The resolved configuration is written into the run
directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from worldmodel.agent_config import AgentConfig
from worldmodel.config_errors import explain
from worldmodel.errors import ConfigError
from worldmodel.evaluation_config import Evaluation
from worldmodel.hub import is_hub_reference, local_path
from worldmodel.hyperparameters import (
    DEFAULT_ENV,
    OBJECTIVE_WEIGHTS,
    Data,
    Env,
    Model,
    ObjectiveConfig,
    Phase1,
    Phase2,
    Planning,
    Refinement,
    Section,
    Trackers,
    Training,
)
from worldmodel.plugins import plugin_class
from worldmodel.registry import import_named, reference
from worldmodel.settings import merge, nest_keys, nested

MIN_SIZE = 8
"""Fewest training trajectories."""

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "data": {"size": 64, "steps": 16, "validation_size": 16, "heldout_size": 32},
        "phase1": {"updates": 8, "batch_size": 32},
        "refinement": {"updates": 20},
        "phase2": {"updates": 8, "batch_size": 32, "head_updates": 20},
    },
    "quick": {},
    "standard": {
        "phase1": {"updates": 7813, "weight_decay": 0.1},
        "refinement": {"updates": 1000},
        "phase2": {"updates": 4688},
    },
}
"""What each preset changes in `Config`: about 1, 10 and 50 minutes on two cores."""

FRAME_STACK = 2
PIXEL_DEFAULTS: dict[str, Any] = {"frame_stack": 3, "objective": {"name": "inverse"}}
"""Defaults of models of pixels; a plug-in can override them in `config_defaults`."""

MODES: dict[str, dict[str, Any]] = {
    "pendulum_image": {"env": {"id": DEFAULT_ENV}, "observation": "pixels"},
    "pendulum": {"env": {"id": "DoublePendulum-v0"}, "observation": "vector"},
}
"""The original command line's ``--mode``, as settings."""

OPTIONS: dict[str, tuple[str, ...]] = {
    "env": ("env.id",),
    "env_kwargs": ("env.kwargs",),
    "data": ("data.sources",),
    "wrappers": ("env.wrappers",),
    "frame_skip": ("env.frame_skip",),
    "observation": ("observation",),
    "observation_key": ("env.observation_key",),
    "size": ("data.size",),
    "steps": ("data.steps",),
    "policy": ("data.policy",),
    "state_key": ("data.state_key",),
    "data_dir": ("data.dir",),
    "updates": ("phase1.updates",),
    "decoder_updates": ("phase2.updates",),
    "workers": ("data.workers",),
    "epochs": ("phase1.epochs",),
    "decoder_epochs": ("phase2.epochs",),
    "batch_size": ("phase1.batch_size", "phase2.batch_size"),
    "image_size": ("image_size",),
    "frame_stack": ("frame_stack",),
    "objective": ("objective.name",),
    "encoder": ("model.encoder",),
    "decoder": ("model.decoder",),
    "predictor": ("model.predictor",),
    "readout": ("evaluation.readout",),
    "seed": ("seed",),
    "device": ("device",),
    "output_dir": ("output_dir",),
    "trackers": ("trackers",),
}
"""Keyword arguments of `worldmodel.train`, which are the options of the command: name -> keys."""


def override(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge like `merge`, without values of `base` that follow from those that `changes` sets.

    A resolved configuration holds the weights of its objective, the offsets of its horizon, the
    encoder of its observation, and updates or epochs; changing the first removes the second.
    """
    derived = {
        ("objective", "name"): ("objective", [*OBJECTIVE_WEIGHTS["vicreg"]]),
        ("objective", "horizon"): ("objective", ["offsets"]),
        ("objective", "offsets"): ("objective", ["horizon"]),
        ("observation",): ("model", ["encoder"]),
        ("phase1", "epochs"): ("phase1", ["updates"]),
        ("phase1", "updates"): ("phase1", ["epochs"]),
        ("phase2", "epochs"): ("phase2", ["updates"]),
        ("phase2", "updates"): ("phase2", ["epochs"]),
    }
    cleaned = {k: dict(v) if isinstance(v, Mapping) else v for k, v in base.items()}
    for path, (section, keys) in derived.items():
        value: Any = changes
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None and isinstance(cleaned.get(section), dict):
            for key in keys:
                cleaned[section].pop(key, None)
    return merge(cleaned, changes)


def longest_horizon(steps: Any, frame_stack: Any) -> int:
    """Return the longest horizon in trajectories of `steps` transitions; 1 without numbers."""
    numbers = isinstance(steps, int) and isinstance(frame_stack, int)
    return max(1, steps + 1 - frame_stack) if numbers else 1


class Config(Section):
    """A run, from its data to its agents.

    Attributes:
        env: the environment.
        observation: ``pixels``, or ``vector`` for one-dimensional observations.
        image_size: side of the square frames in pixels, a multiple of 16.
        frame_stack: frames S per observation.
        seed: of initialization and of the order of the data.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        output_dir: where run directories are made.
        trackers: ``tensorboard``, which is always written, and ``wandb`` or ``trackio``.
    """

    env: Env = Env()
    observation: Literal["pixels", "vector"] = "pixels"
    image_size: int = Field(default=64, ge=16, le=256, multiple_of=16)
    frame_stack: int = Field(default=FRAME_STACK, ge=1, le=8)
    seed: int = Field(default=0, ge=0, lt=2**32)
    device: str = "auto"
    output_dir: Path = Path("results")
    trackers: Trackers = ("tensorboard",)
    data: Data = Data()
    model: Model = Model()
    objective: ObjectiveConfig = ObjectiveConfig()
    phase1: Phase1 = Phase1()
    refinement: Refinement = Refinement()
    phase2: Phase2 = Phase2()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    planning: Planning = Planning()
    agent: AgentConfig = AgentConfig()

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, values: Any) -> Any:
        """Fill in defaults of the plug-in, and those that fit the observation and own data."""
        if not isinstance(values, dict):
            return values
        values = {
            name: value.model_dump(exclude_unset=True) if isinstance(value, Section) else value
            for name, value in values.items()
        }
        sections = {name: values.get(name, {}) for name in ("env", "data", "objective", "model")}
        if not all(isinstance(section, dict) for section in sections.values()):
            return values  # reported by the validation of the section
        plugin = plugin_class(sections["env"].get("id", DEFAULT_ENV))
        vectors = merge(plugin.config_defaults, values).get("observation") == "vector"
        defaults = merge({} if vectors else PIXEL_DEFAULTS, plugin.config_defaults)
        filled = merge(defaults, values)
        if "size" in filled.get("data", {}):
            filled["data"] = {"min_steps": 0, **filled["data"]}
        objective = {"horizon": ObjectiveConfig().horizon, **defaults.get("objective", {})}
        wanted = objective.pop("horizon")
        if not {"horizon", "offsets"} & sections["objective"].keys():
            steps = filled.get("data", {}).get("steps", Data().steps)
            longest = longest_horizon(steps, filled.get("frame_stack", FRAME_STACK))
            objective["horizon"] = min(wanted, longest)
        filled["objective"] = {**objective, **sections["objective"]}
        if sections["data"].get("sources"):
            own = {"size": 0, "policy": "recorded"}
            given = {name: sections["data"].get(name, own[name]) for name in own}
            filled["data"] = {**filled["data"], **given}
        if vectors:
            filled["model"] = {"encoder": "mlp", **sections["model"]}
        return filled

    @model_validator(mode="after")
    def _check_data(self) -> Self:
        if self.data.size < MIN_SIZE and not (self.data.sources and self.data.size == 0):
            raise ValueError(
                f"data.size {self.data.size} is too small: expected at least {MIN_SIZE}"
            )
        longest = longest_horizon(self.data.steps, self.frame_stack)
        if self.objective.horizon > longest and not self.data.sources:
            raise ValueError(
                f"objective.horizon {self.objective.horizon} does not fit trajectories of "
                f"{self.data.steps} steps with {self.frame_stack} stacked frames: at most {longest}"
            )
        return self


def from_options(mode: str | None = None, **options: Any) -> dict[str, Any]:
    """Convert keyword arguments to nested values; those that are None are left out.

    Classes and functions become ``module:Name``, see `worldmodel.registry.reference`.

    Args:
        mode: a key of `MODES`, below the other options.
        options: keys of `OPTIONS`.

    Raises:
        ConfigError: there is no such mode.
        TypeError: there is no such option.
    """
    if mode is not None and mode not in MODES:
        raise ConfigError(f"mode: expected {' or '.join(map(repr, MODES))}, got {mode!r}")
    values: dict[str, Any] = MODES[mode] if mode is not None else {}
    for name, value in options.items():
        if name not in OPTIONS:
            known = ["mode", *OPTIONS, "preset", "config", "callbacks", "progress"]
            similar = get_close_matches(name, known, 1)
            hint = f" (did you mean {similar[0]!r}?)" if similar else ""
            raise TypeError(
                f"unexpected keyword argument {name!r}{hint}; expected {', '.join(known)}, or "
                "settings={...} for any other key of the configuration"
            )
        if name == "steps" and value is not None and options.get("data") is not None:
            raise ConfigError(
                "steps applies to collected data only; recorded episodes keep their length: "
                "remove --steps"
            )
        if name == "policy" and isinstance(value, str | Path) and is_hub_reference(value):
            value = str(local_path(value))  # the commit of today, also when the run is resumed
        if value is not None:
            items = value if isinstance(value, list | tuple) else None
            plain = _plain(value) if items is None else [_plain(item) for item in items]
            for key in OPTIONS[name]:
                values = merge(values, nested(key, plain))
    return values


def _plain(value: Any) -> Any:
    return reference(value) if callable(value) else value


def build_config(*layers: Mapping[str, Any], preset: str = "quick") -> Config:
    """Validate a preset with layers laid over it, the last one on top.

    The keys of a layer are nested or dotted: ``{"phase1.updates": 20}``.

    Raises:
        ConfigError: lists every unknown key and every bad value.
    """
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}, expected one of {', '.join(PRESETS)}")
    values: dict[str, Any] = PRESETS[preset]
    for layer in layers:
        values = override(values, nest_keys(layer))
    _import_env_module(values)
    return validate(_adopt_env(values))


def _adopt_env(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Use the environment and policy recorded in own data, unless others are given."""
    data = values.get("data")
    given = data.get("sources") if isinstance(data, Mapping) else None
    sources = list(given) if isinstance(given, list | tuple) else [given]
    env, usable = values.get("env", {}), all(isinstance(each, str | Path) for each in sources)
    if not (sources and usable and isinstance(env, Mapping) and env.get("id") is None):
        return values
    from worldmodel.data.own_data import known_env
    from worldmodel.data.reader import ReadOptions

    options = ReadOptions(str(values.get("observation", "pixels")), env.get("observation_key"))
    try:
        found = known_env([str(source) for source in sources], options)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    kept = {key: found[key] for key in ("id", "frame_skip", "observation_key") if key in found}
    recorded = {"policy": found.get("policy") or "recorded", "env_kwargs": found.get("kwargs", {})}
    return merge({"env": {"id": None, **kept}, "data": recorded}, values)


def _import_env_module(values: Mapping[str, Any]) -> None:
    """Import the module of a ``module:id``, which may register a plug-in with defaults."""
    env = values.get("env")
    if not isinstance(env, Mapping) or ":" not in str(env.get("id", "")):
        return
    try:
        import_named(str(env["id"]).rpartition(":")[0])
    except ImportError as error:
        raise ConfigError(
            f"env.id: cannot import the module of {env['id']!r} ({error}); expected module:id or "
            "module:Name of an importable module: run the command where the module is, or set "
            "PYTHONPATH"
        ) from error


def validate(values: Mapping[str, Any]) -> Config:
    """Make a configuration from nested values.

    Raises:
        ConfigError: lists every unknown key and every bad value.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(explain(error, Config)) from error


def dump(config: Config) -> str:
    """Write the resolved configuration as YAML, readable by `read_yaml`."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text
