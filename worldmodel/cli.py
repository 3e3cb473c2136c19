"""The command line: parse, call, print."""

from __future__ import annotations

import os
import signal
import sys
import threading
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from worldmodel import __version__
from worldmodel.acting_commands import plan, play, rollout
from worldmodel.agent_commands import rl_app
from worldmodel.data_commands import collect, convert, info, repair, view
from worldmodel.options import (
    COLLECT_POLICY_HELP,
    DEVICE_HELP,
    ENV_HELP,
    IMAGE_SIZE_HELP,
    OBJECTIVE_HELP,
    PRESET_HELP,
    RUN_HELP,
    TRACKER_HELP,
    Device,
    FrameSkip,
    Json,
    KeyValues,
    Observation,
    ObservationKey,
    RunArgument,
    Set,
    StateKey,
    Trust,
    Wrappers,
    open_run,
)
from worldmodel.registry import SEARCHED
from worldmodel.sharing_commands import push
from worldmodel.sweep_commands import sweep
from worldmodel.terminal import (
    DEBUG,
    WRONG_USAGE,
    TerminalProgress,
    fail,
    is_worker_process,
    print_metrics,
    print_values,
    report_thread_error,
    user_errors,
)


class _Commands(TyperGroup):
    """All commands; a bad value of an option is reported in the words of the configuration."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            from pydantic import ValidationError

            from worldmodel.config_errors import complaint

            if isinstance(error.__cause__, ValidationError):
                error.message = complaint(error.__cause__.errors()[0])
            raise


app = typer.Typer(
    cls=_Commands,
    name="worldmodel",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
)
app.add_typer(rl_app, name="rl")


@app.command()
def train(
    env: Annotated[str | None, typer.Option(help=ENV_HELP)] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help="Train on your own data; can be given several times."),
    ] = None,
    mode: Annotated[str | None, typer.Option(help="pendulum_image or pendulum (vectors).")] = None,
    preset: Annotated[str, typer.Option(help=PRESET_HELP)] = "quick",
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings.", metavar="FILE")
    ] = None,
    observation: Annotated[Observation | None, typer.Option(help="pixels or vector.")] = None,
    env_kwargs: KeyValues = None,
    wrapper: Wrappers = None,
    observation_key: ObservationKey = None,
    frame_skip: FrameSkip = None,
    size: Annotated[
        int | None, typer.Option(help="Trajectories (default: 1000 or more; pendulum: 10000).")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Steps of each (default: 50; pendulum: 30). Short ones shorten the horizon."
        ),
    ] = None,
    policy: Annotated[str | None, typer.Option(help=COLLECT_POLICY_HELP)] = None,
    updates: Annotated[
        int | None, typer.Option(min=1, help="Updates of phase 1 (default: 1563).")
    ] = None,
    decoder_updates: Annotated[
        int | None, typer.Option(min=1, help="Updates of phase 2 (default: 469).")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of phase 1, instead of updates.")
    ] = None,
    decoder_epochs: Annotated[
        int | None, typer.Option(help="Epochs of phase 2, instead of updates.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Batch size (default: 128).")] = None,
    image_size: Annotated[int | None, typer.Option(help=IMAGE_SIZE_HELP)] = None,
    encoder: Annotated[
        str | None, typer.Option(help="conv, keypoints (default: pendulum), or module:Name.")
    ] = None,
    objective: Annotated[str | None, typer.Option(help=OBJECTIVE_HELP)] = None,
    state_key: StateKey = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of weights and batches.")] = None,
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Parent of run directories.")] = None,
    tracker: Annotated[list[str] | None, typer.Option(metavar="NAME", help=TRACKER_HELP)] = None,
    settings: Set = None,
    resume: Annotated[
        Path | None, typer.Option(help="Resume a stopped run.", metavar="RUN")
    ] = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Train a world model and evaluate it, by default in 4 to 10 minutes on two cores.

    Example: worldmodel train --env CartPole-v1
    """
    with user_errors():
        from worldmodel import training
        from worldmodel.config import build_config, from_options
        from worldmodel.settings import parse_settings, read_yaml

        options = from_options(
            env=env,
            data=data or None,
            mode=mode,
            observation=observation,
            env_kwargs=parse_settings(env_kwargs) or None,
            wrappers=wrapper or None,
            observation_key=observation_key,
            frame_skip=frame_skip,
            size=size,
            steps=steps,
            policy=policy,
            updates=updates,
            decoder_updates=decoder_updates,
            epochs=epochs,
            decoder_epochs=decoder_epochs,
            batch_size=batch_size,
            image_size=image_size,
            encoder=encoder,
            objective=objective,
            state_key=state_key,
            seed=seed,
            device=device,
            output_dir=output_dir,
            trackers=tracker or None,
        )
        if resume is not None:
            if options or config or settings or preset != "quick":
                fail("--resume uses the run's own configuration: give it alone", WRONG_USAGE)
            run = training.resume(resume)
        else:
            layers = [read_yaml(config)] if config else []
            resolved = build_config(*layers, options, parse_settings(settings), preset=preset)
            run = training.train(config=resolved)
        if not is_worker_process():
            print_metrics([run.metrics], as_json)
            typer.echo(f"Report: {run.path / 'report.html'}", err=True)


