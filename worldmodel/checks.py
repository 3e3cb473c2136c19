"""Verification of a whole run or replay buffer: every file is read, nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from worldmodel.agent_files import read_settings
from worldmodel.data.header import HEADER_FILE
from worldmodel.data.repair import check_buffer
from worldmodel.errors import Problem, RunError
from worldmodel.files import load_tensors, read_json, read_record
from worldmodel.run import Run

_JSON_FILES = {
    "plan.json": "worldmodel plan",
    "goals.json": "worldmodel plan --goals",
    "rl/compare.json": "worldmodel rl compare",
}


def check_path(path: str | Path) -> list[Problem]:
    """Find everything that is damaged in a run directory or a replay buffer.

    A check reads every byte: of a buffer each episode is compared with its checksum, of a run all
    weights and results are loaded and validated. The code that a run names is not imported unless
    the run is trusted, see `worldmodel.trust`; its model is then not built.

    Args:
        path: the directory.

    Returns:
        What is damaged and how to repair it; empty if everything is intact.

    Raises:
        RunError: If it is neither a run nor a buffer.
    """
    path = Path(path)
    if (path / HEADER_FILE).exists():
        return check_buffer(path)
    if not (path / "config.yaml").exists():
        raise RunError(
            f"{path} is neither a run directory (no config.yaml) nor a replay buffer (no "
            f"{HEADER_FILE})"
        )
    return list(_check_run(Run(path, "cpu")))


def _check_run(run: Run) -> Iterator[Problem]:
    again = "train the run again, or restore the file from a copy"
    resume = f"worldmodel train --resume {run.path}"
    evaluate = f"worldmodel evaluate {run.path}"
    readers = [run.read_config, *([run.parse_spec] if run.finished else [])]
    if damaged := [problem for read in readers for problem in _try(read, again)]:
        yield from damaged
        return
    trusting = f"if you trust it: worldmodel info --check --trust {run.path}"
    if untrusted := list(_try(lambda: run.config, trusting)):
        yield from untrusted
        return
    if run.finished:
        yield from _try(lambda: run.model, again)
        yield from _try(lambda: (run.metrics, run.probe), evaluate)
    checkpoint = run.path / "checkpoint.pt"
    if checkpoint.exists():
        fix = f"delete it: {resume} then starts from scratch"
        yield from _try(lambda: load_tensors(checkpoint, ""), fix)
    for name, command in _JSON_FILES.items():
        if (run.path / name).exists():
            yield from _try(_reader(run.path / name), f"delete it, then run `{command} {run.path}`")
    for folder in sorted(run.path.glob("rl/*/")):
        yield from _check_agents(folder)


def _check_agents(folder: Path) -> Iterator[Problem]:
    from worldmodel.rl.loop import LoopState

    fix = f"delete {folder}, then train the agent again"
    for agent in sorted(folder.glob("*.zip")):
        yield from _try(partial(read_settings, agent), fix)
    if (folder / "results.json").exists():
        yield from _try(_reader(folder / "results.json"), fix)
    if (folder / "loop.json").exists():
        yield from _try(partial(read_record, folder / "loop.json", LoopState, ""), fix)
    for ensemble in sorted(folder.glob("*.pt")):
        yield from _try(partial(load_tensors, ensemble, ""), fix)
    for header in sorted(folder.glob(f"experience/*/{HEADER_FILE}")):
        yield from check_buffer(header.parent)
    for config in sorted(folder.glob("model_*/config.yaml")):
        yield from _try(partial(getattr, Run(config.parent, "cpu"), "model"), fix)


def _reader(path: Path) -> Callable[[], Any]:
    return lambda: json.dumps(read_json(path, ""))


def _try(read: Callable[[], Any], fix: str) -> Iterator[Problem]:
    try:
        read()
    except (RunError, ValueError, OSError) as error:
        yield Problem(str(error).rstrip("; "), fix)
