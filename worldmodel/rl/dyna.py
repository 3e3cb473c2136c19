"""The loop that closes: act, learn from it, dream again (Dyna, Sutton 1991).

The encoder stays frozen, so that agents, probes and the decoder keep their meaning; predictor and
heads go on learning from the first data and the agent's own.
"""

from __future__ import annotations

import copy
import json
import shutil
import statistics
from contextlib import closing
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
from worldmodel.rl.algorithms import check_algorithm, load_agent, make_agent
from worldmodel.rl.explorer import Explorer
from worldmodel.rl.learning import Curve
from worldmodel.rl.train import Lesson, conclude, learn, save_agent, training_envs
from worldmodel.rl.worlds import Worlds, open_worlds
from worldmodel.run import Run, RunError, read_json
from worldmodel.training.dynamics import HeadTrainer, PredictorTrainer
from worldmodel.training.latents import LatentEpisodes, concatenate, encode_episodes

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
        rounds: Of each, `round`, `real_steps` (so far) and `mean` (return while acting). In round 0
            the agent is trained in the dream and acts; in the others the model learns before that.
        curve: See `Curve`.
    """

    rounds: list[dict[str, float]] = field(default_factory=list)
    curve: dict[str, Any] = field(default_factory=lambda: asdict(Curve()))

    @property
    def best(self) -> int:
        """The round whose agent was best while it acted; a later one has to be better by 1 %."""
        best = 0
        for each in self.rounds[1:]:
            before = self.rounds[best]["mean"]
            if each["mean"] > before + IMPROVEMENT * abs(before):
                best = int(each["round"])
        return best

    @property
    def going_on(self) -> bool:
        """Whether the last rounds were better."""
        return len(self.rounds) - 1 - self.best < PATIENCE


def dyna(
    run: Path, lesson: Lesson, rounds: int, *, device: str, console: Console
) -> dict[str, Any]:
    """Train in the dream and act, then so many rounds of learning from it, and both again.

    To act is to play 20 real episodes. The loop goes on where an equal one stopped, also with more
    rounds, and ends early after two rounds that were no better. The agent that was best while it
    acted is judged at the end. In ``rl/NAME_dyna`` of the run there are, of every round,
    ``agent_N.zip``, ``experience/N`` and ``model_N``, a run directory.

    Returns:
        As `rl`, with `rounds`, `best_round` and `model`; `real_steps` counts those that the loop
        took.

    Raises:
        RunError: There is no finished run, or the loop's files are damaged.
        ValueError: The lesson does not fit the run.
        InterruptedRunError: The user stopped it; the rounds so far are kept.
    """
    worlds = open_worlds(run, "dream", device)
    with closing(worlds.real(1)) as env:
        check_algorithm(lesson.algo, env.single_action_space)
    folder = run / "rl" / f"{lesson.name}_dyna"
    state = _read_state(folder)
    try:
        while len(state.rounds) <= rounds and state.going_on:
            state = _round(worlds, folder, state, lesson, console)
        return _conclude(worlds, folder, state, lesson)
    except KeyboardInterrupt as stopped:
        raise InterruptedRunError(
            f"Stopped in round {len(state.rounds)}; the rounds before it are kept, and the same "
            "command goes on from there"
        ) from stopped


def _conclude(worlds: Worlds, folder: Path, state: State, lesson: Lesson) -> dict[str, Any]:
    """Judge the agent that was best, seeing what it saw: latents within the bounds of its model."""
    agent = load_agent(lesson.algo, _agent(folder, state.best), _anew(folder))
    own = open_worlds(_model(folder, state.best), "dream", str(worlds.wm.device))
    more = {
        "model_steps": worlds.model_steps,
        "rounds": state.rounds,
        "best_round": state.best,
        "model": str(_model(folder, len(state.rounds) - 1)),
        "real_steps": state.rounds[-1]["real_steps"],
    }
    return conclude(own, lesson, agent, Curve(**state.curve), folder, **more)


def _round(worlds: Worlds, folder: Path, state: State, lesson: Lesson, console: Console) -> State:
    """Learn, train in the dream, act, and only then write down that the round is done."""
    number = len(state.rounds)
    own = _learned(worlds, folder, lesson, number, console)
    curve = Curve(**copy.deepcopy(state.curve))
    _dream(own, folder, lesson, number, curve, console)
    mean, taken = _act(own, folder, lesson, number)
    total = taken + (state.rounds[-1]["real_steps"] if state.rounds else 0)
    played = {"round": number, "real_steps": total, "mean": mean}
    done = State([*state.rounds, played], asdict(curve))
    _write_state(folder, done)
    console.print(f"Round {number}: return {mean:.1f}, {total} real steps so far")
    return done


def _anew(folder: Path) -> str:
    return f"delete {folder}, and the loop begins anew"


def _agent(folder: Path, number: int) -> Path:
    return folder / f"agent_{number}.zip"


def _model(folder: Path, number: int) -> Path:
    return folder / f"model_{number}"


def _episodes(folder: Path, number: int) -> Path:
    return folder / "experience" / f"{number}"


def _learned(worlds: Worlds, folder: Path, lesson: Lesson, number: int, console: Console) -> Worlds:
    """The model of a round: the run's own, or that of the round before, which has gone on."""
    path, device = _model(folder, number), str(worlds.wm.device)
    if not path.exists():
        source = _model(folder, number - 1) if number else worlds.run
        unfinished = folder / "model.tmp"
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            shutil.copytree(source / "models", unfinished / "models")
            shutil.copy(source / "config.yaml", unfinished)
            own = open_worlds(unfinished, "dream", device)
        except (RunError, OSError) as error:
            raise RunError(f"{source} is damaged or incomplete; {_anew(folder)}") from error
        if number:
            _go_on_learning(own, folder, lesson, number, console)
        unfinished.rename(path)
    return open_worlds(path, "dream", device)


