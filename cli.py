"""The command line: parse, call, print."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from worldmodel.terminal import (
    WRONG_USAGE,
    TerminalProgress,
    describe,
    fail,
    print_metrics,
    print_table,
    print_values,
    user_errors,
)

if TYPE_CHECKING:
    from worldmodel.run import Run

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

ENV_HELP = "A Gymnasium environment's id, or module:Name of a class or factory."
WRAPPER_HELP = "module:Name applied to the environment; can be given several times."
KEY_HELP = "Entry of a Dict observation to learn from (default: the only usable one)."
SKIP_HELP = "Repeat each action N times (default: 1)."
DEVICE_HELP = "auto, cpu, cuda, cuda:N or mps."
OBJECTIVE_HELP = "vicreg, inverse, sigreg, variance, prediction, or module:Name."
POLICY_HELP = (
    "passive, random, mixed, a saved SB3 agent's .zip, RUN (its model plans), or module:Name."
)
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
RunArgument = Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any configuration key, e.g. phase1.learning_rate=1e-3."
    ),
]
KeyValues = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Arguments of the environment, e.g. start=uniform."),
]

Wrappers = Annotated[list[str] | None, typer.Option(metavar="MODULE:NAME", help=WRAPPER_HELP)]
ObservationKey = Annotated[str | None, typer.Option(metavar="KEY", help=KEY_HELP)]
FrameSkip = Annotated[int | None, typer.Option(min=1, metavar="N", help=SKIP_HELP)]


def _open(path: Path, device: str, settings: list[str] | None = None) -> Run:
    from worldmodel.config import parse_settings
    from worldmodel.run import Run

    run = Run(path, device)
    return run.with_settings(parse_settings(settings)) if settings else run


def _given(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


@app.command()
def train(
    env: Annotated[str | None, typer.Option(help=ENV_HELP)] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help="Own data instead of collecting; may be repeated."),
    ] = None,
    mode: Annotated[str | None, typer.Option(help="pendulum_image or pendulum (vectors).")] = None,
    preset: Annotated[str, typer.Option(help="smoke, quick or standard.")] = "quick",
    config: Annotated[Path | None, typer.Option(help="YAML file.", metavar="FILE")] = None,
    observation: Annotated[str | None, typer.Option(help="pixels or vector.")] = None,
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
    batch_size: Annotated[int | None, typer.Option(help="Batch size of both phases.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the frames in pixels.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="conv, keypoints (default: pendulum), or module:Name.")
    ] = None,
    objective: Annotated[str | None, typer.Option(help=OBJECTIVE_HELP)] = None,
    state_key: StateKey = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of weights and batches.")] = None,
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Parent of run directories.")] = None,
    settings: Set = None,
    resume: Annotated[Path | None, typer.Option(help="Resume a run.", metavar="RUN")] = None,
    as_json: Json = False,
) -> None:
    """Train a world model and evaluate it, in about 6 minutes on two cores by default."""
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
        )
        if resume is not None:
            if options or config or settings or preset != "quick":
                fail("--resume uses the run's own configuration: give it alone", WRONG_USAGE)
            run = training.resume(resume)
        else:
            layers = [read_yaml(config)] if config else []
            resolved = build_config(*layers, options, parse_settings(settings), preset=preset)
            run = training.train(config=resolved)
        print_metrics([run.metrics], as_json)
        typer.echo(f"Report: {run.path / 'report.html'}", err=True)


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run directories.", metavar="RUN...")],
    reference: Annotated[
        int | None, typer.Option(min=0, help="Updates of a model of the true state (default: 500).")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Report on several runs (default: comparison.html).")
    ] = None,
    settings: Set = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Evaluate on held-out episodes: probes, forecasts, energy and collapse, about 90 s.

    Writes metrics.json and report.html into each run; several runs are compared in one more report.
    """
    with user_errors():
        from worldmodel.evaluation import evaluate_runs

        opened = [_open(path, device, settings) for path in runs]
        metrics = evaluate_runs(
            opened,
            reference_updates=reference,
            comparison=output,
            callbacks=[TerminalProgress()],
        )
        print_metrics(metrics, as_json)
        typer.echo("\n".join(f"Report: {run / 'report.html'}" for run in runs), err=True)


