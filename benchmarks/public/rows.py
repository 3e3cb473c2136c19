"""The rows of the public benchmark: tasks with published results, and how each is measured.

A row trains a model with `worldmodel.train`, solves its task with the model, and returns one
`Score`. Everything is seeded; goals and evaluation episodes are never those of the training.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

import worldmodel
from benchmarks.public.peers import PEERS
from worldmodel import Policy
from worldmodel.data import load_or_collect
from worldmodel.data.policies import Random

TWO_ROOM = "stable_worldmodel.envs:swm/TwoRoom-v1"


class Published(NamedTuple):
    """A published result: the method, its value in the units of the row, and its source."""

    method: str
    value: str
    source: str


class Score(NamedTuple):
    """The result of one training seed.

    Attributes:
        value: success rate in percent, or mean return over held-out episodes.
        trials: tasks or episodes behind it.
        real_steps: steps of the real environment, of the model's data and of the agent.
        details: further results, JSON values.
    """

    value: float
    trials: int
    real_steps: int
    details: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A public task.

    Attributes:
        title: the task in a few words.
        measure: trains with a seed, in a directory for all of its files.
        target: the value that this project aims at.
        metric: what the value is: the percentage of goals reached, or a mean return.
        published: published results.
        differences: how the protocol differs from that of the published results.
        needs: packages of the extra ``benchmarks`` that it imports.
    """

    title: str
    measure: Callable[[int, Path, bool], Score]
    target: float
    metric: Literal["success", "return"]
    published: tuple[Published, ...]
    differences: str
    needs: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """Unit of the value, as it is printed."""
        return "% of goals" if self.metric == "success" else "return"


@dataclass(frozen=True)
class LongHolds(Random):
    """Uniform random actions, each held for up to 30 steps.

    Held for up to 8 steps, they never bring MountainCar to its goal within 300 steps.
    """

    hold: tuple[int, int] = (1, 30)


class TwoRoomExpert(Policy):
    """The noisy expert of stable-worldmodel 0.1.1 (``action_noise=2.0``).

    It heads for the target at unit speed, through the closest door if the target is in the other
    room. The vector observation of TwoRoom holds the positions of the agent, the target and three
    doors in pixels, 0 where there is no door. Its ``action_repeat_prob`` is left out, because it
    has no effect in that version; so is its check that the agent fits through a door, because it
    fits through all doors of the default environment.
    """

    NOISE, WALL, AT_DOOR = 2.0, 112.0, 10.5

    def bind(self, action_space: Any, observation_space: Any, steps: int) -> Any:
        """Prepare to act; see `worldmodel.Policy.bind`."""

        def start(seed: int) -> Any:
            rng = np.random.default_rng(seed)

            def act(t: int, observation: Any) -> np.ndarray:
                heading = self._waypoint(np.asarray(observation)) - np.asarray(observation)[:2]
                heading /= max(float(np.linalg.norm(heading)), 1e-8)
                noisy = heading + rng.normal(0, self.NOISE, 2)
                return np.clip(noisy, -1, 1).astype(action_space.dtype)

            return act

        return start

    def _waypoint(self, observation: np.ndarray) -> np.ndarray:
        position, target = observation[:2], observation[2:4]
        doors = observation[4:].reshape(-1, 2)
        doors = doors[doors.any(axis=1)]
        across = int((doors[:, 0] != self.WALL).any())  # coordinate that tells the rooms apart
        if (position[across] > self.WALL) == (target[across] > self.WALL):
            return target
        door = doors[np.linalg.norm(doors - position, axis=1).argmin()]
        return target if np.linalg.norm(door - position) <= self.AT_DOOR else door


