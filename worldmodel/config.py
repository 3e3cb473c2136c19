"""One typed, validated configuration for a training run, and its presets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Mode = Literal["pendulum_image", "pendulum"]
ObjectiveName = Literal["prediction", "variance", "vicreg", "sigreg"]

PENDULUM_HORIZON = 16

DEFAULT_ENVS = {"pendulum_image": "DoublePendulumPixels-v0", "pendulum": "DoublePendulum-v0"}


class ConfigError(ValueError):
    """The configuration is wrong; the message lists every error at once."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Env(_Section):
    """The environment the model learns. `kwargs` go to ``gym.make``."""

    id: str
    kwargs: dict[str, Any] = {}


class Data(_Section):
    """Trajectories to train on.

    Attributes:
        size: number of trajectories.
        steps: transitions a trajectory; the environment may end it earlier.
        policy: ``passive``, ``random`` (held torques), ``mixed``, or a saved SB3 agent's path.
        env_kwargs: laid over the environment's own while collecting; the pendulum then starts
            anywhere instead of hanging down, if they do not name another `start`.
        validation_size: trajectories with validation seeds, to watch the training.
        heldout_size: trajectories with held-out seeds, to judge the finished model.
        state_key: of the environment's ``info``, where probes find the true state.
        dir: where data sets are kept, one folder for each distinct way of collecting.
    """

    size: int = Field(10_000, ge=8)
    steps: int = Field(30, ge=2)
    policy: str = "passive"
    env_kwargs: dict[str, Any] = {}
    validation_size: int = Field(128, ge=8, le=10_000)
    heldout_size: int = Field(256, ge=4)
    state_key: str = "state"
    dir: Path = Path("data")


class Model(_Section):
    """Sizes and kinds of the networks.

    Attributes:
        latent_dim: size of the latent.
        width: channels of the pixel encoder.
        hidden: width of the predictor.
        predictor: ``residual``; ``direct`` without the residual connection and ``identity``, that
            predicts no change, are there to compare with.
        encoder: of pixels, ``keypoints`` (where things are and how they move) or ``conv``.
    """

    latent_dim: int = Field(64, ge=2, le=4096)
    width: int = Field(16, ge=4, le=256)
    hidden: int = Field(512, ge=8, le=8192)
    predictor: Literal["residual", "direct", "identity"] = "residual"
    encoder: Literal["keypoints", "conv"] = "keypoints"


