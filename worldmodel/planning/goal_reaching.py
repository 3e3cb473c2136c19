"""Goal reaching: plan from one observation of a recorded episode to a later one.

The planner sees the goal's observation only. Success is determined by the environment or by its
true state, and reported with an interval, beside that of random actions.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from pydantic import FiniteFloat
from scipy.stats import binomtest
from typing_extensions import TypedDict

from worldmodel.callbacks import Callback, CallbackList
from worldmodel.data import ReplayBuffer, evaluation_set
from worldmodel.data.adapters import adapt_config
from worldmodel.data.datasets import training_seeds
from worldmodel.files import write_json
from worldmodel.models import WorldModel
from worldmodel.planning.episodes import PlannedEpisode, PlannerResult, act, plan_settings
from worldmodel.planning.goal_tasks import GoalTask, choose_success_test, draw_tasks
from worldmodel.planning.goals import GoalTest, StepOutcome
from worldmodel.planning.planners import planner_settings
from worldmodel.planning.policy import PlanningPolicy, goal_distance
from worldmodel.run import Run

_SHOWN = 3


class GoalAttempt(TypedDict):
    """One task: where it starts, and the steps until its goal was reached; None if it was not."""

    seed: int
    start: int
    steps_to_success: int | None


class GoalResult(PlannerResult):
    """Content of ``goals.json``; see `reach_goals`."""

    goals: str
    goal_offset: int
    budget: int
    success: str | None
    tolerance: FiniteFloat
    start_option: str | None
    goal_option: str | None
    criterion: str
    episodes: int
    successes: int
    success_rate: FiniteFloat
    interval: tuple[FiniteFloat, FiniteFloat]
    steps_median: FiniteFloat | None
    attempts: list[GoalAttempt]
    random_successes: int
    successes_at_start: int


def reach_goals(
    run: Run,
    *,
    goals: str | Path = "heldout",
    goal_offset: int = 25,
    budget: int = 50,
    episodes: int = 50,
    success: str | None = None,
    tolerance: float = 0.25,
    start_option: str | None = None,
    goal_option: str | None = None,
    method: str | None = None,
    horizon: int | None = None,
    samples: int | None = None,
    iterations: int | None = None,
    seed: int = 0,
    output: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Reach goals of held-out episodes by planning with the model of a run.

    Args:
        run: a finished run.
        goals: source of the tasks: ``"heldout"`` episodes, ``"validation"`` episodes to choose
            hyperparameters by, or the path of a replay buffer, as of an expert's episodes.
        goal_offset: steps of the recorded episode from the start to the goal.
        budget: maximum steps per task.
        episodes: number of tasks.
        success: ``"terminated"``, ``"distance"`` (of true states), ``"latent"``, or a key of
            ``info`` that is true at the goal. None for distance where there are true states, else
            latent.
        tolerance: for ``"distance"``: root mean square over the targets of the state readout, each
            in units of its standard deviation over the recorded episodes.
        start_option: reset option that sets the true state at the start; None to repeat the
            episode from its seed.
        goal_option: reset option that sets the goal's true state.
        method: see `plan`.
        horizon: see `plan`.
        samples: see `plan`.
        iterations: see `plan`.
        seed: random seed of the choice of tasks and of the search.
        output: path of the video; None for ``goals.mp4`` in the run directory.
        callbacks: that show progress.

    Returns:
        What is also written to ``goals.json`` in the run directory: the arguments; `criterion`;
        `successes`, `success_rate` and its 95 % Wilson `interval`; `random_successes`, of random
        actions on the same tasks; `successes_at_start`, tasks whose start counts as the goal;
        `steps_median`, of the successes; `decision_ms` (median); `video` (a path; None for a model
        of vectors); and for each of `attempts` its `seed`, `start` and `steps_to_success`.

    Raises:
        RunError: If there is no finished run.
        ValueError: If an argument does not fit the run.
    """
    from worldmodel.viz.video import check_video_path, write_video

    watching, wm = CallbackList(callbacks), run.model
    path = check_video_path(output or run.path / "goals.mp4")
    if output is not None:
        run.require_decoder()
    run.warn_if_one_action(watching)
    method, horizon, optimizer = plan_settings(run, method, horizon, samples, iterations)
    lowest = {"goal_offset": max(1, wm.frames.first), "budget": 1, "episodes": 1}
    given = {"goal_offset": goal_offset, "budget": budget, "episodes": episodes}
    for name, value in given.items():
        if value < lowest[name]:
            raise ValueError(f"{name} is {value}; expected {lowest[name]} or more")
    with _recorded(run, goals, goal_offset, episodes, watching) as (buffer, recorded_as):
        tasks = draw_tasks(
            buffer, wm.frames, goal_offset, episodes, seed, start_option, goal_option
        )
        test, criterion = choose_success_test(run, buffer, success, tolerance)
    played, random, at_start = [], [], 0
    with (
        watching.task("goals", len(tasks)) as advance,
        closing(recorded_as.make_env()) as env,
    ):
        for i, task in enumerate(tasks):
            z = wm.encode(task.goal[None])
            reached, objective = test(task, z), goal_distance(z[0])
            policy = PlanningPolicy(wm, objective, optimizer, horizon=horizon, seed=seed + i)
            observation, info = task.reset(env, wm.frames)
            at_start += reached(StepOutcome(info, False, wm.encode(observation[None]), True))
            played.append(act(env, policy, observation, budget, reached, until_reached=True))
            random.append(_reached_at_random(env, wm, reached, task, budget, seed + i))
            done = sum(e.at_goal[-1] for e in played)
            advance(i + 1, f"{done} of {i + 1} reached")
    video = None
    if wm.decoder is not None:
        write_video(path, _video_frames(wm, tasks, played, horizon, run.dt), 1.0 / run.dt)
        video = str(path)
    result = {
        "goals": str(goals),
        "goal_offset": goal_offset,
        "budget": budget,
        "method": method,
        "optimizer": planner_settings(optimizer),
        "horizon": horizon,
        "seed": seed,
        "success": success,
        "tolerance": tolerance,
        "start_option": start_option,
        "goal_option": goal_option,
        "criterion": criterion,
        **_summarize(tasks, played),
        "random_successes": sum(random),
        "successes_at_start": at_start,
        "video": video,
    }
    write_json(run.path / "goals.json", result)
    return result


