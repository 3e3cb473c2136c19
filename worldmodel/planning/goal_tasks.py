"""Tasks of goal reaching: a start and a goal that one recorded episode connects, and success.

A task starts where a recorded episode was at a random time, and its goal is what that episode
observed a number of steps later, so that every goal can be reached. This is the protocol of
DINO-WM (arXiv:2411.04983, section 4) and of stable-worldmodel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from torch import Tensor

from worldmodel.data import FrameStack, ReplayBuffer
from worldmodel.planning.goals import GoalTest, StepOutcome, latent_criterion, latent_test
from worldmodel.run import Run

_STREAM = 0x60A1  # keeps the choice of tasks apart from other uses of the seed


@dataclass(frozen=True)
class GoalTask:
    """A start and a goal from one episode.

    Attributes:
        seed: of the environment's reset; None if it is unknown.
        options: of the environment's reset.
        repeats: whether the episode is repeated from its seed to get to the start; otherwise an
            option sets the state.
        actions: (t, ...), replayed after the reset; none if an option sets the state.
        start: frame (H, W, C) at the start.
        goal: observation (H, W, S*C) of the goal.
        goal_state: true state (d,) of the goal; None if it is unknown.
    """

    seed: int | None
    options: dict[str, Any]
    repeats: bool
    actions: np.ndarray
    start: np.ndarray
    goal: np.ndarray
    goal_state: np.ndarray | None

    def reset(self, env: gym.Env[np.ndarray, Any], frames: FrameStack) -> tuple[np.ndarray, Any]:
        """Reset an environment to the start; return its observation and info.

        Raises:
            ValueError: If the frame at the start differs from the recorded one.
        """
        observation, info = env.reset(seed=self.seed, options=self.options or None)
        for action in self.actions:
            observation, _, _, _, info = env.step(action)
        if not np.array_equal(frames.newest(observation), self.start):
            if self.repeats:
                raise ValueError(
                    f"the environment does not repeat its episode of seed {self.seed}: the frame "
                    f"after {len(self.actions)} steps differs from the recorded one; pass the "
                    "reset option that sets a true state (--start-option)"
                )
            raise ValueError(
                f"the frame after a reset with the options {', '.join(self.options)} differs from "
                "the recorded one; check that the start option sets the whole state, and that the "
                "environment's arguments (--set env.kwargs) are those of the recorded episodes"
            )
        return observation, info


def draw_tasks(
    buffer: ReplayBuffer,
    frames: FrameStack,
    offset: int,
    count: int,
    seed: int,
    start_option: str | None = None,
    goal_option: str | None = None,
) -> list[GoalTask]:
    """Draw tasks without replacement from all starts that can be reproduced and have a goal.

    Args:
        buffer: recorded episodes.
        frames: stacks frames to observations.
        offset: steps from start to goal.
        count: number of tasks.
        seed: random seed of the choice.
        start_option: see `reach_goals`.
        goal_option: see `reach_goals`.

    Raises:
        ValueError: If too few episodes are long enough, or states or seeds are missing.
    """
    if (start_option or goal_option) and not buffer.state_dim:
        raise ValueError(
            "start_option and goal_option need true states, which the recorded episodes do not "
            "have; set data.state_key (--state-key)"
        )
    if not start_option and (buffer.seeds < 0).all():
        raise ValueError(
            "the recorded episodes have no seeds that an environment could repeat; pass the reset "
            "option that sets a true state (--start-option)"
        )
    first = frames.first if start_option else 0
    starts = [
        (episode, t)
        for episode, length in enumerate(buffer.lengths.tolist())
        if start_option or buffer.seeds[episode] >= 0
        for t in range(first, length - offset)
    ]
    if len(starts) < count:
        skipped = 0 if start_option else int((buffer.seeds < 0).sum())
        seedless = f"; {skipped} episodes without a seed need --start-option" if skipped else ""
        raise ValueError(
            f"the recorded episodes have {len(starts)} starts with a goal {offset} steps later, "
            f"and {count} are asked for; lower --episodes or --goal-offset (the median episode has "
            f"{int(np.median(buffer.lengths)) - 1} steps){seedless}"
        )
    chosen = np.random.default_rng((_STREAM, seed)).choice(len(starts), count, replace=False)
    return [
        _task(buffer, frames, starts[i], offset, start_option, goal_option) for i in sorted(chosen)
    ]


def _task(
    buffer: ReplayBuffer,
    frames: FrameStack,
    start: tuple[int, int],
    offset: int,
    start_option: str | None,
    goal_option: str | None,
) -> GoalTask:
    episode, t = start
    which, begin = np.array([episode]), np.array([0])
    seen = buffer.windows(which, begin, t + offset + 1)
    states = buffer.states(which, begin, t + offset + 1)[0] if buffer.state_dim else None
    options: dict[str, Any] = {}
    seed = int(buffer.seeds[episode])
    if start_option:
        assert states is not None
        options[start_option] = states[t]
    if goal_option:
        assert states is not None
        options[goal_option] = states[-1]
    return GoalTask(
        seed if seed >= 0 else None,
        options,
        start_option is None,
        seen.actions[0, : 0 if start_option else t],
        seen.frames[0, t],
        frames.observe(seen.frames, t + offset)[0],
        None if states is None else states[-1],
    )


def choose_success_test(
    run: Run, buffer: ReplayBuffer, success: str | None, tolerance: float
) -> tuple[Callable[[GoalTask, Tensor], GoalTest], str]:
    """Return a function from a task and its goal latent (1, D) to its test, and the criterion."""
    name = success or ("distance" if buffer.state_dim else "latent")
    if name == "terminated":
        return lambda task, z: lambda outcome: outcome.terminated, "the environment terminates"
    if name == "latent":
        return lambda task, z: latent_test(run, z), latent_criterion(run)
    if name != "distance":
        return lambda task, z: _info_test(name), f"info[{name!r}] is true"
    if not buffer.state_dim:
        raise ValueError(
            "success 'distance' needs true states, which the recorded episodes do not have; set "
            "data.state_key (--state-key), or use 'terminated', 'latent' or a key of info"
        )
    key, readout = run.config.data.state_key, run.readout(buffer.state_dim)
    lengths = buffer.lengths
    states = np.concatenate(
        [buffer.states(np.array([e]), np.array([0]), n)[0] for e, n in enumerate(lengths.tolist())]
    )
    scale = np.maximum(readout.targets(states).std(axis=0), 1e-6)

    def distance_test(task: GoalTask, z: Tensor) -> GoalTest:
        goal = readout.targets(np.asarray(task.goal_state)[None])[0]

        def reached(outcome: StepOutcome) -> bool:
            if key not in outcome.info:
                raise ValueError(
                    f"success 'distance' needs the true state, and info has no {key!r}; set "
                    "data.state_key, or use 'terminated', 'latent' or a key of info"
                )
            here = readout.targets(np.asarray(outcome.info[key], np.float64).reshape(1, -1))[0]
            return bool(np.sqrt(np.mean(((here - goal) / scale) ** 2)) <= tolerance)

        return reached

    return distance_test, (
        f"true state within {tolerance:g} standard deviations of the goal's, root mean square over "
        f"{', '.join(readout.names)}"
    )


def _info_test(key: str) -> GoalTest:
    def reached(outcome: StepOutcome) -> bool:
        if outcome.after_reset:
            return bool(outcome.info.get(key))
        if key not in outcome.info:
            raise ValueError(
                f"success is {key!r}, and info has {', '.join(map(repr, outcome.info)) or 'no key'}"
                "; expected 'terminated', 'distance', 'latent', or one of these keys"
            )
        return bool(outcome.info[key])

    return reached