class Objective(_Section):
    """What phase 1 minimises: MSE to the EMA targets plus regularisers on the predictions.

    Attributes:
        name: fills the weights that are not given, see `OBJECTIVES`.
        horizon: predicted steps K; the predictor is unrolled at every one. 8, and 16 for the double
            pendulum, whose trajectories are long enough.
        offsets: rising steps at which predictions meet targets, from 0, the context's own
            latent, to the horizon; doubling from 1 if not given.
        stop_gradient: the targets come from the EMA encoder and carry no gradient; without, they
            come from the encoder itself and do.
        variance_weight: of the variance hinge.
        covariance_weight: of the covariance penalty.
        sigreg_weight: of the sketched Gaussian statistic, times the batch as in LeJEPA.
        directions: random projections of the sketch.
    """

    name: ObjectiveName = "vicreg"
    horizon: int = Field(8, ge=1)
    offsets: tuple[int, ...] = (0, 1, 2, 4, 8)
    stop_gradient: bool = True
    variance_weight: float = Field(1.0, ge=0)
    covariance_weight: float = Field(0.05, ge=0)
    sigreg_weight: float = Field(0.0, ge=0)
    directions: int = Field(256, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        defaults = OBJECTIVES.get(values.get("name", "vicreg"), OBJECTIVES["vicreg"])
        horizon = values.get("horizon")
        if isinstance(horizon, int) and "offsets" not in values:
            doubling = [2**i for i in range(horizon.bit_length()) if 2**i < horizon]
            values = {**values, "offsets": (0, *doubling, horizon)}
        return {**defaults, **values}

    @model_validator(mode="after")
    def _check_offsets(self) -> Self:
        if not self.offsets or list(self.offsets) != sorted(set(self.offsets)):
            raise ValueError(f"offsets {self.offsets} must be distinct and rising")
        if self.offsets[0] != 0 or self.offsets[-1] != self.horizon:
            raise ValueError(
                f"offsets {self.offsets} must begin at 0 and end at the horizon {self.horizon}"
            )
        return self


OBJECTIVES: dict[str, dict[str, float]] = {
    "prediction": {"variance_weight": 0.0, "covariance_weight": 0.0, "sigreg_weight": 0.0},
    "variance": {"variance_weight": 0.1, "covariance_weight": 0.0, "sigreg_weight": 0.0},
    "vicreg": {"variance_weight": 1.0, "covariance_weight": 0.05, "sigreg_weight": 0.0},
    "sigreg": {"variance_weight": 0.0, "covariance_weight": 0.0, "sigreg_weight": 0.02},
}
"""Weights of the named objectives."""


class _Phase(_Section):
    epochs: int = Field(ge=1)
    batch_size: int = Field(128, ge=8)
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: float = Field(5e-3, gt=0)
    final_learning_rate: float = Field(0.02, ge=0, le=1)
    warmup: int = Field(100, ge=0)


class Phase1(_Phase):
    """Training of the encoder and the predictor. An epoch is one window of each trajectory.

    The momentum of the target encoder goes from `ema_start` to `ema_end` on a cosine.
    """

    epochs: int = Field(50, ge=1)
    weight_decay: float = Field(1e-2, ge=0)
    max_grad_norm: float = Field(5.0, gt=0)
    ema_start: float = Field(0.99, ge=0, le=1)
    ema_end: float = Field(1.0, ge=0, le=1)


class Refinement(_Section):
    """Training of the predictor alone, on latents of the frozen encoder, after phase 1.

    Attributes:
        updates: of the predictor; 0 leaves it out.
        episodes: trajectories that are encoded for it, at most.
        horizon: steps unrolled, at most.
        batch_size: windows an update.
        learning_rate: at its peak.
    """

    updates: int = Field(600, ge=0)
    episodes: int = Field(4000, ge=1)
    horizon: int = Field(8, ge=1)
    batch_size: int = Field(256, ge=8)
    learning_rate: float = Field(1e-3, gt=0)


class Phase2(_Phase):
    """Training of the decoder and the heads on the frozen encoder.

    Attributes:
        head_updates: of the heads alone, afterwards, if the epochs make fewer than 400 updates; 0
            leaves it out.
    """

    epochs: int = Field(100, ge=1)
    head_updates: int = Field(1000, ge=0)


def _longest(steps: Any, frame_stack: Any) -> int:
    """Longest horizon in trajectories of `steps` transitions; 1 for what is no number."""
    numbers = isinstance(steps, int) and isinstance(frame_stack, int)
    return max(1, steps + 1 - frame_stack) if numbers else 1


class Config(_Section):
    """A training run.

    Attributes:
        mode: ``pendulum_image`` learns from pixels, ``pendulum`` from vector observations.
        image_size: side of the square frames in pixels, a multiple of 16.
        seed: of initialisation and of the order of the data.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        output_dir: where run directories are made.
    """

    mode: Mode = "pendulum_image"
    env: Env
    image_size: int = Field(64, ge=16, le=256, multiple_of=16)
    frame_stack: int = Field(2, ge=1, le=8)
    seed: int = Field(0, ge=0)
    device: str = "auto"
    output_dir: Path = Path("results")
    data: Data = Data()
    model: Model = Model()
    objective: Objective = Objective()
    phase1: Phase1 = Phase1()
    refinement: Refinement = Refinement()
    phase2: Phase2 = Phase2()

    @model_validator(mode="before")
    @classmethod
    def _default_env(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        env = values.get("env") or {}
        if isinstance(env, dict):
            mode = str(values.get("mode", "pendulum_image"))
            values = {**values, "env": {"id": DEFAULT_ENVS.get(mode, ""), **env}}
            if str(values["env"]["id"]).rpartition(":")[2] in DEFAULT_ENVS.values():
                return cls._for_pendulum(values)
        return values

    @staticmethod
    def _for_pendulum(values: dict[str, Any]) -> dict[str, Any]:
        """Trajectories that start anywhere, and the pendulum's horizon; what is no section stays
        for validation to tell.
        """
        data, objective = (values.get(name) or {} for name in ("data", "objective"))
        if not isinstance(data, dict) or not isinstance(objective, dict):
            return values
        kwargs = data.get("env_kwargs") or {}
        if isinstance(kwargs, dict):
            data = {**data, "env_kwargs": {"start": "uniform", **kwargs}}
        if not {"horizon", "offsets"} & objective.keys():
            longest = _longest(data.get("steps", Data().steps), values.get("frame_stack", 2))
            objective = {**objective, "horizon": min(PENDULUM_HORIZON, longest)}
        return {**values, "data": data, "objective": objective}

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        longest = _longest(self.data.steps, self.frame_stack)
        if self.objective.horizon > longest:
            raise ValueError(
                f"objective.horizon {self.objective.horizon} does not fit trajectories of "
                f"{self.data.steps} steps with {self.frame_stack} stacked frames: at most {longest}"
            )
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "data": {"size": 64, "steps": 16, "validation_size": 16, "heldout_size": 32},
        "phase1": {"epochs": 4, "batch_size": 32},
        "refinement": {"updates": 20},
        "phase2": {"epochs": 4, "batch_size": 32, "head_updates": 20},
    },
    "quick": {"phase1": {"epochs": 20}, "phase2": {"epochs": 6}},
    "standard": {
        "phase1": {"epochs": 100, "weight_decay": 0.1},
        "refinement": {"updates": 1000},
        "phase2": {"epochs": 60},
    },
}
"""What each preset changes: seconds, minutes and about an hour on two cores."""


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested `base` with `changes` laid over it; neither is altered."""
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if nested else value
    return merged


def parse_setting(text: str) -> dict[str, Any]:
    """Turn ``key.of.section=value``, the value in YAML, into a nested dict.

    Raises:
        ConfigError: there is no key, no ``=``, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{text!r} is not a setting: write key=value, as in phase1.epochs=20")
    try:
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of {text!r} is not YAML: {error}") from error
    for name in reversed(key.strip().split(".")):
        nested = {name: nested}
    return nested


def parse_settings(texts: Sequence[str] | None) -> list[dict[str, Any]]:
    """Each of several settings, see `parse_setting`."""
    return [parse_setting(text) for text in texts or ()]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        ConfigError: the file cannot be read, or is not a mapping in YAML.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}, expected sections and keys")
    return values


def build_config(*layers: dict[str, Any], preset: str = "quick") -> Config:
    """Validate a preset with layers laid over it, the last one on top.

    Raises:
        ConfigError: lists every unknown key and every bad value.
    """
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}, expected one of {', '.join(PRESETS)}")
    values: dict[str, Any] = PRESETS[preset]
    for layer in layers:
        values = merge(values, layer)
    return validate(values)


def validate(values: dict[str, Any]) -> Config:
    """Make a configuration from nested values.

    Raises:
        ConfigError: lists every unknown key and every bad value.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ConfigError("; ".join(lines)) from error


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"unknown key {key!r}"
    if item["type"] == "model_type":
        return f"{key}: expected a section, {key}.KEY=VALUE for each setting, got {item['input']!r}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{key}: {message}, got {item['input']!r}" if key else message


def dump(config: Config) -> str:
    """The resolved configuration as YAML, readable by :func:`read_yaml`."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
