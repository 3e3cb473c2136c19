"""The commands `worldmodel rollout`, `play` and `plan`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from worldmodel.options import (
    POLICY_HELP,
    SUCCESS_HELP,
    Device,
    Json,
    RunArgument,
    Set,
    Trust,
    Video,
    given,
    open_run,
)
from worldmodel.terminal import (
    WRONG_USAGE,
    TerminalProgress,
    fail,
    print_values,
    user_errors,
)


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
    """Play one real episode and imagine it open loop, side by side, with the error below.

    Example: worldmodel rollout results/pendulum_image_20260101_120000 --output episode.mp4
    """
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


def play(
    run: RunArgument,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the first reset.")] = 20_000,
    trust: Trust = False,
    settings: Set = None,
    device: Device = "auto",
) -> None:
    """Drive the real and the imagined environment together with the keyboard.

    Example: worldmodel play results/pendulum_image_20260101_120000
    """
    with user_errors():
        open_run(run, device, settings).play(seed=seed, callbacks=[TerminalProgress()])


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
    """Act in the real environment by planning with the model; record success and a video.

    Example: worldmodel plan results/pendulum_image_20260101_120000 --goal upright
    """
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
        typer.echo(_outcome(result), err=True)


def _outcome(result: Mapping[str, Any]) -> str:
    """Say in one sentence how often the goals of `plan.json` or `goals.json` were reached."""
    count, reached = len(result["attempts"]), result["successes"]
    if "goals" in result:
        random, at_start = result["random_successes"], result["successes_at_start"]
        return (
            f"Planning reached {reached} of {count} goals and uniform random actions {random}; "
            f"{at_start} were reached at the start."
        )
    if reached is None:
        return (
            f"The goal {result['goal']!r} has no test of success, so successes and "
            "steps_to_success are null; compare return_mean with that of other policies."
        )
    return (
        f"The goal {result['goal']!r} was reached in {reached} of {count} episodes; "
        "steps_to_success is null in the others."
    )
