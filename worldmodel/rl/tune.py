"""Choice of an agent's settings by its returns on validation episodes: `tune_agent`."""

from __future__ import annotations

import itertools
import json
import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import FiniteFloat
from rich.box import SIMPLE
from rich.table import Table
from typing_extensions import TypedDict

from worldmodel.agent_config import AgentConfig
from worldmodel.callbacks import Callback, CallbackList
from worldmodel.errors import ConfigError, InterruptedRunError
from worldmodel.files import only_one_process, read_record, write_json
from worldmodel.rl.agents import learn, make_agent, open_envs
from worldmodel.rl.evaluation import Curve
from worldmodel.rl.guards import find_ensemble
from worldmodel.rl.tuned import resolve_agent
from worldmodel.run import Run
from worldmodel.settings import merge, nest_keys, parse_setting

DREAM_GRID: dict[str, Sequence[Any]] = {
    "dream_steps": (20, 50, 100, 200),
    "leaving_terminates": (True, False),
}
"""What is tried by default: the length of imagined episodes, and what leaving the domain does."""


_NOT_IN_A_GRID = {
    "seed": "use --seeds, or seeds of tune_agent",
    "eval_points": "every agent is evaluated once, at the end",
    "loop.rounds": "every agent is trained once; give the best settings to the loop",
    "candidates.count": "agents of several seeds are compared already, see --seeds",
}
"""Settings that a grid cannot have -> the reason."""


class Trial(TypedDict):
    """An agent: its settings, its results on validation episodes, and those of its training."""

    config: dict[str, Any]
    mean: FiniteFloat
    reward_per_step: FiniteFloat
    training_reward_per_step: FiniteFloat


class Trials(TypedDict):
    """Content of ``rl/tune.json``: all agents that were ever tried on a run."""

    trials: list[Trial]