@contextmanager
def _recorded(
    run: Run, goals: str | Path, offset: int, episodes: int, callbacks: CallbackList
) -> Iterator[tuple[ReplayBuffer, Run]]:
    """Open the episodes that tasks are drawn from, and the run with their environment.

    Episodes of a split follow the policy of the run's data.
    """
    config, split = run.config, str(goals)
    if split not in ("heldout", "validation"):
        if not Path(goals).is_dir():
            raise ValueError(
                f"goals is {split!r}; expected 'heldout', 'validation', or the path of a replay "
                "buffer that `worldmodel collect` made"
            )
        with ReplayBuffer.open(goals) as buffer:
            _require_same_env(run, buffer, goals)
            kwargs = buffer.metadata.get("env_kwargs", config.env.kwargs)
            yield buffer, _with_env_kwargs(run, kwargs)
        return
    kwargs = {**config.env.kwargs, **config.data.env_kwargs}
    if config.data.sources:
        with run.datasets([callbacks]) as datasets:
            own = datasets.heldout if split == "heldout" else datasets.validation
            assert own is not None
            yield own, _with_env_kwargs(run, kwargs)
        return
    steps = max(config.evaluation.steps, 2 * offset)
    with evaluation_set(
        "heldout" if split == "heldout" else "validation",
        config,
        np.array(training_seeds(config.data.size)),
        config.data.policy,
        episodes=episodes,
        steps=steps,
        callbacks=[callbacks],
    ) as buffer:
        yield buffer, _with_env_kwargs(run, kwargs)


