"""The loop that closes: act, learn from it, dream again (Dyna, Sutton 1991).

The encoder stays frozen, so that agents, probes and the decoder keep their meaning; predictor and
heads go on learning from the first data and the agent's own.
"""

from __future__ import annotations

import json
import shutil
import statistics
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from worldmodel.data import ReplayBuffer, collect
from worldmodel.datasets import BEYOND, environment, open_datasets
from worldmodel.files import replacing
from worldmodel.imagination.domain import domain_of
from worldmodel.imagination.starts import STORED
from worldmodel.imagination.store import write_dream
from worldmodel.interrupt import InterruptedRunError
from worldmodel.rl.algorithms import ALGORITHMS, check_algorithm, make_agent
from worldmodel.rl.explorer import Explorer
from worldmodel.rl.learning import Curve
from worldmodel.rl.train import Lesson, conclude, learn, read_json, training_envs
from worldmodel.rl.worlds import Worlds, open_worlds
from worldmodel.run import Run
from worldmodel.training.dynamics import (
    LatentEpisodes,
    concatenate,
    encode_episodes,
    fit_heads,
    fit_predictor,
)

PATIENCE = 2
"""Rounds without improvement after which the loop ends."""

IMPROVEMENT = 0.01
"""Share of the best return by which a round has to be better to count."""

FRESH = 0.5
"""Share of the agent's own data in what the model goes on learning from."""

_EPISODES = 20
_LONGEST = 1_000
_FIRST_SEED = BEYOND + 500_000
_KEPT = 3_000
"""Episodes of the run's first data that go on being learned from."""
_UPDATES = 400
_LEARNING_RATE = 1e-3
_DRAWN = 10_000
_STATE = "dyna.json"


@dataclass
class State:
    """Where the loop stands, between rounds.

    Attributes:
        round: The last one that is done. In round 0 the agent is trained in the dream and acts; in
            the others the model learns from that before.
        fitted: Round whose model is there.
        real_steps: Of the real environment so far.
        best: The best return while acting.
        best_round: Whose agent that is.
        rounds: Of each, `round`, `real_steps` and `mean` (return while acting).
        curve: See `Curve`.
    """

    round: int = -1
    fitted: int = 0
    real_steps: int = 0
    best: float = float(np.finfo(np.float64).min)
    best_round: int = -1
    rounds: list[dict[str, float]] = field(default_factory=list)
    curve: dict[str, Any] = field(default_factory=lambda: asdict(Curve()))


def dyna(
    run: Path, lesson: Lesson, rounds: int, *, device: str, console: Console
) -> dict[str, Any]:
    """Train in the dream and act, then so many rounds of learning from it, and both again.

    To act is to play 20 real episodes. The loop goes on where an equal one stopped, also with more
    rounds, and ends early after two rounds that were no better. The agent that was best while it
    acted is judged at the end. In ``rl/NAME_dyna`` of the run, ``model`` is a run directory with
    the model that the loop ends with.

    Returns:
        As `rl`, with `rounds`; `real_steps` counts those that the loop took.

    Raises:
        RunError: There is no finished run.
        ValueError: The lesson does not fit the run.
        InterruptedRunError: The user stopped it; the rounds so far are kept.
    """
    worlds = open_worlds(run, "dream", device)
    check_algorithm(lesson.algo, worlds.real(1).single_action_space)
    folder = run / "rl" / f"{lesson.name}_dyna"
    folder.mkdir(parents=True, exist_ok=True)
    state, worlds = _read_state(folder), _own_model(worlds, folder)
    while state.round < rounds and state.round - state.best_round < PATIENCE:
        number = state.round + 1
        if number > state.fitted:
            _go_on_learning(worlds, folder, lesson, number, console)
            state.fitted = number
            _write_state(folder, state)
        _dream_on(worlds, folder, lesson, state, console)
    agent = ALGORITHMS[lesson.algo].load(folder / "agent.zip", device="cpu")
    curve = Curve(**state.curve)
    more = {"rounds": state.rounds, "best_round": state.best_round, "model": str(worlds.run)}
    return conclude(worlds, lesson, agent, curve, folder, **more, real_steps=state.real_steps)


def _own_model(worlds: Worlds, folder: Path) -> Worlds:
    """A copy of the run's model, to go on with."""
    own = folder / "model"
    if not own.exists():
        unfinished = folder / "model.tmp"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(worlds.run / "models", unfinished / "models")
        shutil.copy(worlds.run / "config.yaml", unfinished)
        unfinished.rename(own)
    return open_worlds(own, "dream", str(worlds.wm.device))


