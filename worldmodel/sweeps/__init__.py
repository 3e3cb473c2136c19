"""Sweeps: configurations and seeds, trained on a Ray cluster and compared."""

from worldmodel.sweeps.results import Row, Summary, SweepResult, TrialResult
from worldmodel.sweeps.run_sweep import sweep
from worldmodel.sweeps.sweep_file import Resources, Sweep, SweepFile, Trial, read_sweep

__all__ = [
    "Resources",
    "Row",
    "Summary",
    "Sweep",
    "SweepFile",
    "SweepResult",
    "Trial",
    "TrialResult",
    "read_sweep",
    "sweep",
]
