"""The command `worldmodel sweep`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from worldmodel.options import Json, Trust
from worldmodel.terminal import FAILED, print_table, print_values, user_errors


def sweep(
    file: Annotated[Path, typer.Argument(help="A sweep file.", metavar="SWEEP.yaml")],
    output_dir: Annotated[
        Path | None,
        typer.Option(help="Parent of the run directories (default: results/<name of the file>)."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Simultaneous trials on this machine (default: one per core)."),
    ] = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Train configurations with several seeds on a Ray cluster, and compare them.

    Example: worldmodel sweep benchmarks/sweeps/encoder.yaml --workers 2

    The same command resumes. The cluster is that of RAY_ADDRESS, or one on this machine.
    """
    with user_errors():
        from worldmodel import sweeps
        from worldmodel.sweeps.results import rich_table

        with redirect_stdout(sys.stderr):  # Ray prints on stdout when a worker dies
            result = sweeps.sweep(file, output_dir=output_dir, workers=workers)
        if as_json:
            print_values(result.to_dict(), as_json=True)
        else:
            print_table(rich_table(result))
        for name in ("table.md", "sweep.png", "report.html"):
            if (result.path / name).is_file():
                typer.echo(f"Written: {result.path / name}", err=True)
        for name, error in result.failures.items():
            typer.echo(f"Error: {name}: {error}", err=True)
        if result.failures:
            raise typer.Exit(FAILED)