def _dream_on(worlds: Worlds, folder: Path, lesson: Lesson, state: State, console: Console) -> None:
    """Train the agent in the dream, let it act, and write down where the loop stands."""
    number = state.round + 1
    envs = training_envs(worlds, replace(lesson, seed=lesson.seed + 1000 * number))
    if number:
        agent: Any = ALGORITHMS[lesson.algo].load(
            folder / "latest.zip",
            device="cpu",
            custom_objects={"observation_space": envs.observation_space},
        )
        agent.set_env(envs)
    else:
        agent = make_agent(lesson.algo, envs, lesson.seed, folder / "tensorboard")
    curve = Curve(**state.curve)
    stopped = learn(agent, lesson.steps, curve, worlds, f"dream, round {number}", console)
    envs.close()
    if stopped:
        raise InterruptedRunError(
            f"Stopped in round {number}; the rounds before it are kept, and the same command goes "
            "on from there"
        )
    _save(agent, folder / "latest.zip")
    mean, taken = _act(worlds, folder, lesson, number)
    if not number or mean > state.best + IMPROVEMENT * abs(state.best):
        state.best, state.best_round = mean, number
        _save(agent, folder / "agent.zip")
    state.real_steps += taken
    state.round, state.curve = number, asdict(curve)
    state.rounds.append({"round": number, "real_steps": state.real_steps, "mean": mean})
    console.print(f"Round {number}: return {mean:.1f}, {state.real_steps} real steps so far")
    _write_state(folder, state)


def _act(worlds: Worlds, folder: Path, lesson: Lesson, number: int) -> tuple[float, int]:
    """Collect with the newest agent: its mean return, and the steps it took."""
    first = _FIRST_SEED + 1000 * number + 100_000 * lesson.seed
    path = _episodes(folder, number)
    shutil.rmtree(path, ignore_errors=True)
    with collect(
        **environment(worlds.config) | {"env_kwargs": worlds.config.env.kwargs},
        path=path,
        episodes=_EPISODES,
        seeds=range(first, first + _EPISODES),
        steps=_LONGEST,
        policy=Explorer(worlds.wm, folder / "latest.zip", lesson.algo),
    ) as buffer:
        whole = [buffer.windows([i], [0], int(n)) for i, n in enumerate(buffer.lengths)]
        returns = [float(window.rewards.sum()) for window in whole]
        return statistics.fmean(returns), buffer.num_transitions


def _episodes(folder: Path, number: int) -> Path:
    return folder / "experience" / f"{number}"


def _go_on_learning(
    worlds: Worlds, folder: Path, lesson: Lesson, number: int, console: Console
) -> None:
    """Fit predictor, heads and domain to the first data and to what the agent has lived."""
    console.print(f"Round {number}: the model learns from what the agent lived through ...")
    with open_datasets(worlds.config, console) as data:
        kept = np.sort(np.random.default_rng(number).permutation(len(data.train))[:_KEPT])
        base = encode_episodes(worlds.wm, data.train, kept)
    _fit(worlds, [base, _experience(worlds, folder, number)], lesson.seed + number)


def _experience(worlds: Worlds, folder: Path, rounds: int) -> LatentEpisodes:
    """All that the agent has lived in so many rounds, encoded."""
    parts = []
    for number in range(rounds):
        with ReplayBuffer.open(_episodes(folder, number)) as buffer:
            parts.append(encode_episodes(worlds.wm, buffer, np.arange(len(buffer))))
    return concatenate(parts)


def _fit(worlds: Worlds, parts: list[LatentEpisodes], seed: int) -> None:
    wm = worlds.wm
    shares = (1.0 - FRESH, FRESH)
    trained: dict[str, nn.Module] = {
        "predictor": wm.predictor,
        "reward_head": wm.reward_head,
        "termination_head": wm.termination_head,
    }
    for module in trained.values():
        module.requires_grad_(True)
    how: dict[str, Any] = {"updates": _UPDATES, "learning_rate_peak": _LEARNING_RATE}
    horizon = min(worlds.config.objective.horizon, *(int(p.remaining.max()) for p in parts))
    fit_predictor(wm.predictor, parts, horizon=horizon, seed=seed, shares=shares, **how)
    fit_heads(wm, parts, seed=seed, shares=shares, **how)
    for name, module in trained.items():
        Run(worlds.run).save_weights(name, module.requires_grad_(False))
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(len(part.z))[:_DRAWN] for part in parts]
    z = torch.cat([part.z[r] for part, r in zip(parts, rows)]).to(wm.device)
    episodes = np.concatenate([part.episodes()[r] for part, r in zip(parts, rows)])
    starts = z[torch.as_tensor(rng.permutation(len(z))[:STORED])]
    write_dream(worlds.run, starts, domain_of(z, episodes % 2 == 0))


def _save(agent: Any, path: Path) -> None:
    with replacing(path) as temporary:
        agent.save(temporary)


def _write_state(folder: Path, state: State) -> None:
    with replacing(folder / _STATE) as path:
        path.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")


def _read_state(folder: Path) -> State:
    path = folder / _STATE
    if not path.exists():
        return State()
    return State(**read_json(path, f"delete {folder}, and the loop begins anew"))
