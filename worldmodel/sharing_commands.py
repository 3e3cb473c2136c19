"""The command `worldmodel push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worldmodel.options import Json, RunArgument, Trust
from worldmodel.terminal import print_values, user_errors


def push(
    run: RunArgument,
    repo: Annotated[str, typer.Argument(help="Repository on the Hugging Face Hub: user/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make a private repository.")] = False,
    revision: Annotated[
        str | None,
        typer.Option(metavar="BRANCH", help="Branch, created if it is missing (default: main)."),
    ] = None,
    license: Annotated[
        str, typer.Option("--license", metavar="ID", help="Licence of the model, e.g. cc-by-4.0.")
    ] = "mit",
    dry_run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the files into DIR, without network access."),
    ] = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Upload a run to the Hugging Face Hub.

    Example: worldmodel push results/pendulum_image_20260101_120000 user/name --private

    Weights are uploaded as safetensors, with a model card made from metrics.json; the data is not.
    """
    with user_errors():
        from worldmodel.publish import push as upload

        result = upload(
            run, repo, private=private, revision=revision, license=license, dry_run=dry_run
        )
        print_values(result, as_json)
