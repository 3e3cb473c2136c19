"""Options that several commands share, and how commands open runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from worldmodel.run import Run

ENV_HELP = "A Gymnasium environment's id, or module:Name of a class or factory."
WRAPPER_HELP = "module:Name applied to the environment; can be given several times."
SET_HELP = "A key of the configuration, e.g. phase1.updates=2000; can be given several times."
KWARGS_HELP = "Argument of the environment, e.g. start=uniform; can be given several times."
KEY_HELP = "Entry of a Dict observation to learn from (default: the only usable one)."
SKIP_HELP = "Repeat each action N times (default: 1)."
DEVICE_HELP = "auto, cpu, cuda, cuda:N or mps."
OBJECTIVE_HELP = (
    "inverse (pixels), vicreg (vectors, pendulum), sigreg, variance, prediction, or module:Name."
)
PRESET_HELP = "smoke (half a minute), quick (4 to 10 minutes) or standard (50 minutes)."
IMAGE_SIZE_HELP = "Side of the frames in pixels, a multiple of 16 (default: 64)."
SUCCESS_HELP = "distance (with true states), latent, terminated, or a key of info."
TRACKER_HELP = "Also log to wandb or trackio; can be given several times."
RUN_HELP = "A run directory or hf://user/name."
POLICY_HELP = (
    "passive, random, mixed, a saved SB3 agent's .zip, RUN (its model plans), or module:Name."
)
COLLECT_POLICY_HELP = f"{POLICY_HELP} Default: random; for the pendulum passive."
Observation = Literal["pixels", "vector"]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
StateKey = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="Key of info with the true state, for probes."),
]
Device = Annotated[str, typer.Option(help=DEVICE_HELP)]
Video = Annotated[
    Path | None, typer.Option(help="An .mp4 or .gif (default: in the run directory).")
]
RunArgument = Annotated[Path, typer.Argument(help=RUN_HELP, metavar="RUN")]


def _accept(trust: bool) -> bool:
    """Trust every run and agent from here on, if the option is given."""
    if trust:
        from worldmodel.trust import trust_all

        trust_all()
    return trust


Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        callback=_accept,
        help="Accept the code that an untrusted run or agent refers to.",
    ),
]
"""Takes effect in its callback; commands need not pass it on."""
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help=SET_HELP),
]
KeyValues = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help=KWARGS_HELP),
]

Wrappers = Annotated[list[str] | None, typer.Option(metavar="MODULE:NAME", help=WRAPPER_HELP)]
ObservationKey = Annotated[str | None, typer.Option(metavar="KEY", help=KEY_HELP)]
FrameSkip = Annotated[int | None, typer.Option(min=1, metavar="N", help=SKIP_HELP)]


def open_run(path: Path, device: str, settings: list[str] | None = None) -> Run:
    """Open a run, with the settings of ``--set``."""
    from worldmodel.run import Run
    from worldmodel.settings import parse_settings

    run = Run(path, device)
    return run.with_settings(parse_settings(settings)) if settings else run


def given(**options: Any) -> dict[str, Any]:
    """Return the options that are not None."""
    return {name: value for name, value in options.items() if value is not None}