def _dream(
    worlds: Worlds, folder: Path, lesson: Lesson, number: int, curve: Curve, console: Console
) -> None:
    """Train the agent of the round before, or a new one, in the dream, and save it."""
    seed = lesson.seed + 1000 * number
    envs = training_envs(worlds, replace(lesson, seed=seed))
    if number:
        agent = load_agent(
            lesson.algo,
            _agent(folder, number - 1),
            _anew(folder),
            custom_objects={"observation_space": envs.observation_space},
        )
        agent.set_env(envs)
        agent.set_random_seed(seed)
    else:
        agent = make_agent(lesson.algo, envs, lesson.seed, folder / "tensorboard")
    stopped = learn(agent, lesson.steps, curve, worlds, f"dream, round {number}", console)
    envs.close()
    if stopped:
        raise KeyboardInterrupt
    save_agent(agent, _agent(folder, number))


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
        policy=Explorer(worlds.wm, _agent(folder, number), lesson.algo),
    ) as buffer:
        whole = [buffer.windows([i], [0], int(n)) for i, n in enumerate(buffer.lengths)]
        returns = [float(window.rewards.sum()) for window in whole]
        return statistics.fmean(returns), buffer.num_transitions


def _go_on_learning(
    worlds: Worlds, folder: Path, lesson: Lesson, number: int, console: Console
) -> None:
    """Fit predictor, heads and domain to the first data and to what the agent has lived."""
    console.print(f"Round {number}: the model learns from what the agent lived through ...")
    with open_datasets(worlds.config, console) as data:
        kept = np.sort(
            np.random.default_rng((lesson.seed, number)).permutation(len(data.train))[:_KEPT]
        )
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
    trained: dict[str, nn.Module] = {
        "predictor": wm.predictor,
        "reward_head": wm.reward_head,
        "termination_head": wm.termination_head,
    }
    for module in trained.values():
        module.requires_grad_(True)
    how: dict[str, Any] = {
        "updates": _UPDATES,
        "learning_rate_peak": _LEARNING_RATE,
        "seed": seed,
        "shares": (1.0 - FRESH, FRESH),
    }
    horizon = min(worlds.config.objective.horizon, *(int(p.remaining.max()) for p in parts))
    PredictorTrainer(wm.predictor, parts, horizon=horizon, **how).finish()
    HeadTrainer(wm, parts, **how).finish()
    for name, module in trained.items():
        Run(worlds.run).save_weights(name, module.requires_grad_(False))
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(len(part.z))[:_DRAWN] for part in parts]
    z = torch.cat([part.z[r] for part, r in zip(parts, rows)]).to(wm.device)
    episodes = np.concatenate([part.episodes()[r] for part, r in zip(parts, rows)])
    over = torch.cat([part.over()[r] for part, r in zip(parts, rows)])
    starts = z[torch.as_tensor(rng.permutation(torch.nonzero(~over)[:, 0].numpy())[:STORED])]
    write_dream(worlds.run, starts, domain_of(z, episodes % 2 == 0))


def _write_state(folder: Path, state: State) -> None:
    with replacing(folder / _STATE) as path:
        path.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")


def _read_state(folder: Path) -> State:
    """Where the loop stands; without that file whatever else is there is of no use and removed."""
    path = folder / _STATE
    if path.exists():
        content = read_json(path, _anew(folder))
        try:
            return State(**content)
        except TypeError as error:
            raise RunError(f"{path} is damaged ({error}); {_anew(folder)}") from error
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _write_state(folder, State())
    return State()
