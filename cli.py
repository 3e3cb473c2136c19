"""The command line: parse, call, print."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from worldmodel.terminal import (
    WRONG_USAGE,
    console,
    fail,
    print_facts,
    print_metrics,
    print_table,
    user_errors,
)

app = typer.Typer(
    name="worldmodel",
    help="Learn an environment's physics from pixels, prove it, and step the result.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
)

POLICY_HELP = "passive, random, mixed, a saved SB3 agent's .zip, or RUN, to plan with its model."
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Seed = Annotated[int | None, typer.Option(help="Seed of initialisation and data order.")]
StateKey = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="Key of info that tells the true state, for probes."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
RunArgument = Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key, as in phase1.learning_rate=1e-3."),
]


def _nested(**values: Any) -> dict[str, Any]:
    """Options as configuration, those not given left out; ``a__b`` is section a, key b."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if value is not None:
            section, _, key = name.rpartition("__")
            (nested.setdefault(section, {}) if section else nested)[key] = value
    return nested


@app.command()
def train(
    mode: Annotated[
        str | None, typer.Option(help="pendulum_image (pixels) or pendulum (coordinates).")
    ] = None,
    env: Annotated[str | None, typer.Option(help="Any Gymnasium environment's id.")] = None,
    preset: Annotated[str, typer.Option(help="smoke, quick or standard.")] = "quick",
    config: Annotated[
        Path | None, typer.Option(help="YAML laid over the preset.", metavar="FILE")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Trajectories, 10000 if not given.")] = None,
    policy: Annotated[str | None, typer.Option(help=POLICY_HELP)] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of phase 1.")] = None,
    decoder_epochs: Annotated[int | None, typer.Option(help="Epochs of phase 2.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Windows an update.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the frames in pixels.")] = None,
    objective: Annotated[
        str | None, typer.Option(help="vicreg, sigreg, variance or prediction.")
    ] = None,
    state_key: StateKey = None,
    seed: Seed = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Where run directories go.")] = None,
    settings: Set = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with a stopped run.", metavar="RUN")
    ] = None,
    as_json: Json = False,
) -> None:
    """Learn a world model and prove it: quick, on two cores, in at most 10 minutes."""
    with user_errors():
        from worldmodel import pipeline
        from worldmodel.config import build_config, parse_settings, read_yaml

        options = _nested(
            mode=mode,
            env__id=env,
            data__size=size,
            data__policy=policy,
            phase1__epochs=epochs,
            phase2__epochs=decoder_epochs,
            phase1__batch_size=batch_size,
            phase2__batch_size=batch_size,
            image_size=image_size,
            objective__name=objective,
            data__state_key=state_key,
            seed=seed,
            device=device,
            output_dir=output_dir,
        )
        if resume is not None:
            if options or config or settings or preset != "quick":
                fail(
                    "--resume goes on with the run's own configuration: give it alone", WRONG_USAGE
                )
            run = pipeline.resume(resume, console())
        else:
            layers = [read_yaml(config)] if config else []
            resolved = build_config(*layers, options, *parse_settings(settings), preset=preset)
            run = pipeline.train(resolved, console())
        print_metrics([run.load_metrics()], as_json)
        console().print(f"Proof: {run.report}")


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run directories.", metavar="RUN...")],
    privileged: Annotated[
        int,
        typer.Option(min=0, help="Updates of a reference trained on the true state; 0 for none."),
    ] = 500,
    output: Annotated[
        Path | None,
        typer.Option(help="Report that compares several runs; comparison.html if not given."),
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Probes, forecasts, energy and collapse on held-out episodes, within 90 s on two cores.

    Writes metrics.json and report.html into each run; several runs are compared in one more report.
    """
    with user_errors():
        from worldmodel.proof import evaluate_runs

        metrics = evaluate_runs(runs, device, privileged, output, console())
        print_metrics(metrics, as_json)
        if len(runs) == 1:
            console().print(f"Report: {runs[0]}/report.html")


@app.command()
def rollout(
    run: RunArgument,
    seed: Annotated[int, typer.Option(min=0, help="Of the environment and the policy.")] = 20_000,
    state: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help='Start of the pendulum: "θ1 θ2 ω1 ω2", rad, rad/s.'),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help=f"{POLICY_HELP} That of the run's data if not given."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the dream at most.")] = 100,
    output: Annotated[
        Path | None, typer.Option(help="An .mp4 or .gif; RUN/rollout.mp4 if not given.")
    ] = None,
    window: Annotated[bool, typer.Option("--window", help="Show it in a window instead.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Reality and the dream of it side by side, the error under them: a video, or a window."""
    with user_errors():
        from worldmodel.rollout import parse_state
        from worldmodel.rollout import rollout as roll_out

        facts = roll_out(
            run,
            policy=policy,
            seed=seed,
            state=None if state is None else parse_state(state),
            steps=steps,
            output=output,
            window=window,
            device=device,
        )
        print_facts(facts, as_json)


@app.command()
def play(
    run: RunArgument,
    seed: Annotated[int, typer.Option(min=0, help="Of the first reset.")] = 20_000,
    device: Device = "auto",
) -> None:
    """Drive reality and the dream of it at once with the keyboard."""
    with user_errors():
        from worldmodel.play import play as play_run

        play_run(run, seed=seed, device=device)


@app.command()
def plan(
    run: RunArgument,
    goal: Annotated[
        str | None,
        typer.Option(
            help="reward, upright (the pendulum's default), or an image's path.", metavar="GOAL"
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="icem, cem or mppi.")] = "icem",
    horizon: Annotated[int, typer.Option(min=1, help="Steps ahead.")] = 20,
    samples: Annotated[
        int | None, typer.Option(min=2, help="Candidates an iteration; the method's if not given.")
    ] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Of the search.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Steps of an episode at most.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the first episode.")] = 20_000,
    output: Annotated[
        Path | None, typer.Option(help="An .mp4 or .gif; RUN/plan.mp4 if not given.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Act in the real environment by planning in the dream; judge it there and film it."""
    with user_errors():
        from worldmodel.plan import plan as plan_episodes

        facts = plan_episodes(
            run,
            goal=goal,
            method=method,
            horizon=horizon,
            samples=samples,
            iterations=iterations,
            episodes=episodes,
            steps=steps,
            seed=seed,
            output=output,
            device=device,
            console=console(),
        )
        print_facts(facts, as_json)


class _TrainByDefault(TyperGroup):
    """`worldmodel rl RUN` is `worldmodel rl train RUN`; a misspelt command is not a run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = [*self.commands, *ctx.help_option_names]
        meant = get_close_matches(args[0], known, cutoff=0.8) if args else []
        if not meant or (args[0] not in self.commands and Path(args[0]).exists()):
            args = ["train", *args]
        return super().parse_args(ctx, args)


rl_app = typer.Typer(
    cls=_TrainByDefault,
    help="Train agents: worldmodel rl RUN --on dream, short for rl train RUN.",
)
app.add_typer(rl_app, name="rl")

Steps = Annotated[int, typer.Option(min=1, help="Of training, up to the next whole rollout.")]
Algo = Annotated[str, typer.Option(help="ppo, a2c, sac, td3, ddpg or dqn.")]


@rl_app.command("train")
def rl_train(
    run: RunArgument,
    on: Annotated[str, typer.Option(help="latent, dream, pixels or state.")] = "dream",
    algo: Algo = "ppo",
    steps: Steps = 200_000,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and exploration.")] = 0,
    envs: Annotated[
        int | None, typer.Option(min=1, help="Environments at once; 128 dreams or 32 real ones.")
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=0, help="Dreams only: rounds of acting and learning from it.")
    ] = 0,
    dream_steps: Annotated[
        int | None, typer.Option(min=1, help="Dreams only: the longest; 50 if not given.")
    ] = None,
    ensemble: Annotated[
        int, typer.Option(min=0, help="Dreams only: predictors whose disagreement costs; 0 or 2+.")
    ] = 0,
    penalty: Annotated[
        float | None,
        typer.Option(min=0, help="Reward that a unit of disagreement costs; 0.02 if not given."),
    ] = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Train a Stable-Baselines3 agent, and judge it in the real environment."""
    with user_errors():
        from worldmodel.rl.teach import teach
        from worldmodel.rl.train import in_short

        results = teach(
            run,
            on=on,
            algo=algo,
            steps=steps,
            seed=seed,
            envs=envs,
            rounds=rounds,
            dream_steps=dream_steps,
            ensemble=ensemble,
            penalty=penalty,
            device=device,
            console=console(),
        )
        print_facts(results if as_json else in_short(results), as_json)


@rl_app.command("compare")
def rl_compare(
    run: RunArgument,
    algo: Algo = "ppo",
    steps: Steps = 200_000,
    seeds: Annotated[int, typer.Option(min=1, help="How many, from 0.")] = 3,
    pixels: Annotated[
        bool, typer.Option(help="With agents on pixels, which take longest by far.")
    ] = True,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Agents on latents, in the dream, on pixels and on the true state, with the same budget."""
    with user_errors():
        from worldmodel.rl.compare import compare, comparison_of_agents
        from worldmodel.rl.train import Lesson

        lesson = Lesson("state", algo, steps)
        comparison = compare(
            run, lesson, range(seeds), pixels=pixels, device=device, console=console()
        )
        if as_json:
            typer.echo(json.dumps(comparison, allow_nan=False))
        else:
            print_table(comparison_of_agents(comparison))


@app.command()
def collect(
    path: Annotated[Path, typer.Argument(help="Where the replay buffer goes.")],
    env: Annotated[str, typer.Option(help="A Gymnasium environment's id.")] = (
        "DoublePendulumPixels-v0"
    ),
    size: Annotated[int, typer.Option(min=1, help="Trajectories.")] = 10_000,
    steps: Annotated[int, typer.Option(min=1, help="Steps a trajectory at most.")] = 30,
    policy: Annotated[str, typer.Option(help=POLICY_HELP)] = "passive",
    image_size: Annotated[int, typer.Option(min=8, help="Side of the frames in pixels.")] = 64,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of the first trajectory; the next free one if not given."),
    ] = None,
    state_key: StateKey = None,
    env_kwargs: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="For gym.make, as start=uniform.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Collect trajectories from any Gymnasium environment into a replay buffer."""
    with user_errors():
        from worldmodel.config import parse_settings
        from worldmodel.datasets import collect_to

        kwargs = {k: v for setting in parse_settings(env_kwargs) for k, v in setting.items()}
        summary = collect_to(
            path,
            env_id=env,
            env_kwargs=kwargs,
            size=size,
            steps=steps,
            policy=policy,
            image_size=image_size,
            state_key=state_key or "state",
            first_seed=seed,
            console=console(),
        )
        print_facts(summary, as_json)


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="A run directory or a replay buffer.")],
    as_json: Json = False,
) -> None:
    """What a run or a replay buffer holds."""
    with user_errors():
        from worldmodel.describe import describe

        print_facts(describe(path), as_json)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
