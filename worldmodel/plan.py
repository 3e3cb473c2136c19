"""`worldmodel plan`: act in the real environment by planning in the dream, and judge it there."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from rich.console import Console

from worldmodel.datasets import environment
from worldmodel.evaluation import pendulum_task, step_seconds
from worldmodel.facts import warn_if_passive
from worldmodel.files import replacing
from worldmodel.goals import Goal, choose_goal
from worldmodel.imagination import PlanningPolicy, load_dream
from worldmodel.imagination.optimizers import make_optimizer
from worldmodel.models import WorldModel
from worldmodel.playback.canvas import compose
from worldmodel.playback.scenes import decode_newest
from worldmodel.playback.strips import curve_strip
from worldmodel.playback.writers import check_video_path, write_video
from worldmodel.progress import progress_bar
from worldmodel.reality import make_env
from worldmodel.run import Run, load

HELD_SECONDS = 1.0


@dataclass
class Attempt:
    """One episode of the planner in the real environment.

    Attributes:
        seed: Of the environment.
        frames: The newest of each observation, T+1 of them.
        imagined: Latents (1, D) that each plan expected at its end, T of them.
        rewards: Real ones.
        at_goal: Whether each step ended at the goal.
        seconds: That each decision took.
    """

    seed: int
    frames: list[np.ndarray] = field(default_factory=list)
    imagined: list[torch.Tensor] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    at_goal: list[bool] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def steps_to_success(self, hold: int) -> int | None:
        """Steps until the goal is first held for `hold` steps, those counted; None if never."""
        held = 0
        for step, there in enumerate(self.at_goal, 1):
            held = held + 1 if there else 0
            if held == hold:
                return step
        return None


def plan(
    run: Path,
    *,
    goal: str | None,
    method: str,
    horizon: int,
    samples: int | None,
    iterations: int | None,
    episodes: int,
    steps: int,
    seed: int,
    output: Path | None,
    device: str,
    console: Console,
) -> dict[str, Any]:
    """Plan in the real environment from its own start.

    Args:
        run: A run directory.
        goal: See `choose_goal`; None for ``"upright"`` if there is a pendulum, else ``"reward"``.
        method: ``"icem"``, ``"cem"`` or ``"mppi"``.
        horizon: Steps ahead.
        samples: Candidates an iteration; None for the method's own.
        iterations: Likewise.
        episodes: How many.
        steps: Of an episode at most.
        seed: Of the first episode; the next ones count up.
        output: The video of the first episode; None for ``plan.mp4`` in the run directory.
        device: See `worldmodel.load`.
        console: Shows progress.

    Returns:
        What is also written to ``plan.json`` in the run directory: the settings, `successes` and
        `criterion` (None without a test), `return_mean`, `decision_ms` (median), `video`, and for
        each of `attempts` its `seed`, `return`, `steps` and `steps_to_success`.

    Raises:
        RunError: There is no finished run.
        ValueError: An argument does not fit the run.
    """
    config, wm = Run(run).config(), load(run, device)
    path = check_video_path(output or run / "plan.mp4")
    if output is not None and wm.decoder is None:
        raise ValueError(f"{run} learned from vectors, so there is nothing to film; omit --output")
    warn_if_passive(config, console)
    world = environment(config)
    if goal is None:
        is_pendulum = pendulum_task(world["env_id"], world["env_kwargs"]) is not None
        goal = "upright" if is_pendulum else "reward"
    chosen = choose_goal(goal, config, wm, load_dream(run, wm)["starts"])
    optimizer = make_optimizer(method, samples, iterations)
    policy = PlanningPolicy(wm, chosen.objective, optimizer, horizon=horizon, seed=seed)
    dt = step_seconds(world["env_id"], world["env_kwargs"])
    env = make_env(run)
    with progress_bar(console, "plan", episodes, 0) as bar:
        attempts = []
        for i in range(episodes):
            attempt = _attempt(env, policy, chosen, seed + i, steps, config.data.state_key)
            attempts.append(attempt)
            bar(i + 1, f"return {sum(attempt.rewards):.1f}")
    env.close()
    video = None
    if wm.decoder is not None:
        write_video(path, _frames(wm, attempts[0], policy.horizon, dt), 1.0 / dt)
        video = str(path)
    settings = {
        "goal": goal,
        "method": method,
        "optimizer": asdict(optimizer),
        "horizon": horizon,
        "steps": steps,
        "seed": seed,
        "video": video,
    }
    result = settings | _judge(attempts, chosen, round(HELD_SECONDS / dt))
    with replacing(run / "plan.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def _attempt(
    env: gym.Env[np.ndarray, Any],
    policy: PlanningPolicy,
    goal: Goal,
    seed: int,
    steps: int,
    state_key: str,
) -> Attempt:
    attempt = Attempt(seed)
    channels = policy.wm.spec.frame_shape[-1]
    observation, _ = env.reset(seed=seed)
    attempt.frames.append(observation[..., -channels:])
    started = np.ones(1, bool)
    for _ in range(steps):
        begun = time.perf_counter()
        action, _ = policy.predict(observation, episode_start=started)
        attempt.seconds.append(time.perf_counter() - begun)
        attempt.imagined.append(policy.imagine(policy.wm.encode(observation[None]))[-1])
        observation, reward, terminated, truncated, info = env.step(action)
        attempt.frames.append(observation[..., -channels:])
        attempt.rewards.append(float(reward))
        if goal.reached is not None:
            z = policy.wm.encode(observation[None])
            attempt.at_goal.append(goal.reached(info.get(state_key), z))
        started = np.zeros(1, bool)
        if terminated or truncated:
            break
    return attempt


def _judge(attempts: list[Attempt], goal: Goal, hold: int) -> dict[str, Any]:
    to_success = [attempt.steps_to_success(hold) for attempt in attempts]
    returns = [sum(attempt.rewards) for attempt in attempts]
    tested = goal.reached is not None
    return {
        "criterion": f"{goal.criterion}, held for {HELD_SECONDS:g} s" if tested else None,
        "successes": sum(s is not None for s in to_success) if tested else None,
        "return_mean": statistics.fmean(returns),
        "decision_ms": 1e3 * statistics.median(s for a in attempts for s in a.seconds),
        "attempts": [
            {"seed": a.seed, "return": r, "steps": len(a.rewards), "steps_to_success": s}
            for a, r, s in zip(attempts, returns, to_success, strict=True)
        ],
    }


def _frames(wm: WorldModel, attempt: Attempt, horizon: int, dt: float) -> Iterator[np.ndarray]:
    """Reality beside what each plan leads to, the reward under them."""
    imagined = decode_newest(wm, torch.cat(attempt.imagined), attempt.frames[0].shape[-1])
    last, rewards = len(attempt.rewards), attempt.rewards
    low, high = np.floor(10 * min(0.0, *rewards)) / 10, np.ceil(10 * max(0.1, *rewards)) / 10
    labels = ("reality", f"planned for {horizon * dt:.2f} s later")
    for k in range(last):
        panels = (attempt.frames[k], imagined[k])
        note = f"seed {attempt.seed}   step {k} of {last}"
        top = compose(panels, labels, f"t = {k * dt:.2f} s", note)
        curve = curve_strip(rewards[:k], last - 1, "reward", top.shape[1], low=low, high=high)
        yield np.concatenate([top, curve])
