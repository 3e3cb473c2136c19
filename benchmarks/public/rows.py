"""The rows of the public benchmark: tasks with published results, and how each is measured.

A row trains a model with `worldmodel.train`, solves its task with the model, and returns one
`Score`. Everything is seeded; goals and evaluation episodes are never those of the training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import worldmodel
from worldmodel import Policy
from worldmodel.data.datasets import collect_to

TWO_ROOM = "stable_worldmodel.envs:swm/TwoRoom-v1"


class Published(NamedTuple):
    """A result of others: the method, its value in the units of the row, and where it stands."""

    method: str
    value: str
    source: str


class Score(NamedTuple):
    """The result of one training seed.

    Attributes:
        value: success rate in percent, or mean return over held-out episodes.
        trials: tasks or episodes behind it.
        real_steps: steps of the real environment, of the model's data and of the agent.
        details: further figures, JSON values.
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
        bar: the value that this project aims at.
        unit: of the value.
        published: results of others.
        differences: how the protocol differs from that of the published results.
        needs: packages of the extra ``benchmarks`` that it imports.
    """

    title: str
    measure: Callable[[int, Path, bool], Score]
    bar: float
    unit: str
    published: tuple[Published, ...]
    differences: str
    needs: tuple[str, ...] = field(default=())


class TwoRoomExpert(Policy):
    """The noisy expert of stable-worldmodel 0.1.1 (action_noise 2.0, action_repeat_prob 0.05).

    It heads for the target at unit speed, through the closest door if the target is in the other
    room. The vector observation of TwoRoom holds the positions of the agent, the target and three
    doors in pixels, 0 where there is no door.
    """

    NOISE, REPEAT, WALL, AT_DOOR = 2.0, 0.05, 112.0, 10.5

    def bind(self, action_space: Any, observation_space: Any, steps: int) -> Any:
        """Prepare to act; see `worldmodel.Policy.bind`."""

        def start(seed: int) -> Any:
            rng = np.random.default_rng(seed)
            last: list[np.ndarray] = []

            def act(t: int, observation: Any) -> np.ndarray:
                if last and rng.random() < self.REPEAT:
                    return last[-1]
                heading = self._waypoint(np.asarray(observation)) - np.asarray(observation)[:2]
                heading /= max(float(np.linalg.norm(heading)), 1e-8)
                noisy = heading + rng.normal(0, self.NOISE, 2)
                last[:] = [np.clip(noisy, -1, 1).astype(action_space.dtype)]
                return last[-1]

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


def two_room(size: int, expert_goals: bool) -> Callable[[int, Path, bool], Score]:
    """Make the measurement of goal reaching in TwoRoom.

    Args:
        size: random training trajectories, of 40 steps each.
        expert_goals: draw the tasks from episodes of `TwoRoomExpert`, otherwise from held-out
            episodes of random actions.
    """

    def measure(seed: int, folder: Path, smallest: bool) -> Score:
        run = worldmodel.train(
            env=TWO_ROOM,
            policy="random",
            size=32 if smallest else size,
            steps=40,
            preset="smoke" if smallest else "quick",
            seed=seed,
            data_dir=str(folder / "data"),
            output_dir=str(folder / "runs"),
        )
        goals = "heldout"
        if expert_goals:
            goals = str(folder / "expert")
            if not Path(goals).exists():
                collect_to(
                    Path(goals),
                    env_id=TWO_ROOM,
                    env_kwargs={},
                    image_size=64,
                    state_key="state",
                    size=8 if smallest else 200,
                    steps=100,
                    policy="benchmarks.public.rows:TwoRoomExpert",
                    first_seed=20_000,
                )
        result = run.reach_goals(
            goals=goals,
            goal_offset=25,
            budget=50,
            episodes=2 if smallest else 50,
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
    env: str, train: Mapping[str, Any], agent: Mapping[str, Any]
) -> Callable[[int, Path, bool], Score]:
    """Make the measurement of an agent trained in the dream and evaluated in the real environment.

    Args:
        env: id of the environment.
        train: further arguments of `worldmodel.train`.
        agent: fields of `worldmodel.AgentConfig`.
    """

    def measure(seed: int, folder: Path, smallest: bool) -> Score:
        run = worldmodel.train(
            env=env,
            policy="random",
            seed=seed,
            data_dir=str(folder / "data"),
            output_dir=str(folder / "runs"),
            **(dict(train) | ({"preset": "smoke", "size": 64} if smallest else {})),
        )
        settings = dict(agent)
        if smallest:
            settings |= {"steps": 2048, "eval_points": 1, "eval_episodes": 2, "loop": {}}
        result = run.train_agent(on="dream", seed=seed, **settings)
        real = result["real"]
        steps = result["real_steps"] + result["model_data_steps"]
        return Score(real["mean"], len(real["returns"]), steps, {"std": real["std"]})

    return measure


_ZOO = "rl-baselines3-zoo, benchmark.md: on the true state, 100,000 steps and more"
_LEWM = "paper of LeWM (LeWorldModel); re-runs of LeWM by others gave 48 to 98"
_TWO_ROOM_PUBLISHED = (
    Published("random actions", "0", _LEWM),
    Published("LeWM", "87", _LEWM),
    Published("PLDM", "97", _LEWM),
    Published("DINO-WM", "100", _LEWM),
)
_AGENT_DIFFERENCES = (
    "The published agents observe the true state and act in the real environment; ours learns from "
    "pixels, in the model."
)

ROWS: dict[str, Row] = {
    "tworoom": Row(
        "swm/TwoRoom-v1, goals 25 steps ahead in expert episodes, budget 50",
        two_room(1000, expert_goals=True),
        98,
        "% of goals",
        _TWO_ROOM_PUBLISHED,
        "Ours trains on 40,000 steps of random actions instead of expert episodes, from frames of "
        "64 x 64 pixels instead of 224 x 224. The goals come from new episodes of the same noisy "
        "expert, other ones for each training seed.",
        ("stable_worldmodel",),
    ),
    "tworoom-250": Row(
        "the same with 250 trajectories of training data",
        two_room(250, expert_goals=True),
        95,
        "% of goals",
        _TWO_ROOM_PUBLISHED,
        "As in tworoom, with 10,000 steps of training data.",
        ("stable_worldmodel",),
    ),
    "cartpole": Row(
        "CartPole-v1, agent trained in the dream",
        dream_agent("CartPole-v1", {}, {"steps": 50_000, "loop": {"rounds": 3}}),
        490,
        "return",
        (Published("PPO", "500", _ZOO),),
        _AGENT_DIFFERENCES,
    ),
    "acrobot": Row(
        "Acrobot-v1, agent trained in the dream",
        dream_agent("Acrobot-v1", {"size": 800}, {"steps": 200_000, "loop": {"rounds": 2}}),
        -85,
        "return",
        (Published("PPO", "-73 to -85", _ZOO),),
        _AGENT_DIFFERENCES,
    ),
    "pendulum": Row(
        "Pendulum-v1, agent trained in the dream",
        dream_agent("Pendulum-v1", {"size": 800}, {"steps": 200_000, "loop": {"rounds": 2}}),
        -180,
        "return",
        (Published("PPO", "-150 to -200", _ZOO),),
        _AGENT_DIFFERENCES,
    ),
    "mountaincar": Row(
        "MountainCarContinuous-v0, agent trained in the dream",
        dream_agent(
            "MountainCarContinuous-v0",
            {"size": 300, "steps": 150},
            {"steps": 200_000, "dream_steps": 200, "loop": {"rounds": 2}},
        ),
        90,
        "return",
        (Published("SAC", "92 to 95", _ZOO),),
        _AGENT_DIFFERENCES,
    ),
}
"""All rows: name -> row."""