@app.command()
def evaluate(
    runs: Annotated[
        list[Path], typer.Argument(help=f"{RUN_HELP} Can be several.", metavar="RUN...")
    ],
    reference: Annotated[
        int | None, typer.Option(min=0, help="Updates of a model of the true state (default: 500).")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Report on several runs (default: comparison.html).")
    ] = None,
    trust: Trust = False,
    settings: Set = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Evaluate on held-out episodes: probes, forecasts, energy and collapse, about 90 s.

    Example: worldmodel evaluate results/pendulum_image_20260101_120000

    Writes metrics.json and report.html into each run; several runs are compared in one more report.
    """
    with user_errors():
        from worldmodel.evaluation import evaluate_runs

        opened = [open_run(path, device, settings) for path in runs]
        metrics = evaluate_runs(
            opened,
            reference_updates=reference,
            comparison=output,
            callbacks=[TerminalProgress()],
        )
        print_metrics(metrics, as_json)
        typer.echo("\n".join(f"Report: {run.path / 'report.html'}" for run in opened), err=True)


@app.command()
def export(
    run: RunArgument,
    to: Annotated[
        Path,
        typer.Option(help="NAME.html for one page, or a directory for ONNX files.", metavar="PATH"),
    ],
    trust: Trust = False,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Write the model as one page that runs in a browser, or as ONNX files.

    Example: worldmodel export results/pendulum_image_20260101_120000 --to dream.html
    """
    with user_errors():
        result = open_run(run, "cpu", settings).export(to, callbacks=[TerminalProgress()])
        print_values(result, as_json)


app.command()(rollout)
app.command()(play)
app.command()(plan)
app.command()(sweep)
app.command()(collect)
app.command()(convert)
app.command()(view)
app.command()(info)
app.command()(repair)
app.command()(push)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"worldmodel {__version__}")
        raise typer.Exit()


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the whole traceback of an error.")
    ] = False,
) -> None:
    """Learn a world model of a Gymnasium environment from pixels, evaluate it, and step it.

    Example: worldmodel train --preset smoke
    """
    if debug:
        os.environ[DEBUG] = "1"


def _write_every_character() -> None:
    """Escape what an output cannot encode, as "θ" in a file on Windows, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """Run the command line; ``module:Name`` also finds modules of this directory."""
    SEARCHED[:] = [str(Path.cwd())]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops like Ctrl-C
    threading.excepthook = report_thread_error
    _write_every_character()
    words = sys.argv[1:]
    app([*["--debug"] * ("--debug" in words), *(word for word in words if word != "--debug")])