def tune_agent(
    run: Run,
    config: AgentConfig,
    grid: Mapping[str, Sequence[Any]] | None = None,
    seeds: Sequence[int] = range(1),
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Train an agent with every combination of settings, and rank them by validation episodes.

    Every agent plays `config.eval_episodes` real episodes on validation seeds, with deterministic
    actions. The agents are not kept; train one with the best settings. Finished agents are read
    from ``rl/tune.json`` of the run, so a stopped call can be continued and a grid extended.

    Args:
        run: A finished run.
        config: Configuration of the agents; its `seed` is replaced.
        grid: Keys of `AgentConfig`, also dotted ones as ``ensemble.size``, and the values to try;
            `DREAM_GRID` if not given.
        seeds: Random seeds of the agents.
        callbacks: Callbacks that show progress and messages.

    Returns:
        `best`, the settings with the highest mean return; `episodes`, the validation episodes of
        each agent; and `ranking`, best first, with `settings`, `returns` (the mean of each seed),
        `mean` and `std` over them, and the mean `reward_per_step` and `training_reward_per_step`
        (of the last 100 episodes of the training). In the dream, a training that earns much more
        than the real environment exploits errors of the model.

    Raises:
        ConfigError: If a key or a value of the grid is unknown or invalid.
        RunError: If the run is not finished, or a file is damaged.
        ValueError: If the settings do not fit the run, are inconsistent, or have rounds or
            candidates.
        InterruptedRunError: If the user stopped it.
    """
    for key, value, once in (
        ("loop.rounds", config.loop.rounds, 0),
        ("candidates.count", config.candidates.count, 1),
    ):
        if value > once:
            raise ValueError(
                f"{key} is {value}, and tuning trains every agent once; set it to {once}, and use "
                "it afterwards with the best settings"
            )
    watching, path = CallbackList(callbacks), run.path / "rl" / "tune.json"
    candidates = list(_candidates(run, config, DREAM_GRID if grid is None else grid))
    for _, candidate in candidates:
        open_envs(run, candidate, CallbackList(()))  # reports all mistakes before any training
    path.parent.mkdir(exist_ok=True)
    ranking = []
    with only_one_process(path.with_name("tune.lock"), f"tuning agents of {run.path}"):
        for settings, candidate in candidates:
            task = _describe(settings)
            trials = [_reuse_or_train(run, candidate, s, path, task, watching) for s in seeds]
            ranking.append(_summary(settings, trials))
    ranking.sort(key=lambda row: -row["mean"])
    return {"best": ranking[0]["settings"], "episodes": config.eval_episodes, "ranking": ranking}


def parse_grid(texts: Sequence[str] | None) -> dict[str, Sequence[Any]] | None:
    """Parse ``key=value,value,...`` of the command line; None without any.

    Raises:
        ConfigError: If a text is not of this form, or a key is given twice.
    """
    grid: dict[str, Sequence[Any]] = {}
    for text in texts or ():
        key, equals, values = text.partition("=")
        if not (key.strip() and equals and values.strip()):
            raise ConfigError(f"--grid {text}: write key=value,value, e.g. dream_steps=20,50,100")
        if key in grid:
            raise ConfigError(f"--grid {key} is given twice; list all of its values in one")
        grid[key] = parse_setting(f"values=[{values}]")["values"]
    return grid or None


def ranking_table(tuning: dict[str, Any]) -> Table:
    """Lay out a ranking as a table for a terminal."""
    rows = tuning["ranking"]
    count = len(rows[0]["returns"])
    title = f"{tuning['episodes']} validation episodes, {count} seed" + "s" * (count > 1)
    best = [shlex.quote(f"agent.{key}={_text(value)}") for key, value in tuning["best"].items()]
    caption = "Best: " + " ".join(f"--set {setting}" for setting in best)
    table = Table(title=title, caption=caption, box=SIMPLE)
    table.add_column("settings")
    for column in ("return", *["worst seed"] * (count > 1), "per step", "in training"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        returns = [f"{row['mean']:.1f}" + (f" ± {row['std']:.1f}" if count > 1 else "")]
        returns += [f"{min(row['returns']):.1f}"] * (count > 1)
        rates = [f"{row[key]:.3f}" for key in ("reward_per_step", "training_reward_per_step")]
        table.add_row(_describe(row["settings"]), *returns, *rates)
    return table


def _candidates(
    run: Run, config: AgentConfig, grid: Mapping[str, Sequence[Any]]
) -> Iterator[tuple[dict[str, Any], AgentConfig]]:
    """Yield every combination of the grid, and the agent's configuration with it."""
    for key, values in grid.items():
        if key in _NOT_IN_A_GRID:
            raise ConfigError(f"grid: {key} cannot be tried: {_NOT_IN_A_GRID[key]}")
        if not values or any(value in values[:i] for i, value in enumerate(values)):
            raise ConfigError(f"grid: {key} has the values {list(values)}; expected distinct ones")
    for values in itertools.product(*grid.values()):
        settings = dict(zip(grid, values))
        agent = merge(config.model_dump() | {"eval_points": 1}, nest_keys(settings))
        yield settings, run.with_settings({"agent": agent}).config.agent


def _reuse_or_train(
    run: Run, config: AgentConfig, seed: int, path: Path, task: str, callbacks: CallbackList
) -> Trial:
    """Return the earlier trial of the same configuration, or train an agent and record it."""
    config = resolve_agent(config.model_copy(update={"seed": seed}), run.config.env.id)
    hint = "delete it to try all settings again"
    trials = read_record(path, Trials, hint)["trials"] if path.exists() else []
    for trial in trials:
        if trial["config"] == config.to_json():
            return trial
    trial = _train(run, config, f"{task}, seed {seed}", callbacks)
    write_json(path, {"trials": [*trials, trial]})
    return trial


def _train(run: Run, config: AgentConfig, task: str, callbacks: CallbackList) -> Trial:
    envs, curve = open_envs(run, config, callbacks), Curve()
    with closing(envs.training(config, find_ensemble(run, config.ensemble, [callbacks]))) as venv:
        agent = make_agent(config, venv)
        if learn(agent, envs, config, curve, task, [callbacks]):
            raise InterruptedRunError("Stopped; the same command keeps the finished agents")
    episodes = list(agent.ep_info_buffer or ())
    training = sum(e["r"] for e in episodes) / max(1, sum(e["l"] for e in episodes))
    last = curve.points[-1]
    return Trial(
        config=config.to_json(),
        mean=last["mean"],
        reward_per_step=last["reward_per_step"],
        training_reward_per_step=float(training),
    )


def _summary(settings: dict[str, Any], trials: list[Trial]) -> dict[str, Any]:
    returns = [trial["mean"] for trial in trials]
    return {
        "settings": settings,
        "returns": returns,
        "mean": statistics.fmean(returns),
        "std": statistics.pstdev(returns),
        "reward_per_step": statistics.fmean(t["reward_per_step"] for t in trials),
        "training_reward_per_step": statistics.fmean(t["training_reward_per_step"] for t in trials),
    }


def _describe(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_text(value)}" for key, value in settings.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
