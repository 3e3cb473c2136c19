"""Every hyperparameter there is, with its default and range: the sections of `Config`.

Each can be changed with ``--set section.key=value``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from worldmodel.registry import (
    DECODERS,
    ENCODERS,
    OBJECTIVES,
    PLANNERS,
    PREDICTORS,
    WRAPPERS,
)

DEFAULT_ENV = "DoublePendulumPixels-v0"

OBJECTIVE_WEIGHTS: dict[str, dict[str, float]] = {
    "prediction": {"variance_weight": 0.0, "covariance_weight": 0.0, "sigreg_weight": 0.0},
    "variance": {"variance_weight": 0.1, "covariance_weight": 0.0, "sigreg_weight": 0.0},
    "vicreg": {"variance_weight": 1.0, "covariance_weight": 0.05, "sigreg_weight": 0.0},
    "sigreg": {"variance_weight": 0.0, "covariance_weight": 0.0, "sigreg_weight": 0.02},
}
"""Default weights of the built-in objectives."""


class Section(BaseModel):
    """A part of the configuration: immutable, unknown keys rejected, numbers finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Compression = Literal["none", "lz4"]
"""How a replay buffer stores frames: as they are, or each one as an LZ4 block."""

TrackerName = Literal["tensorboard", "wandb", "trackio"]


def _with_tensorboard(names: tuple[TrackerName, ...]) -> tuple[TrackerName, ...]:
    """Put TensorBoard, which is always written, first, and each name once."""
    return tuple(dict.fromkeys(("tensorboard", *names)))


Trackers = Annotated[tuple[TrackerName, ...], AfterValidator(_with_tensorboard)]


class Env(Section):
    """The environment that the model learns.

    Attributes:
        id: a registered Gymnasium id, ``module:id``, or the ``module:Name`` of a class or factory;
            None for own data without an environment.
        kwargs: passed to its constructor; JSON values.
        wrappers: ``module:Name`` of classes or functions that are applied to it, innermost first.
        observation_key: entry of a Dict observation to learn from; None for the only usable one.
        frame_skip: how often each action is repeated; a step has the sum of the rewards.
    """

    id: str | None = DEFAULT_ENV
    kwargs: dict[str, Any] = {}
    wrappers: tuple[Annotated[str, AfterValidator(WRAPPERS.check)], ...] = ()
    observation_key: str | None = None
    frame_skip: int = Field(default=1, ge=1)


def _as_sources(value: Any) -> Any:
    """List one source or several; paths that exist become absolute, for use from anywhere."""
    sources = [value] if isinstance(value, str | Path) else value
    if not isinstance(sources, list | tuple):
        return sources
    return [
        str(Path(source).absolute() if Path(source).exists() else source)
        if isinstance(source, str | Path)
        else source
        for source in sources
    ]


class Data(Section):
    """Trajectories to train on.

    Attributes:
        sources: own data to train on instead of collecting: replay buffers, HDF5 files,
            ``minari:ID``, or the ``module:Name`` of a function that yields episodes.
        size: training trajectories; 0 for all of the own data, its default.
        min_steps: further trajectories are collected until they have this many steps in all; 0 if
            `size` is given.
        steps: transitions per trajectory; the environment may end it earlier.
        policy: ``random`` (held actions), ``passive`` (zero action, the default of the double
            pendulum), ``mixed``, the path of an agent saved by Stable-Baselines3, a run directory
            (its model plans), or ``module:Name``; ``recorded``, the default of own data.
        env_kwargs: override the environment's own while collecting.
        validation_size: trajectories with validation seeds, to monitor training.
        heldout_size: trajectories to evaluate the trained model on, see `evaluation.split`.
        state_key: key of the environment's ``info`` with the true state, for evaluation only.
        dir: where datasets are cached, one folder per configuration.
        workers: processes that collect; None for one per usable core where that is faster. The data
            do not depend on it.
        compression: of frames on disk, ``lz4`` or ``none``; cached data keeps the form it has.
    """

    sources: Annotated[tuple[str, ...], BeforeValidator(_as_sources)] = ()
    size: int = Field(default=1000, ge=0)
    min_steps: int = Field(default=25_000, ge=0)
    steps: int = Field(default=50, ge=2)
    policy: str = "random"
    env_kwargs: dict[str, Any] = {}
    validation_size: int = Field(default=128, ge=8, le=10_000)
    heldout_size: int = Field(default=256, ge=4)
    state_key: str = "state"
    dir: Path = Path("data")
    workers: int | None = Field(default=None, ge=1)
    compression: Compression = "none"


