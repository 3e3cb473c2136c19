"""Agents of several seeds in the dream, of which the best in the real environment is kept."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import FiniteFloat
from stable_baselines3.common.base_class import BaseAlgorithm
from typing_extensions import TypedDict

from worldmodel.agent_config import AgentConfig
from worldmodel.callbacks import Callback, CallbackList
from worldmodel.data.datasets import split_seeds
from worldmodel.errors import InterruptedRunError
from worldmodel.files import read_record, remove_leftovers, write_json
from worldmodel.imagination.domain import require_domain
from worldmodel.rl.agents import (
    finalize,
    learn,
    load_agent,
    make_agent,
    open_envs,
    results_folder,
    save_agent,
)
from worldmodel.rl.envs import AgentEnvs
from worldmodel.rl.evaluation import Curve, CurvePoint, real_evaluation
from worldmodel.rl.guards import PredictorEnsemble, find_ensemble
from worldmodel.run import Run


class Candidate(TypedDict):
    """A trained agent: its seed, its validation episodes, and its learning curve."""

    seed: int
    mean: FiniteFloat
    real_steps: int
    curve: list[CurvePoint]


class State(TypedDict):
    """Content of ``candidates.json``: the agents that were trained so far."""

    candidates: list[Candidate]


def train_candidates(
    run: Run, config: AgentConfig, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Train `config.candidates.count` agents in the dream, and keep the best one.

    How well an agent does in the real environment depends on its seed. Each candidate plays
    `config.candidates.episodes` real episodes on validation seeds with deterministic actions, and
    the one with the highest mean return is evaluated. The same call resumes after the last finished
    candidate of an interrupted one.

    Args:
        run: A finished run.
        config: Configuration of the agents, resolved; candidate i has the seed
            `config.seed` + 1000 i.
        callbacks: Callbacks that show progress and messages.

    Returns:
        See `train_agent`; with `candidates`, the seed, mean return and real steps of each one's
        validation episodes, and `best_candidate`, an index. `real_steps` are those of all
        candidates, `seconds` too, and `curve` is that of the best one.

    Raises:
        RunError: If the run is not finished, or a file is damaged.
        ValueError: If the configuration does not fit the run.
        InterruptedRunError: If the user stopped it; the finished candidates are kept.
    """
    watching = CallbackList(callbacks)
    envs, folder = open_envs(run, config, watching), results_folder(run, config)
    ensemble = find_ensemble(run, config.ensemble, [watching])
    state, best_file = folder / "candidates.json", folder / "best_candidate.zip"
    hint = f"delete {folder} to train all candidates again"
    finished = read_record(state, State, hint)["candidates"] if state.exists() else []
    space = require_domain(envs.wm).space
    if finished:
        load_agent(config, best_file, envs.action_space, space, hint)
        watching.on_message(f"{len(finished)} of {config.candidates.count} candidates are trained")
    try:
        while len(finished) < config.candidates.count:
            seeded = config.model_copy(update={"seed": config.seed + 1000 * len(finished)})
            agent, candidate = _train(envs, seeded, ensemble, folder, watching)
            finished.append(candidate)
            if _best(finished) is candidate:
                save_agent(agent, best_file)
            write_json(state, State(candidates=finished))
            watching.on_message(
                f"Agent of seed {candidate['seed']}: return {candidate['mean']:.1f} over "
                f"{config.candidates.episodes} validation episodes"
            )
        best = finished.index(_best(finished))
        results = finalize(
            envs,
            config,
            load_agent(config, best_file, envs.action_space, space, hint),
            Curve(finished[best]["curve"]),
            folder,
            seconds=sum(candidate["curve"][-1]["seconds"] for candidate in finished),
            real_steps=sum(candidate["real_steps"] for candidate in finished),
            candidates=[{key: c[key] for key in ("seed", "mean", "real_steps")} for c in finished],
            best_candidate=best,
        )
    except KeyboardInterrupt as stopped:
        raise InterruptedRunError(
            f"Stopped after {len(finished)} of {config.candidates.count} candidates; they are "
            "kept, and the same command resumes after them"
        ) from stopped
    state.unlink()
    best_file.unlink()
    remove_leftovers(folder, 0)
    return results


def _train(
    envs: AgentEnvs,
    config: AgentConfig,
    ensemble: PredictorEnsemble | None,
    folder: Path,
    callbacks: CallbackList,
) -> tuple[BaseAlgorithm, Candidate]:
    """Train an agent and play the validation episodes with it."""
    curve, task = Curve(), f"dream, seed {config.seed}"
    events = folder / "tensorboard" / f"seed{config.seed}"
    shutil.rmtree(events, ignore_errors=True)
    with closing(envs.training(config, ensemble)) as training:
        agent = make_agent(config, training, events)
        if learn(agent, envs, config, curve, task, [callbacks]):
            raise KeyboardInterrupt
    seeds = split_seeds("validation", config.candidates.episodes)
    with real_evaluation(envs, config, seeds) as evaluate:
        result = evaluate(agent)
    return agent, Candidate(
        seed=config.seed, mean=result["mean"], real_steps=sum(result["steps"]), curve=curve.points
    )


def _best(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate with the highest mean return, the first one of equal ones."""
    return max(candidates, key=lambda candidate: candidate["mean"])
