"""Hyperparameters of evaluation: the section `evaluation` of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field

from worldmodel.hyperparameters import Optimization, Section
from worldmodel.registry import READOUTS


class Probe(Section):
    """The MLP probe, and how many observations both probes are fitted on.

    Attributes:
        observations: of the training episodes, at most.
        baseline_observations: the same for probes of the untrained encoder and of pixels.
        width: of both hidden layers.
        updates: at most.
        max_epochs: at most.
        batch_size: observations per update.
        learning_rate: cooled to zero on a cosine.
        weight_decay: of AdamW.
    """

    observations: int = Field(default=60_000, ge=16)
    baseline_observations: int = Field(default=30_000, ge=16)
    width: int = Field(default=256, ge=1)
    updates: int = Field(default=1400, ge=1)
    max_epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=512, ge=1)
    learning_rate: float = Field(default=8e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)


class Reference(Optimization):
    """The reference model of the true state, with the predictor's optimization.

    Attributes:
        updates: when it is asked for.
        horizon: steps unrolled in training, at most.
        hidden: width of its hidden layers.
    """

    updates: int = Field(default=500, ge=1)
    horizon: int = Field(default=8, ge=1)
    hidden: int = Field(default=512, ge=1)
    weight_decay: float = Field(default=1e-2, ge=0)
    max_grad_norm: float | None = Field(default=5.0, gt=0)


class Evaluation(Section):
    """Evaluation on episodes that were not trained on.

    Attributes:
        split: ``heldout`` to report results; ``validation`` to choose hyperparameters by them.
        readout: what probes read: ``auto`` (the environment's plug-in, else the raw
            state vector), ``state``, or ``module:Name``.
        steps: transitions per episode; the environment may end it earlier.
        resamples: of the bootstrap over episodes.
        confidence: of its intervals.
        domain_observations: training observations that the domain is fitted on, at most.
        ood_false_positive_rate: fraction of training observations that count as out of
            distribution.
        starts: training observations kept as starts of imagined episodes, at most.
    """

    split: Literal["heldout", "validation"] = "heldout"
    readout: Annotated[str, AfterValidator(READOUTS.check)] = "auto"
    steps: int = Field(default=61, ge=1)
    resamples: int = Field(default=1000, ge=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    domain_observations: int = Field(default=20_000, ge=16)
    ood_false_positive_rate: float = Field(
        default=1e-3,
        gt=0,
        lt=1,
        validation_alias=AliasChoices("ood_false_positive_rate", "domain_error_rate"),
    )
    starts: int = Field(default=4096, ge=1)
    probe: Probe = Probe()
    reference: Reference = Reference()