class Model(Section):
    """Sizes and kinds of the networks.

    Attributes:
        latent_dim: size D of the latent.
        width: channels of the pixel encoder and decoder.
        hidden: width of the predictor's hidden layers.
        encoder: ``conv``, or ``keypoints`` where all there is to see is where things are (the
            default of the double pendulum); ``timm``, any backbone of timm by the ``name`` in
            `encoder_kwargs`; ``mlp`` for vectors; or ``module:Name``.
        decoder: ``patches``, or ``module:Name``; models of vectors have none.
        predictor: ``residual``; for comparison ``direct`` (no residual connection) and
            ``identity`` (predicts no change); or ``module:Name``.
        encoder_kwargs: further arguments of the encoder; likewise `decoder_kwargs` and
            `predictor_kwargs`.
    """

    latent_dim: int = Field(default=64, ge=2, le=4096)
    width: int = Field(default=16, ge=4, le=256)
    hidden: int = Field(default=512, ge=8, le=8192)
    encoder: Annotated[str, AfterValidator(ENCODERS.check)] = "conv"
    decoder: Annotated[str, AfterValidator(DECODERS.check)] = "patches"
    predictor: Annotated[str, AfterValidator(PREDICTORS.check)] = "residual"
    encoder_kwargs: dict[str, Any] = {}
    decoder_kwargs: dict[str, Any] = {}
    predictor_kwargs: dict[str, Any] = {}


