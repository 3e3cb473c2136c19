"""Evaluation: what a latent holds, how long its forecasts stay true, and whether it collapsed."""

from worldmodel.evaluation.collapse import Collapse, collapse, effective_rank, rankme
from worldmodel.evaluation.evaluate import HeldOut, Probes, evaluate, fit_probes, missing_states
from worldmodel.evaluation.forecast import open_loop
from worldmodel.evaluation.heldout import evaluation_set, require_disjoint, split_seeds
from worldmodel.evaluation.probes import MLPProbe
from worldmodel.evaluation.simulator import pendulum_task
from worldmodel.evaluation.step_seconds import step_seconds
from worldmodel.evaluation.summaries import horizon
from worldmodel.evaluation.table import metrics_table

__all__ = [
    "Collapse",
    "HeldOut",
    "MLPProbe",
    "Probes",
    "collapse",
    "effective_rank",
    "evaluate",
    "evaluation_set",
    "fit_probes",
    "horizon",
    "metrics_table",
    "missing_states",
    "open_loop",
    "pendulum_task",
    "rankme",
    "require_disjoint",
    "split_seeds",
    "step_seconds",
]
