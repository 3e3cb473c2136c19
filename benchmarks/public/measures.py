"""How the rows of the public benchmark are measured: goal reaching, and agents in the dream.

A measurement trains a model with `worldmodel.train`, solves its task with the model, and returns a
`Score`. Everything is seeded; goals and evaluation episodes are never those of the training.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

import worldmodel
from benchmarks.public.peers import PEERS
from worldmodel import Policy, Run
from worldmodel.data import load_or_collect
from worldmodel.data.policies import Random
from worldmodel.rl.explorer import Explorer

TWO_ROOM = "stable_worldmodel.envs:swm/TwoRoom-v1"


class Score(NamedTuple):
    """The result of one training seed.

    Attributes:
        value: success rate in percent, or mean return over held-out episodes.
        trials: goals or episodes behind it.
        real_steps: steps of the real environment, those of frame skip included, of the model's data
            and of the agent; of several agents, the one with the most.
        details: further results, JSON values.
    """

    value: float
    trials: int
    real_steps: int
    details: dict[str, Any]


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
    doors in pixels, 0 where there is no door. The expert's ``action_repeat_prob`` is left out,
    because it has no effect in that version; so is its check that the agent fits through a door,
    because all doors of the default environment are wide enough.
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
                action: np.ndarray = np.clip(noisy, -1, 1).astype(action_space.dtype)
                return action

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


class FastRendering(gym.Wrapper[Any, Any, Any, Any]):
    """Renders dm_control without shadows and antialiasing, about 10 times as fast on a CPU."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        unwrapped: Any = env.unwrapped
        quality = unwrapped._env.physics.model.vis.quality
        quality.shadowsize = quality.offsamples = 0


class WideView(gym.Wrapper[Any, Any, Any, Any]):
    """Widens the field of view of dm_control's first camera to 60 degrees.

    With the 45 degrees of cartpole-swingup, the camera shows neither cart nor pole near the ends of
    the track.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        unwrapped: Any = env.unwrapped
        unwrapped._env.physics.model.cam_fovy[0] = 60


class PushTGoals(gym.Wrapper[Any, Any, Any, Any]):
    """Adds the state of PushT to info, and `reached`, whether the goal is reached.

    The state is the position of the agent, that of the block, and the cosine and sine of its angle.

    The goal is the reset option ``goal_state``. It is reached, as in stable-worldmodel and
    DINO-WM, if the positions of agent and block together are within 20 of 512 pixels, and the angle
    of the block within 20 degrees.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.goal: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, and set the goal."""
        self.goal = (options or {}).get("goal_state")
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, info | self._state()

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, info | self._state()

    def _state(self) -> dict[str, Any]:
        env: Any = self.unwrapped
        angle = env.block.angle
        state = np.array([*env.agent.position, *env.block.position, np.cos(angle), np.sin(angle)])
        if self.goal is None:
            return {"state": state, "reached": False}
        near = np.linalg.norm(state[:4] - self.goal[:4]) < 20
        turned = np.arccos(np.clip(state[4:] @ self.goal[4:], -1.0, 1.0))
        return {"state": state, "reached": bool(near and turned < np.pi / 9)}


def two_room(size: int, peer: str | None = None) -> Callable[[int, Path, bool], Score]:
    """Return a function that measures goal reaching in TwoRoom.

    The tasks come from the same 200 held-out episodes of `TwoRoomExpert`, with other starts and
    goals for each training seed.

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
            policy="benchmarks.public.measures:TwoRoomExpert",
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
        return _goal_score(run, result)

    return measure


def push_t(seed: int, folder: Path, smoke: bool) -> Score:
    """Measure goal reaching in PushT, with goals of held-out episodes of random actions."""
    run = worldmodel.train(
        env="gym_pusht/PushT-v0",
        policy="random",
        wrappers=["benchmarks.public.measures:PushTGoals"],
        size=32 if smoke else 3000,
        preset="smoke" if smoke else "quick",
        settings={"data.state_key": "state", "env.kwargs": {"obs_type": "pixels"}},
        seed=seed,
        data_dir=str(folder / "data"),
        output_dir=str(folder / "runs"),
    )
    result = run.reach_goals(
        goal_offset=25,
        budget=50,
        episodes=2 if smoke else 50,
        success="reached",
        goal_option="goal_state",
        seed=seed,
    )
    return _goal_score(run, result)


def _goal_score(run: Run, result: Mapping[str, Any]) -> Score:
    kept = ("successes", "interval", "random_successes", "successes_at_start", "decision_ms")
    details = {key: result[key] for key in kept}
    steps = run.metrics.data.train_steps * run.config.env.frame_skip
    return Score(100 * result["success_rate"], result["episodes"], steps, details)


