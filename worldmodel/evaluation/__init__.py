"""Evaluation: what a latent holds, how long its forecasts stay true, and whether it collapsed."""

from worldmodel.evaluation.collapse import Collapse, collapse, effective_rank, rankme
from worldmodel.evaluation.evaluate import HeldOut, evaluate
from worldmodel.evaluation.forecast import open_loop
from worldmodel.evaluation.heldout import evaluation_set, require_disjoint, split_seeds
from worldmodel.evaluation.probes import MLPProbe
from worldmodel.evaluation.probing import Probes, fit_probes, missing_angles, missing_states
from worldmodel.evaluation.simulator import pendulum_task
from worldmodel.evaluation.step_seconds import step_seconds
from worldmodel.evaluation.summaries import horizon
from worldmodel.evaluation.table import comparison_table, metrics_table
from worldmodel.evaluation.targets import Readout, choose_readout

__all__ = [
    "Collapse",
    "HeldOut",
    "MLPProbe",
    "Probes",
    "Readout",
    "choose_readout",
    "collapse",
    "comparison_table",
    "effective_rank",
    "evaluate",
    "evaluation_set",
    "fit_probes",
    "horizon",
    "metrics_table",
    "missing_angles",
    "missing_states",
    "open_loop",
    "pendulum_task",
    "rankme",
    "require_disjoint",
    "split_seeds",
    "step_seconds",
]