def two_room(size: int, peer: str | None = None) -> Callable[[int, Path, bool], Score]:
    """Return a function that measures goal reaching in TwoRoom.

    The tasks come from held-out episodes of `TwoRoomExpert`, another sample of starts and goals for
    each training seed.

    Args:
        size: random training trajectories, of 40 steps each.
        peer: train with the objective of another method, see `PEERS`.
    """
    settings = {"objective": PEERS[peer]} if peer else {}

    def measure(seed: int, folder: Path, smoke: bool) -> Score:
        run = worldmodel.train(
            env=TWO_ROOM,
            policy="random",
            size=32 if smoke else size,
            steps=40,
            preset="smoke" if smoke else "quick",
            settings=settings,
            seed=seed,
            data_dir=str(folder / "data"),
            output_dir=str(folder / "runs"),
        )
        episodes = 8 if smoke else 200
        expert = load_or_collect(
            TWO_ROOM,
            folder / "expert",
            episodes=episodes,
            seeds=range(20_000, 20_000 + episodes),
            steps=100,
            policy="benchmarks.public.rows:TwoRoomExpert",
        )
        expert.close()
        result = run.reach_goals(
            goals=folder / "expert",
            goal_offset=25,
            budget=50,
            episodes=2 if smoke else 50,
            success="terminated",
            start_option="state",
            goal_option="target_state",
            seed=seed,
        )
        kept = ("successes", "interval", "random_successes", "successes_at_start", "decision_ms")
        details = {key: result[key] for key in kept}
        steps = run.metrics.data.train_steps
        return Score(100 * result["success_rate"], result["episodes"], steps, details)

    return measure


def dream_agent(
    env: str, train: Mapping[str, Any], agent: Mapping[str, Any], agents: int = 1
) -> Callable[[int, Path, bool], Score]:
    """Return a function that measures agents trained in the dream, in the real environment.

    Args:
        env: id of the environment.
        train: further arguments of `worldmodel.train`.
        agent: fields of `worldmodel.AgentConfig`.
        agents: number of agents on one model; their mean is the value.
    """

    def measure(seed: int, folder: Path, smoke: bool) -> Score:
        run = worldmodel.train(
            env=env,
            seed=seed,
            data_dir=str(folder / "data"),
            output_dir=str(folder / "runs"),
            **({"policy": "random"} | train | ({"preset": "smoke", "size": 64} if smoke else {})),
        )
        settings = dict(agent)
        if smoke:
            settings |= {"steps": 2048, "eval_points": 1, "eval_episodes": 2}
            settings |= {"candidates": {}, "ensemble": {}, "loop": {}}
        results = [
            run.train_agent(on="dream", seed=agents * seed + i, **settings)
            for i in range(1 if smoke else agents)
        ]
        means = [result["real"]["mean"] for result in results]
        trials = sum(len(result["real"]["returns"]) for result in results)
        steps = max(result["real_steps"] + result["model_data_steps"] for result in results)
        spread = {"std": [result["real"]["std"] for result in results], "agents": means}
        return Score(statistics.fmean(means), trials, steps * run.config.env.frame_skip, spread)

    return measure


_ZOO = "https://github.com/DLR-RM/rl-baselines3-zoo/blob/master/benchmark.md"
_LEWM = "https://arxiv.org/abs/2603.19312, figure 6"
_RANDOM = "https://github.com/lucas-maes/le-wm/issues/101; 0 in the paper, from another protocol"
_TWO_ROOM_PUBLISHED = (
    Published("random actions", "26", _RANDOM),
    Published("LeWM", "87", _LEWM),
    Published("PLDM", "97", _LEWM),
    Published("DINO-WM", "100", _LEWM),
)
_PEER_DIFFERENCES = (
    "Only the objective is that of the method, with its own weights. Data, networks, optimizer, "
    "number of updates and planner are those of tworoom, instead of a ViT, a transformer of three "
    "frames, AdamW and 100 epochs."
)
_AGENT_DIFFERENCES = (
    "The published agents observe the true state and act in the real environment; ours learns from "
    "pixels, in the model, and its real steps include the model's training data."
)

_RANDOM_MEMBERS: dict[str, Any] = {"size": 3, "penalty": 0, "rollouts": True}

