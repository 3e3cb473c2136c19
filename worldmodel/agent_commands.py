"""The commands `worldmodel rl train`, `worldmodel rl compare` and `worldmodel rl tune`."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from worldmodel.options import Device, Json, RunArgument, Set, Trust, given, open_run
from worldmodel.terminal import TerminalProgress, print_table, print_values, user_errors


class _TrainByDefault(TyperGroup):
    """`worldmodel rl RUN` is `worldmodel rl train RUN`; a misspelled command is not a run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = [*self.commands, *ctx.help_option_names]
        if ctx.resilient_parsing and not args:  # the shell completes the word after `rl`
            return super().parse_args(ctx, args)
        close = get_close_matches(args[0], known, cutoff=0.8) if args else []
        if not close or (args[0] not in self.commands and Path(args[0]).exists()):
            args = ["train", *args]
        return super().parse_args(ctx, args)


rl_app = typer.Typer(
    cls=_TrainByDefault,
    help="Train agents; worldmodel rl RUN is short for worldmodel rl train RUN.\n\n"
    "Example: worldmodel rl results/pendulum_image_20260101_120000 --on dream",
)
Steps = Annotated[
    int | None, typer.Option(min=1, help="Environment steps of training (default: 200000).")
]
Hyper = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Argument of the algorithm, or a YAML file of them; can be given several times.",
    ),
]
On = Annotated[str | None, typer.Option(help="dream (default), latent, pixels or state.")]
Algo = Annotated[str | None, typer.Option(help="ppo (default), a2c, sac, td3, ddpg or dqn.")]


@rl_app.command("train")
def rl_train(
    run: RunArgument,
    on: On = None,
    algo: Algo = None,
    steps: Steps = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed (default: 0).")] = None,
    envs: Annotated[
        int | None,
        typer.Option(min=1, help="Parallel environments (default: 128 imagined or 32 real)."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=0, help="Rounds of acting and fine-tuning the model.")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, help="Agents to train; the best in real episodes is kept.")
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
    trust: Trust = False,
    settings: Set = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Train a Stable-Baselines3 agent, and evaluate it in the real environment.

    Example: worldmodel rl train results/pendulum_image_20260101_120000 --on dream --algo ppo
    """
    with user_errors():
        from worldmodel.rl.evaluation import result_summary
        from worldmodel.rl.tuned import parse_hyper

        changes = given(
            on=on, algo=algo, steps=steps, seed=seed, num_envs=envs, dream_steps=dream_steps
        )
        changes |= parse_hyper(hyper)
        changes["loop"] = given(rounds=rounds)
        changes["candidates"] = given(count=candidates)
        changes["ensemble"] = given(size=ensemble, penalty=penalty)
        opened = open_run(run, device, settings)
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
    trust: Trust = False,
    settings: Set = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Compare agents on latents, in the dream, on pixels and on the true state.

    Example: worldmodel rl compare results/pendulum_image_20260101_120000 --no-pixels
    """
    with user_errors():
        from worldmodel.rl.compare import comparison_table
        from worldmodel.rl.tuned import parse_hyper

        comparison = open_run(run, device, settings).compare_agents(
            range(seeds),
            pixels=pixels,
            callbacks=[TerminalProgress()],
            **given(algo=algo, steps=steps),
            **parse_hyper(hyper),
        )
        if as_json:
            print_values(comparison, as_json=True)
        else:
            print_table(comparison_table(comparison))


@rl_app.command("tune")
def rl_tune(
    run: RunArgument,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V1,V2",
            help="Values of a setting of the agent to try; can be given several times. Default: "
            "dream_steps=20,50,100,200 and leaving_terminates=true,false.",
        ),
    ] = None,
    on: On = None,
    algo: Algo = None,
    steps: Steps = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, from 0.")] = 1,
    hyper: Hyper = None,
    trust: Trust = False,
    settings: Set = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Choose settings of an agent by its returns in validation episodes of the real environment.

    Example: worldmodel rl tune results/pendulum_image_20260101_120000 --grid dream_steps=50,100
    """
    with user_errors():
        from worldmodel.rl.tune import parse_grid, ranking_table, tune_agent
        from worldmodel.rl.tuned import parse_hyper

        values = parse_grid(grid)
        agent = given(on=on, algo=algo, steps=steps) | parse_hyper(hyper)
        opened = open_run(run, device, settings).with_settings({"agent": agent})
        tuning = tune_agent(opened, opened.config.agent, values, range(seeds), [TerminalProgress()])
        if as_json:
            print_values(tuning, as_json=True)
        else:
            print_table(ranking_table(tuning))
