"""Planning in the real environment: episodes, their success, and a video."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from pydantic import FiniteFloat
from torch import Tensor
from typing_extensions import TypedDict

from worldmodel.callbacks import Callback, CallbackList
from worldmodel.files import write_json
from worldmodel.models import WorldModel
from worldmodel.planning.goals import Goal, GoalTest, StepOutcome, choose_goal
from worldmodel.planning.planners import TrajectoryOptimizer, make_planner, planner_settings
from worldmodel.planning.policy import PlanningPolicy
from worldmodel.run import Run


class PlannerResult(TypedDict):
    """What ``plan.json`` and ``goals.json`` both say about the planner and its speed."""

    method: str
    optimizer: dict[str, Any]
    horizon: int
    seed: int
    decision_ms: FiniteFloat
    video: str | None


# A key is a keyword of Python, so that this one cannot be a class.
PlanAttempt = TypedDict(
    "PlanAttempt",
    {"seed": int, "return": FiniteFloat, "steps": int, "steps_to_success": int | None},
)


class PlanResult(PlannerResult):
    """Content of ``plan.json``; see `plan`."""

    goal: str
    steps: int
    criterion: str | None
    successes: int | None
    return_mean: FiniteFloat
    attempts: list[PlanAttempt]


@dataclass
class PlannedEpisode:
    """One episode of the planner in the real environment.

    Attributes:
        frames: T+1 frames (H, W, C), the newest one of each observation.
        imagined: T latents (1, D), where each plan ends according to the model.
        rewards: T real rewards.
        at_goal: whether each of the T steps ended at the goal; empty without a test.
        seconds: time that each of the T decisions took.
    """

    frames: list[np.ndarray] = field(default_factory=list)
    imagined: list[Tensor] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    at_goal: list[bool] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def steps_to_success(self, hold: int) -> int | None:
        """Count the steps until the goal was held for `hold` successive steps; None if never."""
        held = 0
        for step, at_goal in enumerate(self.at_goal, 1):
            held = held + 1 if at_goal else 0
            if held == hold:
                return step
        return None


def plan(
    run: Run,
    *,
    goal: str | None = None,
    method: str | None = None,
    horizon: int | None = None,
    samples: int | None = None,
    iterations: int | None = None,
    episodes: int = 10,
    steps: int = 200,
    seed: int = 20_000,
    output: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Act in the real environment by planning with the model of a run.

    Args:
        run: a finished run.
        goal: see `choose_goal`; None for the default goal of the environment's plug-in.
        method: ``"icem"``, ``"cem"``, ``"mppi"`` or ``module:Name``; None for `planning.method` of
            the run's configuration.
        horizon: steps ahead; None for `planning.horizon`.
        samples: candidates per iteration; None for `planning.samples`.
        iterations: of the search; None for `planning.iterations`.
        episodes: number of episodes.
        steps: maximum steps per episode.
        seed: random seed of the first episode and of the search; the following episodes count up.
        output: path of the video of the first episode; None for ``plan.mp4`` in the run directory.
        callbacks: that show progress.

    Returns:
        What is also written to ``plan.json`` in the run directory: `goal`, `method`, `optimizer`
        (its settings), `horizon`, `steps`, `seed`, `video` (a path; None for a model of vectors),
        `criterion` and `successes` (None without a test), `return_mean`, `decision_ms` (median),
        and for each of `attempts` its `seed`, `return`, `steps` and `steps_to_success` (None if
        the goal was not reached).

    Raises:
        RunError: If there is no finished run.
        ValueError: If an argument does not fit the run.
    """
    from worldmodel.viz.video import check_video_path, write_video

    for name, value in {"episodes": episodes, "steps": steps}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; expected 1 or more")
    callback = CallbackList(callbacks)
    settings, wm = run.config.planning, run.model
    path = check_video_path(output or run.path / "plan.mp4")
    if output is not None:
        run.require_decoder()
    run.warn_if_one_action(callback)
    chosen = choose_goal(goal or run.plugin.default_goal, run)
    method, horizon, optimizer = plan_settings(run, method, horizon, samples, iterations)
    policy = PlanningPolicy(wm, chosen.objective, optimizer, horizon=horizon, seed=seed)
    played = []
    with callback.task("plan", episodes) as advance, closing(run.make_env()) as env:
        for i in range(episodes):
            observation, _ = env.reset(seed=seed + i)
            played.append(act(env, policy, observation, steps, chosen.reached))
            advance(i + 1, f"return {sum(played[-1].rewards):.1f}")
    video = None
    if wm.decoder is not None:
        write_video(path, _video_frames(wm, played[0], seed, horizon, run.dt), 1.0 / run.dt)
        video = str(path)
    result = {
        "goal": chosen.name,
        "method": method,
        "optimizer": planner_settings(optimizer),
        "horizon": horizon,
        "steps": steps,
        "seed": seed,
        "video": video,
        **_summarize(played, seed, chosen, settings.hold_seconds, run.dt),
    }
    write_json(run.path / "plan.json", result)
    return result


