"""`worldmodel rl`: train an agent on one view of a run's environment, and judge it in reality."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from worldmodel.facts import warn_if_passive
from worldmodel.files import replacing
from worldmodel.imagination import SB3VecEnv
from worldmodel.interrupt import InterruptedRunError, deferred_interrupt
from worldmodel.progress import progress_bar
from worldmodel.rl.algorithms import check_algorithm, make_agent
from worldmodel.rl.film import film
from worldmodel.rl.guards import Guards
from worldmodel.rl.judge import heldout_seeds, judge, validation_seeds
from worldmodel.rl.learning import POINTS, Curve, Judge, Watch
from worldmodel.rl.worlds import Worlds, open_worlds

STEPS = 200_000
ENVS = {"dream": 128, "latent": 32, "pixels": 32, "state": 32}
"""Environments at once, for each view."""

_UNFINISHED = "unfinished.zip"


@dataclass(frozen=True)
class Lesson:
    """How an agent is trained.

    Attributes:
        on: A key of `VIEWS`.
        algo: A key of `ALGORITHMS`.
        steps: Of training, in reality or in the dream.
        seed: Of everything that is drawn.
        envs: Environments at once; None for the view's own number.
        guards: Of dreams.
    """

    on: str
    algo: str = "ppo"
    steps: int = STEPS
    seed: int = 0
    envs: int | None = None
    guards: Guards = Guards()  # noqa: RUF009 (it is frozen)

    @property
    def num_envs(self) -> int:
        """Environments at once."""
        return self.envs or ENVS[self.on]

    def facts(self) -> dict[str, Any]:
        """All that decides what is learned, as JSON values."""
        facts = {
            "on": self.on,
            "algo": self.algo,
            "steps": self.steps,
            "seed": self.seed,
            "envs": self.num_envs,
        }
        return facts | self.guards.facts() if self.on == "dream" else facts

    @property
    def name(self) -> str:
        """Of the directory of its results: all facts, those that are as usual left out."""
        usual = Lesson(self.on, self.algo, self.steps, self.seed).facts()
        others = [f"_{key}{value}" for key, value in self.facts().items() if usual[key] != value]
        return f"{self.on}_{self.algo}_{self.steps}_seed{self.seed}" + "".join(others)


def rl(run: Path, lesson: Lesson, *, device: str, console: Console) -> dict[str, Any]:
    """Train an agent and judge it in the real environment.

    Everything goes into ``rl/NAME`` in the run directory, replacing in the end what an equal lesson
    left: ``agent.zip``, ``agent.mp4``, ``results.json`` and TensorBoard's events. A stop before
    that leaves the agent so far in ``unfinished.zip``.

    Returns:
        What is also in ``results.json``: `lesson`, see `Lesson.facts`; `steps`, perhaps more
        than were asked for; `real_steps` of the environment that the
        agent was trained with, and `model_steps` that its model was; `seconds` of training;
        `real`, 20 episodes on held-out seeds, see `judge`; `curve`; `agent` and `video`.

    Raises:
        RunError: There is no finished run.
        ValueError: The lesson does not fit the run.
        InterruptedRunError: The user stopped it; the agent so far is saved.
    """
    worlds = open_worlds(run, lesson.on, device)
    if lesson.on == "dream":
        warn_if_passive(worlds.config, console)
    folder = run / "rl" / lesson.name
    agent, curve, stopped = _train(worlds, lesson, folder, console)
    with suppress(KeyboardInterrupt):
        if not stopped:
            return conclude(worlds, lesson, agent, curve, folder)
        save_agent(agent, folder / _UNFINISHED)
    raise InterruptedRunError(
        f"Stopped after {agent.num_timesteps} steps; the agent so far is {folder / _UNFINISHED}. "
        "It was not judged, and the same command begins anew"
    )


def conclude(
    worlds: Worlds, lesson: Lesson, agent: Any, curve: Curve, folder: Path, **more: Any
) -> dict[str, Any]:
    """Judge a trained agent on held-out episodes and film it, then replace what was there."""
    save_agent(agent, folder / _UNFINISHED)
    with real_judge(worlds, heldout_seeds()) as judged:
        real = judged(agent)
    video = film(worlds, agent, heldout_seeds()[0], folder / "unfinished.mp4", lesson.algo)
    (folder / "results.json").unlink(missing_ok=True)
    (folder / _UNFINISHED).replace(folder / "agent.zip")
    video.replace(folder / "agent.mp4")
    taken = agent.num_timesteps
    results = {
        "lesson": lesson.facts(),
        "steps": taken,
        "real_steps": 0 if lesson.on == "dream" else taken,
        "model_steps": worlds.model_steps,
        "seconds": curve.seconds,
        "real": real,
        "heldout_seeds": [heldout_seeds()[0], heldout_seeds()[-1]],
        "agent": str(folder / "agent.zip"),
        "video": str(folder / "agent.mp4"),
        "curve": curve.points,
        **more,
    }
    with replacing(folder / "results.json") as path:
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


def in_short(results: dict[str, Any]) -> dict[str, Any]:
    """What a terminal shows of results."""
    real = results["real"]
    shown = {
        "trained on": results["lesson"]["on"],
        "return": f"{real['mean']:.1f} ± {real['std']:.1f} over {len(real['returns'])} episodes",
        "reward a step": round(real["reward_a_step"], 3),
        "steps of training": results["steps"],
        "real steps": results["real_steps"],
        "real steps of the model": results["model_steps"],
        "seconds": round(results["seconds"], 1),
    }
    if "rounds" in results:
        shown["rounds"] = [round(each["mean"], 1) for each in results["rounds"]]
    return shown | {key: results[key] for key in ("agent", "video")}


def save_agent(agent: Any, path: Path) -> None:
    """Write an agent, whole or not at all."""
    with replacing(path) as temporary:
        agent.save(temporary)


@contextmanager
def real_judge(worlds: Worlds, seeds: range) -> Iterator[Judge]:
    """A function that judges an agent in the real environment on these seeds."""
    with closing(worlds.real(len(seeds))) as envs:
        yield lambda agent: judge(agent, envs, seeds)


def _train(
    worlds: Worlds, lesson: Lesson, folder: Path, console: Console
) -> tuple[Any, Curve, bool]:
    envs = training_envs(worlds, lesson)
    check_algorithm(lesson.algo, envs.action_space)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    agent = make_agent(lesson.algo, envs, lesson.seed, folder / "tensorboard")
    curve = Curve()
    stopped = learn(agent, lesson.steps, curve, worlds, f"{lesson.algo} on {lesson.on}", console)
    envs.close()
    return agent, curve, stopped


def training_envs(worlds: Worlds, lesson: Lesson) -> VecEnv:
    """The environments of a lesson, seeded."""
    set_random_seed(lesson.seed)
    envs: VecEnv = VecMonitor(SB3VecEnv(worlds.training(lesson.num_envs, lesson.guards)))
    envs.seed(lesson.seed)
    return envs


def learn(
    agent: Any,
    steps: int,
    curve: Curve,
    worlds: Worlds,
    title: str,
    console: Console,
    points: int = POINTS,
) -> bool:
    """Train an agent for so many steps more, on one thread; whether the user stopped it.

    Meanwhile it is judged `points` times, on validation seeds.
    """
    last = agent.num_timesteps + steps
    threads = torch.get_num_threads()
    torch.set_num_threads(threads if worlds.on == "pixels" else 1)
    try:
        with (
            real_judge(worlds, validation_seeds()) as judged,
            deferred_interrupt() as stop,
            progress_bar(console, title, last, agent.num_timesteps) as bar,
        ):
            watch = Watch(curve, judged, max(1, steps // points), last, bar, stop)
            agent.learn(steps, callback=watch, reset_num_timesteps=False, tb_log_name=worlds.on)
            return stop.asked
    finally:
        torch.set_num_threads(threads)
