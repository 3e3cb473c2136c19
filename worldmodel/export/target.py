"""Where an export goes: a page or a directory of ONNX files, by the name of the target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worldmodel.callbacks import Callback, CallbackList
from worldmodel.export.dream import write_dream
from worldmodel.export.onnx_files import write_onnx
from worldmodel.run import Run
from worldmodel.viz import link_dream

_HEADS = ("reward_head", "termination_head")


def export(run: Run, to: str | Path, *, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """Write the model of a run as one page, or as ONNX files.

    Files are written completely or not at all. An earlier export at the same place is replaced;
    other files and directories with other files are not.

    Args:
        run: a finished run.
        to: ``NAME.html`` for one page in which the model runs in the browser, see `write_dream`;
            a directory for ONNX files, see `write_onnx`.
        callbacks: callbacks that show progress and messages.

    Returns:
        `path` and `bytes` of what was written, and more about it, as JSON values.

    Raises:
        RunError: If the run is not finished, or a file of it is damaged.
        ValueError: If the target has another suffix or is not an export, the model has a part that
            cannot be exported, or a library is missing.
        OSError: If the target cannot be written.
    """
    path, watching = Path(to), CallbackList(callbacks)
    if path.suffix not in ("", ".html"):
        raise ValueError(
            f"cannot export to {path}: expected NAME.html for a page, or a directory (a name "
            "without a suffix) for ONNX files"
        )
    _require_complete(run)
    run.warn_if_one_action(watching)
    if path.suffix != ".html":
        return write_onnx(run, path)
    result = write_dream(run, path, watching)
    if path.resolve().parent == run.path.resolve():
        link_dream(run.path)
    return result


def _require_complete(run: Run) -> None:
    """Check that a run has all that is exported: heads, domain and start latents."""
    if missing := [name for name in _HEADS if not hasattr(run.model, name)]:
        raise ValueError(
            f"the model of {run.path} has no {' and no '.join(missing)}, so no rewards or "
            "terminations to export; train a run with this version"
        )
    _ = run.domain, run.starts