def _require_same_env(run: Run, buffer: ReplayBuffer, path: str | Path) -> None:
    """Raise ValueError if a buffer holds other frames, or is of another environment."""
    shape, env = run.model.spec.frame_shape, run.config.env
    if buffer.frame_shape != shape:
        raise ValueError(
            f"{path} has frames of shape {buffer.frame_shape}, and the model of {run.path} was "
            f"trained on {shape}; collect it with the same --image-size"
        )
    noted = buffer.metadata.get("env")
    if not isinstance(noted, dict):
        return
    recorded, own = noted.get("id"), adapt_config(run.config).spec.id
    if recorded != own:
        raise ValueError(
            f"{path} holds episodes of {recorded}, and the model of {run.path} was trained on {own}"
        )
    if (skip := buffer.metadata.get("frame_skip", 1)) != env.frame_skip:
        raise ValueError(
            f"{path} was collected with a frame skip of {skip}, and the model of {run.path} was "
            f"trained with {env.frame_skip}; collect it with --frame-skip {env.frame_skip}"
        )


def _with_env_kwargs(run: Run, kwargs: Mapping[str, Any]) -> Run:
    """Return the run with other arguments of the environment, not merged with its own."""
    changed = Run(run.path, run.device, trust=run.trust)
    env = run.config.env.model_copy(update={"kwargs": dict(kwargs)})
    changed.config = run.config.model_copy(update={"env": env})
    return changed


def _reached_at_random(
    env: gym.Env[np.ndarray, Any],
    wm: WorldModel,
    reached: GoalTest,
    task: GoalTask,
    budget: int,
    seed: int,
) -> bool:
    """Whether uniform random actions reach the goal of a task."""
    task.reset(env, wm.frames)
    env.action_space.seed(seed)
    for _ in range(budget):
        observation, _, terminated, truncated, info = env.step(env.action_space.sample())
        if reached(StepOutcome(info, bool(terminated), wm.encode(observation[None]))):
            return True
        if terminated or truncated:
            break
    return False


def _summarize(tasks: list[GoalTask], played: list[PlannedEpisode]) -> dict[str, Any]:
    steps = [episode.steps_to_success(1) for episode in played]
    reached = [s for s in steps if s is not None]
    interval = binomtest(len(reached), len(steps)).proportion_ci(0.95, "wilson")
    return {
        "episodes": len(steps),
        "successes": len(reached),
        "success_rate": len(reached) / len(steps),
        "interval": [float(interval.low), float(interval.high)],
        "steps_median": statistics.median(reached) if reached else None,
        "decision_ms": 1e3 * statistics.median(s for e in played for s in e.seconds),
        "attempts": [
            {"seed": task.seed, "start": len(task.actions), "steps_to_success": s}
            for task, s in zip(tasks, steps, strict=True)
        ],
    }


def _video_frames(
    wm: WorldModel,
    tasks: list[GoalTask],
    played: list[PlannedEpisode],
    horizon: int,
    dt: float,
) -> Iterator[np.ndarray]:
    """Draw some successes and failures: the environment, the goal, and the end of each plan."""
    from worldmodel.viz.canvas import compose
    from worldmodel.viz.video import decode_newest

    reached = [i for i, episode in enumerate(played) if episode.at_goal[-1]]
    failed = [i for i, episode in enumerate(played) if not episode.at_goal[-1]]
    labels = ("real environment", "goal", f"plan, {horizon} steps ahead")
    for i in reached[:_SHOWN] + failed[:_SHOWN]:
        episode, goal = played[i], wm.frames.newest(tasks[i].goal)
        imagined = decode_newest(wm, torch.cat(episode.imagined))
        outcome = "reached" if episode.at_goal[-1] else "not reached"
        for k, frame in enumerate(episode.frames):
            panels = (frame, goal, imagined[min(k, len(imagined) - 1)])
            note = f"goal {i + 1}: {outcome} in {len(episode.rewards)} steps"
            yield compose(panels, labels, f"step {k}, {k * dt:.2f} s", note)
