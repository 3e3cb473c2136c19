"""The result of an evaluation, as it is written to metrics.json.

Conventions: angles are in rad, energies in J, PSNR in dB. Keys of step dictionaries are numbers of
steps k as strings. An interval is [low, high], by bootstrap over held-out episodes. "Median error"
is the median of `|wrap(θ̂ − θ)|` over episodes and angles.

To add a metric, add a field here or in ``forecast_metrics.py``, compute it in ``evaluate.py`` or
``dynamics.py``, show it in ``tables.py`` (terminal) and ``viz/assets/report.html``, and describe
it in ``docs/metrics.md``. If the metrics of older runs no longer fit, raise `SCHEMA_VERSION` and
`Metrics.schema_version`; a field with a default does not need that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from worldmodel.evaluation.forecast_metrics import (
    ActionMetrics,
    ByStepOrNone,
    EnergyMetrics,
    ForecastMetrics,
    Interval,
    IntervalOrNone,
    LyapunovMetrics,
    ReferenceForecast,
    Strict,
)

if TYPE_CHECKING:
    from worldmodel.config import Config
    from worldmodel.data import ReplayBuffer
    from worldmodel.models import WorldModel

SCHEMA_VERSION = 3


@dataclass(frozen=True)
class RunSummary(Strict):
    """The main settings of a run.

    Attributes:
        name: name of the run directory.
        env: id of the environment; None for own data without one.
        observation: ``pixels`` or ``vector``.
        policy: policy that collected the training data; for a path, its last part.
        objective: objective of phase 1.
        seed: random seed of the run.
        latent_dim: size D of the latent.
        trajectories: number of training trajectories.
        updates: numbers of updates of ``phase1``, ``refinement`` and ``phase2``.
        parameters: part of the model -> number of parameters.
        own_data: whether the run was trained on own data instead of collecting.
    """

    name: str
    env: str | None
    observation: str
    policy: str
    objective: str
    seed: int
    latent_dim: int
    trajectories: int
    updates: dict[str, int]
    parameters: dict[str, int]
    own_data: bool = False

    @classmethod
    def of(cls, config: Config, model: WorldModel, path: Path, train: ReplayBuffer) -> RunSummary:
        """Summarize a run from its configuration, its model, its directory and its data."""
        from worldmodel.phases import planned_updates

        return cls(
            name=path.resolve().name,
            env=config.env.id,
            observation=config.observation,
            policy=Path(config.data.policy).name,
            objective=config.objective.name,
            seed=config.seed,
            latent_dim=model.spec.latent_dim,
            trajectories=train.num_episodes,
            updates=planned_updates(model, train, config),
            parameters={
                name: sum(p.numel() for p in part.parameters())
                for name, part in model.parts().items()
            },
            own_data=bool(config.data.sources),
        )


@dataclass(frozen=True)
class DataMetrics(Strict):
    """The episodes that were used.

    Attributes:
        train_episodes: number of training episodes.
        train_steps: number of environment steps in the training episodes.
        several_actions: whether the training episodes hold more than one action.
        train_seeds: lowest and highest seed of training episodes; None where unknown.
        heldout_episodes: number of held-out episodes.
        heldout_seeds: lowest and highest seed of held-out episodes; None where unknown.
        split: ``heldout``, or ``validation`` if these episodes are there to choose things by.
        several_outcomes: whether the training episodes hold different rewards, or a termination.
    """

    train_episodes: int
    train_steps: int
    several_actions: bool
    train_seeds: tuple[int, int] | None
    heldout_episodes: int
    heldout_seeds: tuple[int, int] | None
    split: Literal["heldout", "validation"] = "heldout"
    several_outcomes: bool = True

    @property
    def kind(self) -> str:
        """What the evaluation episodes are, in words."""
        return "held-out" if self.split == "heldout" else self.split


@dataclass(frozen=True)
class Statistics(Strict):
    """How intervals were computed.

    Attributes:
        method: name of the method.
        confidence: nominal probability that an interval covers the true value.
        resamples: number of resamples of the bootstrap.
    """

    method: str
    confidence: float
    resamples: int


@dataclass(frozen=True)
class Spread(Strict):
    """Standard deviation of the latent dimensions.

    Attributes:
        min: minimum over dimensions.
        median: median over dimensions.
        max: maximum over dimensions.
        per_dimension: standard deviation of each of the D dimensions.
    """

    min: float
    median: float
    max: float
    per_dimension: list[float]


@dataclass(frozen=True)
class CollapseMetrics(Strict):
    """Statistics of the latents of all held-out observations.

    Attributes:
        observations: number of latents.
        dimensions: size D of the latent.
        std: standard deviations.
        spectrum: D eigenvalues of the covariance, largest first.
        effective_rank: exponential of the entropy of the spectrum, 0 to D.
        rankme: RankMe (arXiv:2210.02885), 0 to D.
    """

    observations: int
    dimensions: int
    std: Spread
    spectrum: list[float]
    effective_rank: float
    rankme: float


@dataclass(frozen=True)
class ProbeScore(Strict):
    """How well a probe reads the targets of the readout on held-out observations.

    Attributes:
        r2: target -> R²; 0 for a target that never changes.
        worst_r2: lowest R² of the targets that the readout scores.
        worst_r2_interval: interval of `worst_r2`.
        rmse: target -> root mean squared error, in the unit of the target.
        angle_rmse_rad: root mean squared error of the angles; None without angles.
    """

    r2: dict[str, float]
    worst_r2: float
    worst_r2_interval: Interval
    rmse: dict[str, float]
    angle_rmse_rad: float | None


@dataclass(frozen=True)
class BaselineScores(Strict):
    """The same probes on inputs other than the trained encoder's latents.

    Attributes:
        train_observations: number of training observations that the probes were fitted on.
        linear: score of the linear probe.
        mlp: score of the MLP probe.
    """

    train_observations: int
    linear: ProbeScore
    mlp: ProbeScore


@dataclass(frozen=True)
class ProbeMetrics(Strict):
    """What can be read from the latents.

    Attributes:
        train_observations: number of training observations that the probes were fitted on.
        heldout_observations: number of held-out observations that they were scored on.
        units: target -> unit; empty where there is none.
        linear: score of a ridge regression on standardized latents.
        mlp: score of an MLP with two hidden layers.
        untrained: scores on an untrained encoder of the same shape.
        pixels: scores on principal components of the observations.
    """

    train_observations: int
    heldout_observations: int
    units: dict[str, str]
    linear: ProbeScore
    mlp: ProbeScore
    untrained: BaselineScores
    pixels: BaselineScores


@dataclass(frozen=True)
class RewardMetrics(Strict):
    """Predicted rewards of imagined steps.

    Attributes:
        rmse: root mean squared error; None if the model diverged.
        std: standard deviation of the true rewards.
        r2: R²; None if the true rewards are all equal or the model diverged.
    """

    rmse: float | None
    std: float
    r2: float | None


@dataclass(frozen=True)
class TerminationMetrics(Strict):
    """Predicted terminations of imagined steps, at a probability of one half.

    Attributes:
        terminations: number of held-out steps that terminate the episode.
        recall: fraction of them that is predicted, 0 to 1; None if there are none.
        false_positive_rate: fraction of the other steps that is predicted to terminate, 0 to 1;
            None if there are none.
    """

    terminations: int
    recall: float | None
    false_positive_rate: float | None


@dataclass(frozen=True)
class HeadMetrics(Strict):
    """The reward and termination heads on one imagined step from every held-out observation.

    Attributes:
        transitions: number of steps.
        reward: errors of the reward head.
        termination: errors of the termination head.
    """

    transitions: int
    reward: RewardMetrics
    termination: TerminationMetrics


@dataclass(frozen=True)
class ReturnMetrics(Strict):
    """Whether imagined returns rank held-out action sequences like the real ones.

    Planning and training in the dream rely on this ranking, which the accuracy of probes does not
    imply.

    Attributes:
        episodes: number of held-out episodes whose observations are starts.
        rank_correlation: k -> Spearman correlation between the imagined and the real return of
            the k recorded actions that follow a start, -1 to 1; None if all real or all imagined
            returns are equal, the model diverged, or no episode is long enough.
        interval: k -> interval of `rank_correlation`.
    """

    episodes: int
    rank_correlation: ByStepOrNone
    interval: dict[str, IntervalOrNone]


@dataclass(frozen=True)
class RunWarning(Strict):
    """Something that failed, see `worldmodel.evaluation.warnings`.

    Attributes:
        name: short name of what failed.
        message: what failed, with its value.
        fix: what to do about it.
    """

    name: str
    message: str
    fix: str


@dataclass(frozen=True)
class Metrics(Strict):
    """An evaluation on held-out episodes.

    Attributes:
        seed: random seed of the probes and the reference model.
        dt_seconds: simulated seconds per step.
        data: the episodes used.
        statistics: how intervals were computed.
        collapse: statistics of the latents.
        probes: scores of the probes; None without true states.
        forecast: errors of open-loop forecasts.
        reference: errors of the reference model; None if it was not requested, or the
            environment's plug-in has none.
        lyapunov: largest Lyapunov exponent; None if the environment's plug-in does not compute it.
        actions: effect of actions; None if no random-action episodes were given.
        energy: energy drift; None if the environment's plug-in has no energy, or no passive
            episodes were given.
        heads: errors of the reward and termination heads.
        returns: agreement of imagined and real returns; None if no held-out return differs.
        run: main settings of the run; None outside a run directory.
        reasons: dotted path of a part that is None -> why it is absent.
        warnings: what failed; empty for a good run.
        schema_version: version of this layout.
    """

    seed: int
    dt_seconds: float
    data: DataMetrics
    statistics: Statistics
    collapse: CollapseMetrics
    probes: ProbeMetrics | None
    forecast: ForecastMetrics
    reference: ReferenceForecast | None
    lyapunov: LyapunovMetrics | None
    actions: ActionMetrics | None
    energy: EnergyMetrics | None
    heads: HeadMetrics
    returns: ReturnMetrics | None = None
    run: RunSummary | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    warnings: list[RunWarning] = field(default_factory=list)
    schema_version: Literal[3] = 3

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values, without NaN."""
        content: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Metrics:
        """Read the result of `to_dict`.

        Raises:
            ValueError: If the content has another schema version, or is damaged.
        """
        version = content.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"the metrics have schema version {version!r}, expected {SCHEMA_VERSION}; "
                "`worldmodel evaluate RUN` rewrites them"
            )
        try:
            return _adapter().validate_python(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(
                f"the metrics are damaged at {place}: {first['msg']}; `worldmodel evaluate RUN` "
                "rewrites them"
            ) from error


@cache
def _adapter() -> TypeAdapter[Metrics]:
    return TypeAdapter(Metrics)
