"""The experiments: named sets of configurations that are compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

FORECAST = {
    "error.0": ("k = 0", ".3f"),
    "error.5": ("5", ".3f"),
    "error.10": ("10", ".3f"),
    "error.20": ("20", ".3f"),
    "error.30": ("30", ".3f"),
    "error.40": ("40", ".3f"),
    "worst_linear": ("linear R²", ".2f"),
    "worst_mlp": ("MLP R²", ".3f"),
    "effective_rank": ("effective rank", ".1f"),
    "seconds": ("seconds of phase 1", ".0f"),
}
"""Columns of a table: the path of a value in a row -> title and format."""

REFINED = {
    f"refined.error.{k}": (f"refined: k = {k}" if k == 5 else str(k), ".3f")
    for k in (5, 10, 20, 30, 40)
}
"""Columns that follow the others where models were refined."""

FAILURE = {
    "effective_rank": ("effective rank", ".1f"),
    "std": ("mean σ", ".3f"),
    "latent_error": ("latent error at k = 5, over persistence", ".2f"),
    "angle_r2": ("MLP probe R², worst of sin, cos θ", ".2f"),
    "omega_r2": ("MLP probe R², worst of ω", ".2f"),
    "error.10": ("angle error at k = 10, rad", ".2f"),
    "error.20": ("at k = 20, rad", ".2f"),
}

SMALL: dict[str, Any] = {"model": {"encoder": "conv"}, "data": {"size": 4000}}


@dataclass(frozen=True)
class Experiment:
    """Configurations to compare.

    Attributes:
        configurations: Settings of each configuration by label, merged into `base`.
        base: Settings shared by all configurations.
        columns: Columns of the table.
        page: File in docs/ that the table is written into.
        updates: Default number of updates.
        refine: Default number of refinement updates after phase 1.
    """

    configurations: dict[str, dict[str, Any]]
    base: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, tuple[str, str]] = field(default_factory=lambda: FORECAST)
    page: str = "learning.md"
    updates: int = 700
    refine: int = 0


NO_EMA = {"phase1": {"ema_start": 0.0, "ema_end": 0.0}}
SAME_ENCODER = {"objective": {"stop_gradient": False}}

EXPERIMENTS = {
    "decay": Experiment(
        {
            "weight decay 0.01": {"phase1": {"weight_decay": 0.01}},
            "weight decay 0.1": {"phase1": {"weight_decay": 0.1}},
            "weight decay 0.3": {"phase1": {"weight_decay": 0.3}},
        },
        updates=3000,
    ),
    "ingredients": Experiment(
        {
            "the recipe": {},
            "no EMA: targets of the encoder itself": NO_EMA,
            "no stop-gradient and no EMA": SAME_ENCODER,
            "no residual connection": {"model": {"predictor": "direct"}},
            "no variance hinge": {"objective": {"variance_weight": 0.0}},
            "no covariance penalty": {"objective": {"covariance_weight": 0.0}},
            "one frame": {"frame_stack": 1},
            "three frames": {"frame_stack": 3},
            "one step: horizon 1": {"objective": {"horizon": 1}},
            "horizon 4": {"objective": {"horizon": 4}},
        },
        page="phenomena.md",
        updates=300,
    ),
    "targets": Experiment(
        {
            "the recipe: EMA from 0.99 to 1": {},
            "EMA from 0.9 to 1": {"phase1": {"ema_start": 0.9}},
            "no EMA": NO_EMA,
            "no stop-gradient and no EMA": SAME_ENCODER,
        },
        page="phenomena.md",
        updates=1563,
        refine=600,
    ),
    "encoder": Experiment(
        {
            "conv": {"model": {"encoder": "conv"}},
            "keypoints": {"model": {"encoder": "keypoints"}},
        },
    ),
    "collapse": Experiment(
        {
            "prediction error alone, no EMA": {"objective": {"name": "prediction"}, **NO_EMA},
            "prediction error alone": {"objective": {"name": "prediction"}},
            "variance hinge": {"objective": {"name": "variance"}},
            "VICReg": {"objective": {"name": "vicreg"}},
            "SIGReg": {"objective": {"name": "sigreg"}},
        },
        base=SMALL,
        columns=FAILURE,
        page="phenomena.md",
        updates=300,
    ),
    "blindness": Experiment(
        {
            "identity": {"model": {"predictor": "identity"}},
            "residual": {"model": {"predictor": "residual"}},
        },
        base=SMALL,
        columns=FAILURE,
        page="phenomena.md",
        updates=300,
    ),
}