ROWS: dict[str, Row] = {
    "tworoom": Row(
        "swm/TwoRoom-v1, goals 25 steps ahead in expert episodes, budget 50",
        two_room(1000),
        98,
        "success",
        _TWO_ROOM_PUBLISHED,
        "Ours trains on 40,000 steps of random actions instead of expert episodes, from frames of "
        "64 x 64 pixels instead of 224 x 224. The goals come from new episodes of the same noisy "
        "expert, a different sample for each training seed.",
        ("stable_worldmodel",),
    ),
    "tworoom-250": Row(
        "the same with 250 trajectories of training data",
        two_room(250),
        95,
        "success",
        _TWO_ROOM_PUBLISHED,
        "As in tworoom, with 10,000 steps of training data.",
        ("stable_worldmodel",),
    ),
    "tworoom-lewm": Row(
        "tworoom with the objective of LeWM",
        two_room(1000, "lewm"),
        98,
        "success",
        _TWO_ROOM_PUBLISHED,
        _PEER_DIFFERENCES,
        ("stable_worldmodel",),
    ),
    "tworoom-pldm": Row(
        "tworoom with the objective of PLDM",
        two_room(1000, "pldm"),
        98,
        "success",
        _TWO_ROOM_PUBLISHED,
        _PEER_DIFFERENCES,
        ("stable_worldmodel",),
    ),
    "cartpole": Row(
        "CartPole-v1, agent trained in the dream",
        dream_agent("CartPole-v1", {}, {"steps": 50_000, "loop": {"rounds": 3}}),
        490,
        "return",
        (Published("PPO, 100,000 steps", "500.0", _ZOO),),
        _AGENT_DIFFERENCES,
    ),
    "acrobot": Row(
        "Acrobot-v1, agent trained in the dream",
        dream_agent(
            "Acrobot-v1",
            {"size": 80, "steps": 500},
            {"steps": 200_000, "eval_points": 2, "loop": {"rounds": 3}},
        ),
        -85,
        "return",
        (Published("PPO, 1,000,000 steps", "-73.5", _ZOO),),
        _AGENT_DIFFERENCES,
    ),
    "pendulum": Row(
        "Pendulum-v1, agent trained in the dream",
        dream_agent("Pendulum-v1", {"size": 800}, {"steps": 200_000}),
        -180,
        "return",
        (
            Published("PPO, 100,000 steps", "-172.2", _ZOO),
            Published("SAC, 20,000 steps", "-157.0", _ZOO),
        ),
        _AGENT_DIFFERENCES,
    ),
    "mountaincar": Row(
        "MountainCarContinuous-v0, agent trained in the dream",
        dream_agent(
            "MountainCarContinuous-v0",
            {
                "size": 110,
                "steps": 300,
                "policy": "benchmarks.public.rows:LongHolds",
                "settings": {"data.validation_size": 16, "data.heldout_size": 32},
            },
            {
                "steps": 100_000,
                "gamma": 0.99,
                "dream_steps": 200,
                "normalize_rewards": True,
                "kwargs": {"use_sde": True},
                "eval_points": 1,
                "ensemble": _RANDOM_MEMBERS,
                "candidates": {"count": 3},
            },
        ),
        90,
        "return",
        (Published("SAC, 50,000 steps", "94.7", _ZOO),),
        _AGENT_DIFFERENCES,
    ),
    "swingup": Row(
        "DoublePendulumPixels-v0, five agents trained in the dream of each model",
        dream_agent(
            "DoublePendulumPixels-v0",
            {"size": 1600, "epochs": 125, "decoder_epochs": 38},
            {
                "steps": 1_200_000,
                "dream_steps": 100,
                "normalize_rewards": True,
                "kwargs": {"n_steps": 64, "batch_size": 1024, "learning_rate": "lin_3e-4"},
                "eval_points": 1,
                "ensemble": _RANDOM_MEMBERS | {"updates": 3000, "horizon": 8},
            },
            agents=5,
        ),
        178,
        "return",
        (),
        "No published results: an environment of this project. PPO on latents of the real one, "
        "instead of the dream, reaches 188.",
    ),
}
"""All rows: name -> row."""
