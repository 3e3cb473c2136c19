"""The commands `worldmodel collect`, `convert`, `view`, `info` and `repair`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from worldmodel.options import (
    COLLECT_POLICY_HELP,
    ENV_HELP,
    FrameSkip,
    Json,
    KeyValues,
    Observation,
    ObservationKey,
    StateKey,
    Trust,
    Wrappers,
)
from worldmodel.terminal import (
    FAILED,
    WRONG_USAGE,
    TerminalProgress,
    fail,
    print_problems,
    print_values,
    user_errors,
)

Compression = Annotated[
    Literal["none", "lz4"] | None,
    typer.Option(help="Compression of the frames, lossless (default: none, or as in the buffer)."),
]


def collect(
    path: Annotated[Path, typer.Argument(help="Directory of the replay buffer.")],
    env: Annotated[str, typer.Option(help=ENV_HELP)] = "DoublePendulumPixels-v0",
    size: Annotated[int, typer.Option(min=1, help="Number of trajectories.")] = 10_000,
    steps: Annotated[int, typer.Option(min=1, help="Maximum steps per trajectory.")] = 30,
    policy: Annotated[str | None, typer.Option(help=COLLECT_POLICY_HELP)] = None,
    observation: Annotated[Observation, typer.Option(help="pixels or vector.")] = "pixels",
    image_size: Annotated[int, typer.Option(min=8, help="Side of the frames in pixels.")] = 64,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the first episode (default: the next free).")
    ] = None,
    state_key: StateKey = None,
    env_kwargs: KeyValues = None,
    wrapper: Wrappers = None,
    observation_key: ObservationKey = None,
    frame_skip: FrameSkip = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes (default: one per core if faster).")
    ] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Collect shards on a Ray cluster (RAY_ADDRESS, or local).")
    ] = False,
    compression: Compression = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Collect trajectories from any Gymnasium environment into a replay buffer.

    Example: worldmodel collect data/mine --env CartPole-v1 --size 1000
    """
    with user_errors():
        from worldmodel.data.collect_command import collect_to
        from worldmodel.settings import parse_settings

        summary = collect_to(
            path,
            env_id=env,
            env_kwargs=parse_settings(env_kwargs),
            size=size,
            steps=steps,
            policy=policy,
            observation=observation,
            image_size=image_size,
            state_key=state_key or "state",
            first_seed=seed,
            wrappers=wrapper or (),
            observation_key=observation_key,
            frame_skip=frame_skip or 1,
            workers=workers,
            ray=ray,
            compression=compression,
            callbacks=[TerminalProgress()],
        )
        print_values(summary, as_json)


def convert(
    src: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="A replay buffer, an HDF5 file, a Minari or LeRobot v3 dataset, or module:Name.",
        ),
    ],
    dst: Annotated[
        str, typer.Argument(metavar="DST", help="Path of the new dataset, or minari:ID.")
    ],
    to: Annotated[
        Literal["buffer", "minari", "hdf5", "lerobot"] | None,
        typer.Option(help="Format (default: by the name: .h5, .hdf5, minari:ID)."),
    ] = None,
    observation: Annotated[
        Observation | None, typer.Option(help="pixels or vector (default: pixels if any).")
    ] = None,
    observation_key: ObservationKey = None,
    state_key: StateKey = None,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="To LeRobot: images as PNG instead of mp4.")
    ] = False,
    fps: Annotated[
        float | None, typer.Option(min=0.1, help="To LeRobot: frames per second.")
    ] = None,
    compression: Compression = None,
    as_json: Json = False,
) -> None:
    """Convert recorded episodes between replay buffers, Minari, HDF5 and LeRobot v3.

    Example: worldmodel convert data/mine recordings.h5

    Nothing is overwritten, and DST appears when it is complete.
    """
    with user_errors():
        from worldmodel.data.convert import convert as convert_episodes

        summary = convert_episodes(
            src,
            dst,
            to=to,
            observation=observation,
            observation_key=observation_key,
            state_key=state_key or "state",
            lossless=lossless,
            fps=fps,
            compression=compression,
            callbacks=[TerminalProgress()],
        )
        print_values(summary, as_json)


def view(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A dataset of any format that convert reads.")
    ],
    episode: Annotated[
        int | None, typer.Option(min=0, help="Episode to start with, counted from 0.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(min=0.1, help="Frames per second (default: of the data).")
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Write a contact sheet instead of a window."),
    ] = None,
    observation_key: ObservationKey = None,
) -> None:
    """Play recorded episodes in a window, or write a contact sheet of them.

    Example: worldmodel view data/mine --sheet episodes.png
    """
    with user_errors():
        from worldmodel import viz

        if sheet is None:
            viz.view(path, episode=episode or 0, fps=fps, observation_key=observation_key)
            return
        viz.write_sheet(path, sheet, episode=episode, fps=fps, observation_key=observation_key)
        typer.echo(f"Written: {sheet}", err=True)


def info(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A run directory, hf://user/name, or a replay buffer (default: the installation)."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Read everything and report what is damaged.")
    ] = False,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Show what a run or a replay buffer holds, or without a path what is installed.

    Example: worldmodel info

    The versions, devices and optional libraries that it shows belong in a bug report.

    Example: worldmodel info --check data/mine
    """
    with user_errors():
        if path is None:
            if check:
                fail("--check needs the path of a run or a replay buffer", WRONG_USAGE)
            from worldmodel.installation import describe_installation

            print_values(describe_installation(), as_json)
            return
        from worldmodel.checks import check_path, describe
        from worldmodel.hub import local_path

        path = local_path(path)
        if not check:
            print_values(describe(path), as_json)
            return
        problems = check_path(path)
        print_problems(path, problems, as_json)
        if problems:
            raise typer.Exit(FAILED)


def repair(
    path: Annotated[Path, typer.Argument(help="A replay buffer.")],
    discard: Annotated[
        bool, typer.Option("--discard", help="Delete what cannot be repaired.")
    ] = False,
) -> None:
    """Repair the index of a replay buffer, so that it can be read and extended again.

    Example: worldmodel repair data/mine
    """
    with user_errors():
        from worldmodel.data.repair import repair_buffer

        typer.echo(repair_buffer(path, discard=discard))