class ObjectiveConfig(Section):
    """What phase 1 minimizes: MSE to the EMA targets plus regularizers on the predictions.

    Attributes:
        name: ``vicreg``, ``inverse`` (``vicreg`` with inverse dynamics), ``sigreg``, ``variance``,
            ``prediction`` (which collapses), or ``module:Name``. A built-in name sets the weights
            that are not given.
        horizon: predicted steps K; the predictor is unrolled over all of them. If not given, it is
            at most what trajectories of `data.steps` steps allow.
        offsets: increasing steps at which predictions are compared with targets, from 0 (the
            context's own latent) to the horizon; powers of two if not given.
        stop_gradient: targets come from the EMA encoder without gradients; otherwise from the
            encoder itself with gradients.
        variance_weight: of the variance hinge.
        covariance_weight: of the covariance penalty.
        sigreg_weight: of the sketched Gaussian statistic, times the batch size as in LeJEPA.
        directions: random projections of the sketch.
        inverse_weight: of the error of the action that ``inverse`` reads from two latents.
    """

    name: Annotated[str, AfterValidator(OBJECTIVES.check)] = "vicreg"
    horizon: int = Field(default=8, ge=1)
    offsets: tuple[int, ...] = (0, 1, 2, 4, 8)
    stop_gradient: bool = True
    variance_weight: float = Field(default=1.0, ge=0)
    covariance_weight: float = Field(default=0.05, ge=0)
    sigreg_weight: float = Field(default=0.0, ge=0)
    directions: int = Field(default=256, ge=1)
    inverse_weight: float = Field(default=1.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        weights = OBJECTIVE_WEIGHTS.get(str(values.get("name", "vicreg")), {})
        horizon = values.get("horizon")
        if isinstance(horizon, int) and "offsets" not in values:
            doubling = [2**i for i in range(horizon.bit_length()) if 2**i < horizon]
            values = {**values, "offsets": (0, *doubling, horizon)}
        return {**weights, **values}

    @model_validator(mode="after")
    def _check_offsets(self) -> Self:
        if not self.offsets or list(self.offsets) != sorted(set(self.offsets)):
            raise ValueError(f"offsets {self.offsets} must be distinct and increasing")
        if self.offsets[0] != 0 or self.offsets[-1] != self.horizon:
            raise ValueError(
                f"offsets {self.offsets} must begin at 0 and end at the horizon {self.horizon}"
            )
        return self


class Optimization(Section):
    """How weights are updated.

    Attributes:
        batch_size: windows per update.
        optimizer: ``muon`` (AdamW for the biases) or ``adamw``.
        learning_rate: peak, reached after the warmup.
        final_learning_rate: end of the cosine schedule, as a fraction of the peak.
        warmup: updates of linear warmup, at most a tenth of all.
        weight_decay: decoupled, of matrices and kernels.
        max_grad_norm: gradients are clipped to this norm; None for no clipping.
    """

    batch_size: int = Field(default=128, ge=8)
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: float = Field(default=5e-3, gt=0)
    final_learning_rate: float = Field(default=0.02, ge=0, le=1)
    warmup: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float | None = Field(default=None, gt=0)


class Budget(Optimization):
    """How long a phase trains on windows of the trajectories.

    Attributes:
        updates: number of weight updates; None where `epochs` decides.
        epochs: passes over the trajectories, with one random window of each per pass, instead of
            `updates`. Few or long trajectories make a pass short, so `updates` suits any data.
    """

    updates: int | None = Field(default=1, ge=1)
    epochs: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _choose(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("epochs") is not None:
            return {"updates": None, **values}
        return values

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        if (self.updates is None) == (self.epochs is None):
            raise ValueError(f"updates={self.updates} and epochs={self.epochs}: set one of the two")
        return self


class Phase1(Budget):
    """Training of the encoder and the predictor.

    Attributes:
        ema_start: first momentum of the target encoder.
        ema_end: last momentum of the target encoder; in between it follows a cosine.
    """

    updates: int | None = Field(default=1563, ge=1)
    weight_decay: float = Field(default=1e-2, ge=0)
    max_grad_norm: float | None = Field(default=5.0, gt=0)
    ema_start: float = Field(default=0.99, ge=0, le=1)
    ema_end: float = Field(default=1.0, ge=0, le=1)


class Refinement(Optimization):
    """Training of the predictor alone on latents of the frozen encoder, after phase 1.

    Attributes:
        updates: of the predictor; 0 skips the refinement.
        episodes: trajectories that are encoded for it, at most.
        horizon: steps unrolled, at most.
    """

    updates: int = Field(default=600, ge=0)
    episodes: int = Field(default=4000, ge=1)
    horizon: int = Field(default=8, ge=1)
    batch_size: int = Field(default=256, ge=8)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    max_grad_norm: float | None = Field(default=5.0, gt=0)


class Phase2(Budget):
    """Training of the decoder and the heads on the frozen encoder.

    Attributes:
        min_updates: if there are fewer updates, the heads alone go on learning.
        head_updates: number of those further updates; 0 for none.
        head_batch_size: transitions per further update.
    """

    updates: int | None = Field(default=469, ge=1)
    min_updates: int = Field(default=400, ge=0)
    head_updates: int = Field(default=1000, ge=0)
    head_batch_size: int = Field(default=256, ge=8)


Precision = Literal["float32", "bfloat16"]

Switch = Literal["auto", True, False]


class Training(Section):
    """How training uses its device. Apart from rounding, nothing here changes what is learned.

    Attributes:
        precision: of the networks: ``float32``, ``bfloat16`` (autocast), or ``auto``, which is
            ``bfloat16`` on CUDA devices that support it and ``float32`` elsewhere. Weights, losses,
            regularizers and the state of the optimizers are float32 in any case.
        compile: compile the networks with ``torch.compile``, on CUDA to CUDA graphs.
        prefetch: read the next batch in a background thread during an update; ``auto``: on CUDA.
        device_cache: copy all training frames to the device and gather batches there; ``auto``: on
            CUDA, if they take at most half of its free memory.
    """

    precision: Literal["auto", Precision] = "auto"
    compile: bool = False
    prefetch: Switch = "auto"
    device_cache: Switch = "auto"


class Planning(Section):
    """Model predictive control.

    Attributes:
        method: ``icem``, ``cem``, ``mppi``, or ``module:Name``.
        horizon: steps ahead.
        samples: candidates per iteration; None for the method's own.
        iterations: of the search; None for the method's own.
        kwargs: further arguments of the planner.
        hold_seconds: how long a goal must be held to count as reached.
        goal_quantile: fraction of training latents that are as close to a goal image as counts as
            reached.
    """

    method: Annotated[str, AfterValidator(PLANNERS.check)] = "icem"
    horizon: int = Field(default=20, ge=1)
    samples: int | None = Field(default=None, ge=2)
    iterations: int | None = Field(default=None, ge=1)
    kwargs: dict[str, Any] = {}
    hold_seconds: float = Field(default=1.0, gt=0)
    goal_quantile: float = Field(default=0.01, gt=0, lt=1)
