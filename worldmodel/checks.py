"""What a run directory or a replay buffer holds, and whether it is damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from worldmodel.agent_files import read_settings
from worldmodel.data import ReplayBuffer
from worldmodel.data.header import HEADER_FILE
from worldmodel.data.repair import check_buffer
from worldmodel.data.shards import is_buffer
from worldmodel.errors import Problem, RunError
from worldmodel.files import load_tensors, read_record
from worldmodel.run import Run


def describe(path: str | Path) -> dict[str, Any]:
    """Describe what a run directory or a replay buffer holds, as JSON values.

    Raises:
        RunError: If it is neither.
        ReplayBufferError: If the buffer is damaged.
    """
    path = Path(path)
    if _is_buffer(path):
        with ReplayBuffer.open(path) as buffer:
            return buffer.summary()
    return Run(path).describe()


def check_path(path: str | Path) -> list[Problem]:
    """Find what is damaged in a run directory or a replay buffer; nothing is changed.

    Of a buffer each episode is compared with its checksum; of a run the configuration, all weights
    and all results are loaded and validated. An untrusted run that names code is not checked, see
    `worldmodel.trust`.

    Args:
        path: the directory.

    Returns:
        What is damaged and how to repair it; empty if everything is intact.

    Raises:
        RunError: If it is neither a run nor a buffer.
    """
    path = Path(path)
    return check_buffer(path) if _is_buffer(path) else list(_check_run(Run(path, "cpu")))


def _is_buffer(path: Path) -> bool:
    """Whether a path is a replay buffer; otherwise it is a run directory.

    Raises:
        RunError: If it is neither.
    """
    if is_buffer(path):
        return True
    if not (path / "config.yaml").exists():
        raise RunError(
            f"{path} is neither a run directory (no config.yaml) nor a replay buffer (no "
            f"{HEADER_FILE})"
        )
    return False


def _check_run(run: Run) -> Iterator[Problem]:
    again = "train the run again, or restore the file from a copy"
    readers = [run.read_config, *([run.parse_spec] if run.finished else [])]
    if damaged := [problem for read in readers for problem in _problems(read, again)]:
        yield from damaged
        return
    trusting = f"if you trust it: worldmodel info --check --trust {run.path}"
    if untrusted := list(_problems(lambda: run.config, trusting)):
        yield from untrusted
        return
    if run.finished:
        yield from _problems(lambda: run.model, again)
        evaluate = f"worldmodel evaluate {run.path}"
        yield from _problems(lambda: (run.metrics, run.probe), evaluate)
    if (checkpoint := run.path / "checkpoint.pt").exists():
        fix = f"delete it: worldmodel train --resume {run.path} then starts from scratch"
        yield from _problems(partial(load_tensors, checkpoint, ""), fix)
    for ensemble in sorted(run.path.glob("models/ensemble_*.pt")):
        fix = "delete it: the next agent that needs it trains it again"
        yield from _problems(partial(load_tensors, ensemble, ""), fix)
    yield from _check_results(run.path)
    for folder in sorted(run.path.glob("rl/*/")):
        yield from _check_agent(folder)


def _check_results(run: Path) -> Iterator[Problem]:
    from worldmodel.planning.episodes import PlanResult
    from worldmodel.planning.goal_reaching import GoalResult
    from worldmodel.rl.compare import Comparison
    from worldmodel.rl.tune import Trials

    results: dict[str, tuple[type[Any], str]] = {
        "plan.json": (PlanResult, f"worldmodel plan {run}"),
        "goals.json": (GoalResult, f"worldmodel plan {run} --goals heldout"),
        "rl/compare.json": (Comparison, f"worldmodel rl compare {run}"),
        "rl/tune.json": (Trials, f"worldmodel rl tune {run}"),
    }
    for name, (kind, command) in results.items():
        if (run / name).exists():
            fix = f"delete it, then run `{command}`"
            yield from _problems(partial(read_record, run / name, kind, ""), fix)


def _check_agent(folder: Path) -> Iterator[Problem]:
    from worldmodel.rl.candidates import State
    from worldmodel.rl.compare import AgentResults
    from worldmodel.rl.loop import LoopState

    fix = f"delete {folder}, then train the agent again"
    for agent in sorted(folder.glob("*.zip")):
        yield from _problems(partial(read_settings, agent), fix)
    records = {"results.json": AgentResults, "loop.json": LoopState, "candidates.json": State}
    for name, kind in records.items():
        if (folder / name).exists():
            yield from _problems(partial(read_record, folder / name, kind, ""), fix)
    for header in sorted(folder.glob(f"experience/*/{HEADER_FILE}")):
        yield from check_buffer(header.parent)
    for config in sorted(folder.glob("model_*/config.yaml")):
        yield from _problems(partial(getattr, Run(config.parent, "cpu"), "model"), fix)


def _problems(read: Callable[[], Any], fix: str) -> Iterator[Problem]:
    """Yield a problem if reading something fails."""
    try:
        read()
    except (RunError, ValueError, OSError) as error:
        yield Problem(str(error).rstrip("; "), fix)