def dream_agent(
    env: str, train: Mapping[str, Any], agent: Mapping[str, Any], agents: int = 1
) -> Callable[[int, Path, bool], Score]:
    """Return a function that measures agents trained in the dream, in the real environment.

    Args:
        env: id of the environment.
        train: further arguments of `worldmodel.train`.
        agent: fields of `worldmodel.AgentConfig`.
        agents: number of agents on one model, whose mean is the value; agent i has the seed
            ``agents * seed + i``.
    """

    def measure(seed: int, folder: Path, smoke: bool) -> Score:
        run = worldmodel.train(
            env=env,
            seed=seed,
            data_dir=str(folder / "data"),
            output_dir=str(folder / "runs"),
            **{"policy": "random", **train, **({"preset": "smoke", "size": 64} if smoke else {})},
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


@dataclass(frozen=True)
class Retrained:
    """Measures an agent whose model is trained again, from scratch, on the episodes of agents.

    The first model is trained on episodes of random actions. An agent that is trained in its dream
    plays further episodes, with exploration noise, and the next model is trained on all episodes so
    far. Of the agents in the dream of the last model, the result is that of the one with the
    highest return in validation episodes. Real steps are those of all collected episodes,
    a tenth of which validate and a tenth evaluate each model, and of the episodes by which agents
    are chosen; learning curves and the final evaluation do not count.

    Attributes:
        env: id of the environment.
        steps: longest episode.
        make: further arguments of `worldmodel.train` and of `load_or_collect` alike.
        agent: fields of `worldmodel.AgentConfig`.
        settings: keys of the configuration, as `model.encoder`.
        updates: updates of phase 1 of each model, one number per model.
        random: episodes of random actions.
        added: episodes of the agent of each model but the last.
        judged: validation episodes of each of the last agents.
        agents: agents in the dream of the last model.
        held_out: episodes for the final result.
    """

    env: str
    steps: int
    make: Mapping[str, Any]
    agent: Mapping[str, Any]
    settings: Mapping[str, Any]
    updates: tuple[int, ...]
    random: int
    added: int
    judged: int
    agents: int = 3
    held_out: int = 10

    def __call__(self, seed: int, folder: Path, smoke: bool) -> Score:
        """Measure with a training seed, in a directory for all files."""
        plan = (8, 8) if smoke else self.updates
        data = [folder / f"random{seed}"]
        first = 1_000_000 + 10_000 * seed
        taken = self._collect(data[0], first, 10 if smoke else self.random, "random")
        validation = []
        for number, updates in enumerate(plan, 1):
            last = number == len(plan)
            run = self._train_model(seed, folder, data, updates, smoke)
            result = run.train_agent(on="dream", seed=seed, **self._agent_settings(last, smoke))
            taken += result["real_steps"]
            validation.append([each["mean"] for each in result.get("candidates", [])])
            if not last:
                data.append(folder / f"agent{number}_{seed}")
                explorer = Explorer(run.model, Path(result["agent"]), "ppo", noise=0.3)
                episodes = 2 if smoke else self.added
                taken += self._collect(data[-1], first + 1000 * number, episodes, explorer)
        real = result["real"]
        details = {key: real[key] for key in ("std", "returns")} | {"validation": validation}
        return Score(real["mean"], len(real["returns"]), taken * run.config.env.frame_skip, details)

    def _collect(self, path: Path, first: int, episodes: int, policy: str | Policy) -> int:
        """Collect episodes with seeds from `first` on; return their steps."""
        seeds = range(first, first + episodes)
        recipe = {"steps": self.steps, "policy": policy, **self.make}
        with load_or_collect(self.env, path, episodes=episodes, seeds=seeds, **recipe) as buffer:
            return buffer.num_transitions

    def _train_model(
        self, seed: int, folder: Path, data: list[Path], updates: int, smoke: bool
    ) -> Run:
        return worldmodel.train(
            env=self.env,
            data=[str(path) for path in data],
            preset="smoke" if smoke else "quick",
            settings={"data.heldout_size": 16, **self.settings},
            updates=updates,
            decoder_updates=8 if smoke else 100,
            seed=seed,
            data_dir=str(folder / "data"),
            output_dir=str(folder / "runs"),
            **self.make,
        )

    def _agent_settings(self, last: bool, smoke: bool) -> dict[str, Any]:
        if smoke:
            return {**self.agent, "steps": 2048, "ensemble": {}, "eval_episodes": 1}
        if not last:
            return {**self.agent, "candidates": {}, "eval_episodes": 1}
        candidates = {"count": self.agents, "episodes": self.judged}
        return {**self.agent, "candidates": candidates, "eval_episodes": self.held_out}
