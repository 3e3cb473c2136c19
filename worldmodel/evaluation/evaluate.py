"""The evaluation of a world model on held-out episodes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch

from worldmodel.data import ReplayBuffer
from worldmodel.data.datasets import require_disjoint
from worldmodel.evaluation.collapse import collapse
from worldmodel.evaluation.dynamics import (
    action_metrics,
    energy_metrics,
    has_several_actions,
    has_several_outcomes,
    head_metrics,
    return_metrics,
)
from worldmodel.evaluation.forecast import (
    ForecastEpisodes,
    angle_errors_by_step,
    frame_errors,
    latent_forecast,
    reported_steps,
)
from worldmodel.evaluation.forecast_metrics import (
    ActionMetrics,
    AngleForecast,
    EnergyMetrics,
    ForecastMetrics,
    FrameForecast,
    LyapunovMetrics,
    ReferenceForecast,
)
from worldmodel.evaluation.intervals import (
    METHOD,
    Bootstrap,
    angle_forecast,
    angle_summary,
    frame_forecast,
)
from worldmodel.evaluation.metrics import (
    CollapseMetrics,
    DataMetrics,
    Metrics,
    ProbeMetrics,
    ReturnMetrics,
    Spread,
    Statistics,
)
from worldmodel.evaluation.probes import Probes, fit_probes
from worldmodel.evaluation.scores import score_probes
from worldmodel.evaluation_config import Evaluation
from worldmodel.latents import encode_at
from worldmodel.models import WorldModel
from worldmodel.plugins import EnvPlugin, InvertibleReadout, Readout, choose_readout

LYAPUNOV_TRAJECTORIES = 128
LYAPUNOV_SECONDS = 20.0

UNKNOWN = "not known for this environment"

Part = TypeVar("Part")


@dataclass(frozen=True)
class HeldOut:
    """Episodes that were not used in training.

    Attributes:
        main: episodes under the policy of the training data, for most metrics.
        passive: episodes under passive actions, for the energy of imagined trajectories; may be
            `main`. None if not collected.
        driven: episodes under random actions, for the effect of actions; may be `main`. None if
            not collected.
    """

    main: ReplayBuffer
    passive: ReplayBuffer | None = None
    driven: ReplayBuffer | None = None


def evaluate(
    wm: WorldModel,
    train_buffer: ReplayBuffer,
    heldout: HeldOut,
    settings: Evaluation | None = None,
    *,
    plugin: EnvPlugin,
    dt: float | None = None,
    seed: int = 0,
    reference_updates: int = 0,
    probes: Probes | None = None,
) -> Metrics:
    """Evaluate a world model on held-out episodes.

    The same arguments on the same machine give the same metrics.

    Args:
        wm: the world model.
        train_buffer: training episodes, on which probes are fitted.
        heldout: held-out episodes, on which everything is measured.
        settings: hyperparameters; defaults if not given.
        plugin: plug-in of the environment.
        dt: simulated seconds per step; by default those of the plug-in.
        seed: random seed of the probes and the reference model.
        reference_updates: number of updates of the reference model, which is trained on the true
            state; 0 for none.
        probes: probes from `fit_probes`; fitted here if not given.

    Raises:
        ValueError: If a held-out episode has the seed of a training episode, or a latent is not
            finite.
    """
    require_disjoint(train_buffer.seeds, heldout.main.seeds)
    settings = settings or Evaluation()
    main = heldout.main
    dt = plugin.seconds_per_step() if dt is None else dt
    if plugin.state_dim not in (None, train_buffer.state_dim):
        plugin = EnvPlugin(plugin.env_id, plugin.env_kwargs)
    readout = probes.readout if probes else None
    readout = readout or choose_readout(settings.readout, plugin, train_buffer.state_dim)
    if probes is None and missing_states(main) is None:
        probes = fit_probes(wm, train_buffer, readout, settings.probe, seed=seed)
    evaluator = _Evaluator(wm, train_buffer, heldout, settings, plugin, probes, readout, dt, seed)
    part = evaluator.part_or_none
    latents = encode_at(wm, main, *wm.frames.times(main))
    return Metrics(
        seed=seed,
        dt_seconds=dt,
        data=_data(train_buffer, main),
        statistics=Statistics(METHOD, settings.confidence, settings.resamples),
        collapse=_collapse(latents),
        probes=part("probes", evaluator.probe_scores(latents)),
        lyapunov=part("lyapunov", evaluator.lyapunov),
        forecast=evaluator.forecast(),
        reference=part("reference", evaluator.reference(reference_updates)),
        actions=part("actions", evaluator.actions()),
        energy=part("energy", evaluator.energy()),
        heads=head_metrics(wm, main, latents),
        returns=part("returns", evaluator.returns()),
        reasons=evaluator.reasons,
    )


def missing_states(buffer: ReplayBuffer) -> str | None:
    """Return why no probe can be fitted on a buffer; None if one can."""
    if buffer.state_dim:
        return None
    return (
        "the data does not hold the true state; name its key, in info or in own data, with "
        "--state-key"
    )


def missing_angles(buffer: ReplayBuffer, readout: Readout) -> str | None:
    """Return why no angles can be read; None if they can."""
    if buffer.state_dim and not readout.angle_names:
        return f"there is no angle among {', '.join(readout.names)}"
    return missing_states(buffer)


class _Evaluator:
    """Computes the parts of an evaluation; a method returns its part, or why there is none."""

    def __init__(
        self,
        wm: WorldModel,
        train: ReplayBuffer,
        heldout: HeldOut,
        settings: Evaluation,
        plugin: EnvPlugin,
        probes: Probes | None,
        readout: Readout,
        dt: float,
        seed: int,
    ) -> None:
        self.wm, self.train, self.heldout = wm, train, heldout
        self.settings, self.plugin, self.dt, self.seed = settings, plugin, dt, seed
        self.probes, self.readout = probes, readout
        self.bootstrap = Bootstrap.of(settings)
        self.no_states = missing_states(heldout.main)
        self.no_angles = missing_angles(heldout.main, readout)
        self.probe = probes.mlp if probes and self.no_angles is None else None
        self.episodes = ForecastEpisodes.of(wm, heldout.main)
        self.reasons: dict[str, str] = {}

    def part_or_none(self, path: str, part_or_reason: Part | str) -> Part | None:
        """Return the part; record a reason under its dotted path instead, and return None."""
        if isinstance(part_or_reason, str):
            self.reasons[path] = part_or_reason
            return None
        return part_or_reason

    @cached_property
    def lyapunov(self) -> LyapunovMetrics | str:
        if self.no_states is not None:
            return self.no_states
        starts = self.episodes.states()[:LYAPUNOV_TRAJECTORIES, 0]
        exponents = self.plugin.lyapunov_exponents(starts, LYAPUNOV_SECONDS)
        if exponents is None:
            return UNKNOWN
        if len(exponents) < 2:
            return "a single episode gives no standard error of the Lyapunov exponent"
        mean = float(exponents.mean())
        return LyapunovMetrics(
            exponent_per_second=mean,
            standard_error=float(exponents.std(ddof=1) / np.sqrt(len(exponents))),
            time_seconds=1.0 / mean if mean > 0.0 else None,
            trajectories=len(exponents),
            seconds=LYAPUNOV_SECONDS,
        )

    @property
    def lyapunov_seconds(self) -> float | None:
        """Lyapunov time; None if unknown."""
        return None if isinstance(self.lyapunov, str) else self.lyapunov.time_seconds

    def probe_scores(self, latents: np.ndarray) -> ProbeMetrics | str:
        if self.no_states is not None:
            return self.no_states
        assert self.probes is not None
        buffers = self.train, self.heldout.main
        return score_probes(self.wm, self.probes, *buffers, latents, self.settings, seed=self.seed)

    def forecast(self) -> ForecastMetrics:
        latents = self.episodes.forecast()
        frames: FrameForecast | str = "the model has no decoder"
        if self.wm.decoder is not None:
            errors = frame_errors(self.episodes, latents, self.train)
            frames = frame_forecast(errors, self.bootstrap)
        return ForecastMetrics(
            angle=self.part_or_none("forecast.angle", self._angle(latents)),
            frames=self.part_or_none("forecast.frames", frames),
            latent=latent_forecast(self.episodes, latents),
        )

    def _angle(self, latents: torch.Tensor) -> AngleForecast | str:
        if self.no_angles is not None:
            return self.no_angles
        assert self.probe is not None
        errors = angle_errors_by_step(self.episodes, latents, self.probe, self.readout)
        if errors.constant_velocity is None:
            self.reasons["forecast.angle.constant_velocity"] = "one frame shows no velocity"
        return angle_forecast(errors, self.dt, self.lyapunov_seconds, self.bootstrap)

    def reference(self, updates: int) -> ReferenceForecast | str:
        if self.no_states is not None:
            return self.no_states
        if updates == 0:
            return "not requested: 0 updates"
        errors = self.plugin.reference_errors(
            self.wm,
            self.train,
            self.episodes.states(),
            self.episodes.actions(),
            self.settings.reference,
            updates,
            self.seed,
        )
        if errors is None:
            return UNKNOWN
        summary = angle_summary(errors, self.dt, self.lyapunov_seconds, self.bootstrap)
        return ReferenceForecast(**vars(summary), updates=updates)

    def actions(self) -> ActionMetrics | str:
        driven = self.heldout.driven
        if driven is None:
            return "no driven episodes were given"
        if driven.num_episodes < 2:
            return "shuffled actions need at least two held-out episodes"
        varied = has_several_actions(self.train)
        metrics = action_metrics(
            self.wm, driven, self.readout, self.probe, varied_in_training=varied
        )
        if self.no_angles is not None:
            self.reasons["actions.angle"] = self.no_angles
        for name, errors in (("angle", metrics.angle), ("latent", metrics.latent)):
            if errors is not None and errors.midpoint is None:
                self.reasons[f"actions.{name}.midpoint"] = "discrete actions have no middle"
        return metrics

    def returns(self) -> ReturnMetrics | str:
        driven = self.heldout.driven
        if driven is None:
            return "no driven episodes were given"
        steps = [k for k in reported_steps(self.episodes.last) if k]
        if not steps:
            return "the held-out episodes are too short for a forecast"
        return return_metrics(self.wm, driven, steps, self.bootstrap)

    def energy(self) -> EnergyMetrics | str:
        passive, energy = self.heldout.passive, self.plugin.energy
        if self.no_states is not None:
            return self.no_states
        assert self.probes is not None
        if energy is None:
            return UNKNOWN
        if passive is None:
            return "no passive episodes were given"
        if not isinstance(self.readout, InvertibleReadout):
            return "the targets of the readout do not determine the state"
        return energy_metrics(
            self.wm, passive, self.readout, self.probes.mlp, energy, self.bootstrap
        )


def _data(train: ReplayBuffer, heldout: ReplayBuffer) -> DataMetrics:
    return DataMetrics(
        train_episodes=train.num_episodes,
        train_steps=train.num_transitions,
        several_actions=has_several_actions(train),
        several_outcomes=has_several_outcomes(train),
        train_seeds=_range(train.seeds),
        heldout_episodes=heldout.num_episodes,
        heldout_seeds=_range(heldout.seeds),
    )


def _range(seeds: np.ndarray) -> tuple[int, int] | None:
    return (int(np.min(seeds)), int(np.max(seeds))) if np.min(seeds) >= 0 else None


def _collapse(latents: np.ndarray) -> CollapseMetrics:
    statistics = collapse(latents)
    std = statistics.std
    return CollapseMetrics(
        observations=len(latents),
        dimensions=len(std),
        std=Spread(
            min=float(std.min()),
            median=float(np.median(std)),
            max=float(std.max()),
            per_dimension=std.tolist(),
        ),
        spectrum=statistics.spectrum.tolist(),
        effective_rank=statistics.effective_rank,
        rankme=statistics.rankme,
    )