@app.command()
def rollout(
    run: RunArgument,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed; 20000 is the first held-out one.")
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
    settings: Set = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Play one real episode and imagine it open loop, side by side, with the error below."""
    with user_errors():
        from worldmodel.viz.rollout import parse_state

        result = _open(run, device, settings).rollout(
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
    settings: Set = None,
    device: Device = "auto",
) -> None:
    """Drive the real and the imagined environment together with the keyboard."""
    with user_errors():
        _open(run, device, settings).play(seed=seed, callbacks=[TerminalProgress()])


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
        typer.Option(min=0, help="Seed of the first episode (default: 20000), or of --goals."),
    ] = None,
    goals: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help="Reach goals of heldout or validation episodes, or of a buffer."
        ),
    ] = None,
    goal_offset: Annotated[
        int | None, typer.Option(min=1, help="Steps from start to goal (default: 25).")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Maximum steps per goal (default: 50).")
    ] = None,
    success: Annotated[
        str | None, typer.Option(help="terminated, distance, latent, or a key of info.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Largest distance (default: 0.25).")
    ] = None,
    start_option: Annotated[
        str | None, typer.Option(metavar="KEY", help="Reset option that sets the start's state.")
    ] = None,
    goal_option: Annotated[
        str | None, typer.Option(metavar="KEY", help="Reset option that takes the goal's state.")
    ] = None,
    output: Video = None,
    settings: Set = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Act in the real environment by planning with the model; record success and a video."""
    with user_errors():
        for_goals = _given(
            goal_offset=goal_offset,
            budget=budget,
            success=success,
            tolerance=tolerance,
            start_option=start_option,
            goal_option=goal_option,
        )
        for_one = _given(goal=goal, steps=steps)
        if wrong := for_goals if goals is None else for_one:
            option = "--" + next(iter(wrong)).replace("_", "-")
            fail(f"{option} {'needs' if goals is None else 'excludes'} --goals", WRONG_USAGE)
        common = _given(
            method=method,
            horizon=horizon,
            samples=samples,
            iterations=iterations,
            episodes=episodes,
            seed=seed,
            output=output,
        )
        opened, watching = _open(run, device, settings), [TerminalProgress()]
        if goals is None:
            result = opened.plan(**for_one, **common, callbacks=watching)
        else:
            result = opened.reach_goals(goals=goals, **for_goals, **common, callbacks=watching)
        print_values(result, as_json)


class _TrainByDefault(TyperGroup):
    """`worldmodel rl RUN` is `worldmodel rl train RUN`; a misspelled command is not a run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = [*self.commands, *ctx.help_option_names]
        close = get_close_matches(args[0], known, cutoff=0.8) if args else []
        if not close or (args[0] not in self.commands and Path(args[0]).exists()):
            args = ["train", *args]
        return super().parse_args(ctx, args)


rl_app = typer.Typer(
    cls=_TrainByDefault,
    help="Train agents: worldmodel rl RUN --on dream, short for rl train RUN.",
)
app.add_typer(rl_app, name="rl")

Steps = Annotated[
    int | None, typer.Option(min=1, help="Environment steps of training (default: 200000).")
]
Hyper = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE", help="Argument of the algorithm, or a YAML file of them; repeatable."
    ),
]
Algo = Annotated[str | None, typer.Option(help="ppo (default), a2c, sac, td3, ddpg or dqn.")]


@rl_app.command("train")
def rl_train(
    run: RunArgument,
    on: Annotated[
        str | None, typer.Option(help="dream (default), latent, pixels or state.")
    ] = None,
    algo: Algo = None,
    steps: Steps = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed (default: 0).")] = None,
    envs: Annotated[
        int | None, typer.Option(min=1, help="Environments at once (default: 128 dreams, 32 real).")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=0, help="Rounds of acting and fine-tuning the model.")
    ] = None,
    dream_steps: Annotated[
        int | None, typer.Option(min=1, help="Maximum imagined rollout length (default: 50).")
    ] = None,
    ensemble: Annotated[
        int | None, typer.Option(min=0, help="Ensemble size for the uncertainty penalty.")
    ] = None,
    penalty: Annotated[
        float | None, typer.Option(min=0, help="Reward per unit of disagreement (default: 0.02).")
    ] = None,
    hyper: Hyper = None,
    settings: Set = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Train a Stable-Baselines3 agent, and evaluate it in the real environment."""
    with user_errors():
        from worldmodel.rl.agents import result_summary
        from worldmodel.rl.tuned import parse_hyper

        changes = _given(
            on=on, algo=algo, steps=steps, seed=seed, num_envs=envs, dream_steps=dream_steps
        )
        changes |= parse_hyper(hyper)
        changes["loop"] = _given(rounds=rounds)
        changes["ensemble"] = _given(size=ensemble, penalty=penalty)
        opened = _open(run, device, settings)
        results = opened.train_agent(callbacks=[TerminalProgress()], **changes)
        print_values(results if as_json else result_summary(results), as_json)


@rl_app.command("compare")
def rl_compare(
    run: RunArgument,
    algo: Algo = None,
    steps: Steps = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, from 0.")] = 3,
    pixels: Annotated[
        bool, typer.Option(help="Include agents on pixels, by far the slowest.")
    ] = True,
    hyper: Hyper = None,
    settings: Set = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Compare agents on latents, in the dream, on pixels and on the true state."""
    with user_errors():
        from worldmodel.rl.compare import comparison_table
        from worldmodel.rl.tuned import parse_hyper

        comparison = _open(run, device, settings).compare_agents(
            range(seeds),
            pixels=pixels,
            callbacks=[TerminalProgress()],
            **_given(algo=algo, steps=steps),
            **parse_hyper(hyper),
        )
        if as_json:
            print_values(comparison, as_json=True)
        else:
            print_table(comparison_table(comparison))


@app.command()
def collect(
    path: Annotated[Path, typer.Argument(help="Directory of the replay buffer.")],
    env: Annotated[str, typer.Option(help=ENV_HELP)] = "DoublePendulumPixels-v0",
    size: Annotated[int, typer.Option(min=1, help="Number of trajectories.")] = 10_000,
    steps: Annotated[int, typer.Option(min=1, help="Maximum steps per trajectory.")] = 30,
    policy: Annotated[str, typer.Option(help=POLICY_HELP)] = "passive",
    observation: Annotated[Observation, typer.Option(help="pixels or vector.")] = "pixels",
    image_size: Annotated[int, typer.Option(min=8, help="Side of the frames in pixels.")] = 64,
    seed: Annotated[
        int | None, typer.Option(min=0, help="First seed (default: the next free one).")
    ] = None,
    state_key: StateKey = None,
    env_kwargs: KeyValues = None,
    wrapper: Wrappers = None,
    observation_key: ObservationKey = None,
    frame_skip: FrameSkip = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes (default: one per core where that pays).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Collect trajectories from any Gymnasium environment into a replay buffer."""
    with user_errors():
        from worldmodel.config import parse_settings
        from worldmodel.data.datasets import collect_to

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
            callbacks=[TerminalProgress()],
        )
        print_values(summary, as_json)


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="A run directory or a replay buffer.")],
    as_json: Json = False,
) -> None:
    """Show what a run or a replay buffer holds."""
    with user_errors():
        print_values(describe(path), as_json)


def main() -> None:
    """Entry point of the console script; ``module:Name`` also finds modules of this directory."""
    sys.path.append(str(Path.cwd()))
    app()


if __name__ == "__main__":
    main()
