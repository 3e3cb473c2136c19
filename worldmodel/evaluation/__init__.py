"""Evaluation: what a latent holds, how long forecasts stay accurate, and whether it collapsed."""

from worldmodel.evaluation.collapse import Collapse, collapse, effective_rank, rankme
from worldmodel.evaluation.evaluate import HeldOut, evaluate, missing_angles, missing_states
from worldmodel.evaluation.forecast import angle_errors, open_loop
from worldmodel.evaluation.intervals import Bootstrap, horizon
from worldmodel.evaluation.metrics import Metrics, RunSummary
from worldmodel.evaluation.probes import MLPProbe, Probes, fit_probes
from worldmodel.evaluation.run_evaluation import evaluate_run, evaluate_runs
from worldmodel.evaluation.scores import score_probe
from worldmodel.evaluation.tables import comparison_table, metrics_table

__all__ = [
    "Bootstrap",
    "Collapse",
    "HeldOut",
    "MLPProbe",
    "Metrics",
    "Probes",
    "RunSummary",
    "angle_errors",
    "collapse",
    "comparison_table",
    "effective_rank",
    "evaluate",
    "evaluate_run",
    "evaluate_runs",
    "fit_probes",
    "horizon",
    "metrics_table",
    "missing_angles",
    "missing_states",
    "open_loop",
    "rankme",
    "score_probe",
]
