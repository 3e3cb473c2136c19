"""The command line: parse, call, print."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from worldmodel.agent_commands import rl_app
from worldmodel.data_commands import collect, convert, info, repair, view
from worldmodel.options import (
    DEVICE_HELP,
    ENV_HELP,
    IMAGE_SIZE_HELP,
    OBJECTIVE_HELP,
    POLICY_HELP,
    PRESET_HELP,
    RUN_HELP,
    SUCCESS_HELP,
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
    Video,
    Wrappers,
    given,
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

app = typer.Typer(
    name="worldmodel",
    help="Learn a world model of a Gymnasium environment from pixels, evaluate it, and step it.",
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
        int | None, typer.Option(help="Steps of each (default: 50; pendulum: 30).")
    ] = None,
    policy: Annotated[str | None, typer.Option(help=POLICY_HELP)] = None,
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
        str | None, typer.Option(help="conv, keypoints (pendulum), or module:Name.")
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
    """Train a world model and evaluate it, by default in 6 to 10 minutes on two cores."""
    with user_errors():
        from worldmodel import training
        from worldmodel.config import build_config, from_options, parse_settings, read_yaml

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
def rollout(
    run: RunArgument,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed; by default the first held-out seed.")
    ] = 20_000,
    state: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS", help='True state to start in, as "3.1 3.1 0 0", where it can be set.'
        ),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help=f"{POLICY_HELP} Default: that of the run's data.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Maximum imagined steps.")] = 100,
    output: Video = None,
    window: Annotated[bool, typer.Option("--window", help="Show it in a window instead.")] = False,
    trust: Trust = False,
    settings: Set = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Play one real episode and imagine it open loop, side by side, with the error below."""
    with user_errors():
        from worldmodel.viz.rollout import parse_state

        result = open_run(run, device, settings).rollout(
            policy=policy,
            seed=seed,
            state=None if state is None else parse_state(state),
            steps=steps,
            output=output,
            window=window,
            callbacks=[TerminalProgress()],
        )
        print_values(result, as_json)


@app.command()
def play(
    run: RunArgument,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the first reset.")] = 20_000,
    trust: Trust = False,
    settings: Set = None,
    device: Device = "auto",
) -> None:
    """Drive the real and the imagined environment together with the keyboard."""
    with user_errors():
        open_run(run, device, settings).play(seed=seed, callbacks=[TerminalProgress()])


@app.command()
def plan(
    run: RunArgument,
    goal: Annotated[
        str | None, typer.Option(help="reward, the environment's own (upright), or an image.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="icem (default), cem, mppi, or module:Name.")
    ] = None,
    horizon: Annotated[int | None, typer.Option(min=1, help="Steps ahead (default: 20).")] = None,
    samples: Annotated[int | None, typer.Option(min=2, help="Candidates per iteration.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Iterations per search.")] = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Number of episodes (default: 10; with --goals 50).")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Maximum steps per episode (default: 200).")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Seed of the first episode (default: 20000), or of all tasks of --goals (0).",
        ),
    ] = None,
    goals: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Reach goals from heldout or validation episodes, or from a buffer.",
        ),
    ] = None,
    goal_offset: Annotated[
        int | None, typer.Option(min=1, help="Steps from start to goal (default: 25).")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Maximum steps per goal (default: 50).")
    ] = None,
    success: Annotated[str | None, typer.Option(help=SUCCESS_HELP)] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Largest distance, in std (default: 0.25).")
    ] = None,
    start_option: Annotated[
        str | None, typer.Option(metavar="KEY", help="Reset option that sets the start's state.")
    ] = None,
    goal_option: Annotated[
        str | None, typer.Option(metavar="KEY", help="Reset option that sets the goal's state.")
    ] = None,
    output: Video = None,
    trust: Trust = False,
    settings: Set = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Act in the real environment by planning with the model; record success and a video."""
    with user_errors():
        for_goals = given(
            goal_offset=goal_offset,
            budget=budget,
            success=success,
            tolerance=tolerance,
            start_option=start_option,
            goal_option=goal_option,
        )
        for_one = given(goal=goal, steps=steps)
        if wrong := for_goals if goals is None else for_one:
            option = "--" + next(iter(wrong)).replace("_", "-")
            reason = "requires" if goals is None else "cannot be used with"
            fail(f"{option} {reason} --goals", WRONG_USAGE)
        common = given(
            method=method,
            horizon=horizon,
            samples=samples,
            iterations=iterations,
            episodes=episodes,
            seed=seed,
            output=output,
        )
        opened, watching = open_run(run, device, settings), [TerminalProgress()]
        if goals is None:
            result = opened.plan(**for_one, **common, callbacks=watching)
        else:
            result = opened.reach_goals(goals=goals, **for_goals, **common, callbacks=watching)
        print_values(result, as_json)


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


app.command()(sweep)
app.command()(collect)
app.command()(convert)
app.command()(view)
app.command()(info)
app.command()(repair)
app.command()(push)


@app.callback()
def common(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the whole traceback of an error.")
    ] = False,
) -> None:
    """Learn a world model of a Gymnasium environment from pixels, evaluate it, and step it."""
    if debug:
        os.environ[DEBUG] = "1"


def main() -> None:
    """Run the command line; ``module:Name`` also finds modules of this directory."""
    SEARCHED[:] = [str(Path.cwd())]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops like Ctrl-C
    threading.excepthook = report_thread_error
    words = sys.argv[1:]
    app([*["--debug"] * ("--debug" in words), *(word for word in words if word != "--debug")])


if __name__ == "__main__":
    main()