def plan_settings(
    run: Run,
    method: str | None,
    horizon: int | None,
    samples: int | None,
    iterations: int | None,
) -> tuple[str, int, TrajectoryOptimizer]:
    """Method, horizon and planner: the arguments, or what the run's configuration says instead."""
    settings = run.config.planning
    method = method or settings.method
    horizon = settings.horizon if horizon is None else horizon
    samples = settings.samples if samples is None else samples
    iterations = settings.iterations if iterations is None else iterations
    return method, horizon, make_planner(method, samples, iterations, **settings.kwargs)


def act(
    env: gym.Env[np.ndarray, Any],
    policy: PlanningPolicy,
    observation: np.ndarray,
    steps: int,
    reached: GoalTest | None = None,
    *,
    until_reached: bool = False,
) -> PlannedEpisode:
    """Plan and act until an episode ends.

    Args:
        env: the environment, after a reset.
        policy: chooses the actions.
        observation: (H, W, S*C), the current one.
        steps: at most.
        reached: a test whose result is recorded after every step.
        until_reached: whether reaching the goal ends the episode.
    """
    episode, wm = PlannedEpisode(), policy.wm
    episode.frames.append(wm.frames.newest(observation))
    episode_start = np.ones(1, np.bool_)
    for _ in range(steps):
        start_time = time.perf_counter()
        action, _ = policy.predict(observation, episode_start=episode_start)
        episode.seconds.append(time.perf_counter() - start_time)
        episode.imagined.append(policy.imagine(wm.encode(observation[None]))[-1])
        observation, reward, terminated, truncated, info = env.step(action)
        episode.frames.append(wm.frames.newest(observation))
        episode.rewards.append(float(reward))
        if reached is not None:
            outcome = StepOutcome(info, bool(terminated), wm.encode(observation[None]))
            episode.at_goal.append(reached(outcome))
        episode_start = np.zeros(1, np.bool_)
        if terminated or truncated or (until_reached and any(episode.at_goal[-1:])):
            break
    return episode


def _summarize(
    episodes: list[PlannedEpisode], seed: int, goal: Goal, hold_seconds: float, dt: float
) -> dict[str, Any]:
    """Summarize the success and the returns of episodes as JSON values."""
    hold = max(1, round(hold_seconds / dt))
    to_success = [episode.steps_to_success(hold) for episode in episodes]
    returns = [sum(episode.rewards) for episode in episodes]
    tested = goal.reached is not None
    return {
        "criterion": f"{goal.criterion}, held for {hold_seconds:g} s" if tested else None,
        "successes": sum(s is not None for s in to_success) if tested else None,
        "return_mean": statistics.fmean(returns),
        "decision_ms": 1e3 * statistics.median(s for e in episodes for s in e.seconds),
        "attempts": [
            {"seed": seed + i, "return": r, "steps": len(e.rewards), "steps_to_success": s}
            for i, (e, r, s) in enumerate(zip(episodes, returns, to_success, strict=True))
        ],
    }


def _video_frames(
    wm: WorldModel, episode: PlannedEpisode, seed: int, horizon: int, dt: float
) -> Iterator[np.ndarray]:
    """Draw real frames beside the decoded end of each plan, above a curve of the rewards."""
    from worldmodel.viz.canvas import compose, curve_strip
    from worldmodel.viz.video import decode_newest

    imagined = decode_newest(wm, torch.cat(episode.imagined))
    last, rewards = len(episode.rewards), episode.rewards
    low, high = np.floor(10 * min(0.0, *rewards)) / 10, np.ceil(10 * max(0.1, *rewards)) / 10
    labels = ("real environment", f"end of the plan, {horizon * dt:.2f} s ahead")
    for k in range(last):
        panels = (episode.frames[k], imagined[k])
        note = f"seed {seed}   step {k} of {last}"
        top = compose(panels, labels, f"t = {k * dt:.2f} s", note)
        curve = curve_strip(rewards[:k], last - 1, "reward", top.shape[1], low=low, high=high)
        yield np.concatenate([top, curve])
