"""Environments in processes of their own, so that a collection uses all cores.

Workers are spawned, not forked: a fork copies the locks of the threads of torch and numba in
whatever state they are. The environment travels by cloudpickle, so classes and functions of a
script, of a notebook or of a function work too, and a worker never runs the user's script again.
Frames are rendered and resized in the worker: only small frames cross to this process.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from types import ModuleType
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorWrapper
from gymnasium.vector.async_vector_env import AsyncState
from gymnasium.vector.utils import batch_space

from worldmodel.data.frames import FrameSource
from worldmodel.data.recipe import Recipe
from worldmodel.user_code import WORKER_NOTE, own_frames

FEWEST_EPISODES = 16
"""A collection of fewer episodes stays in this process unless workers are asked for."""

_WORTHWHILE_SECONDS = 5.0  # starting a worker takes 1 to 2 s
_WORTHWHILE_STEP_SECONDS = 5e-4  # handing a step over takes about 0.1 ms
_TIMED_STEPS = 16
_CLOSING_SECONDS = 5.0
_ERROR = "worker_error"
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**26), "MALLOC_TRIM_THRESHOLD_": str(2**27)}
"""Keeps glibc from returning the memory of a rendering to the system and fetching it again."""
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_workers(
    recipe: Recipe, episodes: int, workers: int | None, num_envs: int | None = None
) -> int:
    """Choose how many processes play.

    Args:
        recipe: How to collect.
        episodes: That are wanted.
        workers: That the user asks for; None for one per usable core if that is faster.
        num_envs: Environments at once that the user asks for, an upper bound.

    Returns:
        The number of workers, 1 for this process: also for an environment with its own vector form,
        and in a process that may have no children.

    Raises:
        ValueError: If `workers` is below 1.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; expected at least 1")
    most = min(episodes, num_envs or episodes, workers or usable_cores())
    if most == 1 or recipe.env.native or multiprocessing.current_process().daemon:
        return 1
    if workers is None and (episodes < FEWEST_EPISODES or not _is_worthwhile(recipe, episodes)):
        return 1
    return most


def _is_worthwhile(recipe: Recipe, episodes: int) -> bool:
    """Check whether workers save more time than they cost, by the time of some steps."""
    take, seconds = _taker(recipe.env.source), []
    with closing(recipe.env.make()) as env:
        env.action_space.seed(0)
        env.reset(seed=0)
        for _ in range(_TIMED_STEPS):
            start = time.perf_counter()
            observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
            take(env, observation)
            seconds.append(time.perf_counter() - start)
            if terminated or truncated:
                env.reset(seed=0)
    step = float(np.median(seconds))
    total = step * recipe.steps * episodes
    return step > _WORTHWHILE_STEP_SECONDS and total > _WORTHWHILE_SECONDS


class WorkerEnvs(VectorWrapper):
    """N environments of a recipe, each in its own process, without autoreset.

    `render` gives the newest frames as they are stored, (N, *frame_shape). Observations are those
    of the environments if the policy uses them, else None. Of ``info`` only the state is there.

    Args:
        recipe: How to collect.
        num_envs: Number N of environments, and of processes.

    Raises:
        Exception: What the environment raises in a worker, here and in `reset` and `step`.
        pickle.PicklingError: If the environment cannot be sent to a worker.
        ChildProcessError: If a worker dies.
    """

    def __init__(self, recipe: Recipe, num_envs: int) -> None:
        with closing(recipe.env.make()) as env:
            own: gym.Space[Any] = env.observation_space
        maker = _Maker.of(recipe, own if _observes(recipe) else None)
        with _starting_workers():
            envs = _Processes(
                [maker] * num_envs,
                shared_memory=isinstance(maker.own, spaces.Box | spaces.Discrete | None),
                context="spawn",
                autoreset_mode=AutoresetMode.DISABLED,
            )
        super().__init__(envs)
        self.single_observation_space = own
        self.observation_space = batch_space(own, num_envs)
        self._frames: Any = None
        try:
            for error in self._alive(lambda: envs.call("prepare")):
                _raise(error)
        except BaseException:
            self.close()
            raise

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Reset all or some of the environments, as `gymnasium.vector.SyncVectorEnv` does."""
        observations, info = self._alive(lambda: self.env.reset(seed=seed, options=options))
        return self._taken(observations, info), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step all environments."""
        observations, *rest, info = self._alive(lambda: self.env.step(actions))
        return self._taken(observations, info), *rest, info

    def render(self) -> Any:
        """Give the newest frames, (N, *frame_shape)."""
        return self._frames

    def _taken(self, observations: Any, info: dict[str, Any]) -> Any:
        for error in info.pop(_ERROR, ()):
            _raise(error)
        info.pop(f"_{_ERROR}", None)
        self._frames = observations["frame"]
        return observations.get("own")

    def _alive(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (EOFError, ConnectionError) as error:
            processes: Any = self.env.unwrapped.processes  # type: ignore[attr-defined]
            codes = [process.exitcode for process in processes if process.exitcode is not None]
            raise ChildProcessError(
                f"a process that plays the environment died (exit status {codes or 'unknown'}); "
                "collect in one process with --workers 1 to see why"
            ) from error


class TakenFrames(FrameSource):
    """The source of frames that are taken in the workers."""

    def __call__(
        self, render: Callable[[], Any], observations: Any, which: np.ndarray
    ) -> np.ndarray:
        """Give the frames of some of the environments."""
        frames: np.ndarray = render()[which]
        return frames


class _Processes(AsyncVectorEnv[Any, Any]):
    """Processes that end for sure, even those that are in the middle of a step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)
        except BaseException:
            self._end(politely=False)
            self.closed = True
            raise

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        self._end(politely=not terminate and self._state is AsyncState.DEFAULT)

    def _end(self, politely: bool) -> None:
        pipes = [pipe for pipe in getattr(self, "parent_pipes", ()) if pipe is not None]
        processes: list[Any] = list(getattr(self, "processes", ()))
        for pipe in pipes if politely else ():
            try:
                pipe.send(("close", None))
            except OSError:
                continue
        end = time.monotonic() + _CLOSING_SECONDS
        for process in processes if politely else ():
            process.join(max(0.0, end - time.monotonic()))
        for stop in ("terminate", "kill"):
            left = [process for process in processes if process.is_alive()]
            for process in left:
                getattr(process, stop)()
            for process in left:
                process.join(_CLOSING_SECONDS)
        for pipe in pipes:
            pipe.close()


@dataclass(frozen=True)
class _Maker:
    """Makes the environment of a worker, there; in the parent an empty one with its spaces."""

    pickled: bytes
    source: FrameSource
    state_key: str | None
    own: gym.Space[Any] | None
    action_space: gym.Space[Any]
    parent: int

    @classmethod
    def of(cls, recipe: Recipe, own: gym.Space[Any] | None) -> _Maker:
        spec = replace(recipe.env.spec, vector_entry_point=None)
        if isinstance(spec.entry_point, str) and spec.entry_point.startswith("__main__:"):
            creator: Any = load_env_creator(spec.entry_point)
            spec = replace(spec, entry_point=creator)
        make = replace(recipe.env, spec=spec, info={}).make
        state_key = recipe.state_key if recipe.state_dim else None
        action_space = recipe.env.action_space
        try:
            pickled = cloudpickle.dumps(make)
        except Exception as error:
            raise pickle.PicklingError(f"{spec.id} cannot be sent to a process: {error}") from error
        return cls(pickled, recipe.env.source, state_key, own, action_space, os.getpid())

    def __call__(self) -> _Worker:
        if os.getpid() != self.parent:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
        return _Worker(self)


class _Worker(gym.Env[Any, Any]):
    """An environment that observes the frame to store, and reports its errors in ``info``."""

    def __init__(self, maker: _Maker) -> None:
        self._maker, self._take = maker, _taker(maker.source)
        self.action_space = maker.action_space
        frame = maker.source
        low, high = (0, 255) if frame.dtype == np.uint8 else (-np.inf, np.inf)
        parts: dict[str, gym.Space[Any]] = {
            "frame": spaces.Box(low, high, frame.shape, frame.dtype.type)
        }
        if maker.own is not None:
            parts["own"] = maker.own
        self.observation_space = spaces.Dict(parts)
        self._env: Any = None

    def prepare(self) -> Exception | None:
        """Make the environment; returns the error if it cannot be made."""
        try:
            self._env = pickle.loads(self._maker.pickled)()
        except Exception as error:
            return portable(error)
        return None

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        try:
            observation, info = self._env.reset(seed=seed, options=options)
            return self._observe(observation), self._state(info)
        except Exception as error:
            return self._nothing(), {_ERROR: portable(error)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        try:
            observation, reward, terminated, truncated, info = self._env.step(action)
            seen = self._observe(observation)
            return seen, float(reward), bool(terminated), bool(truncated), self._state(info)
        except Exception as error:
            return self._nothing(), 0.0, False, False, {_ERROR: portable(error)}

    def close(self) -> None:
        if self._env is not None:
            self._env.close()

    def _observe(self, observation: Any) -> dict[str, Any]:
        frame = self._take(self._env, observation)
        return {"frame": frame} if self._maker.own is None else {"frame": frame, "own": observation}

    def _nothing(self) -> Any:
        return spaces.Dict(self.observation_space).sample()  # type: ignore[arg-type]

    def _state(self, info: dict[str, Any]) -> dict[str, Any]:
        key = self._maker.state_key
        return {} if key is None else {key: info[key]}


def _observes(recipe: Recipe) -> bool:
    """Check whether the policy is shown the environment's own observations."""
    return recipe.policy.uses_observations and recipe.policy.frame_input is None


def _taker(source: FrameSource) -> Callable[[gym.Env[Any, Any], Any], np.ndarray]:
    """Make a function that takes the newest frame of one environment."""
    which = np.zeros(1, int)

    def take(env: gym.Env[Any, Any], observation: Any) -> np.ndarray:
        batch: Any = None if source.kind == "render" else np.asarray(observation)[None]
        return np.asarray(source(lambda: [env.render()], batch, which)[0])

    return take


def portable(error: Exception) -> Exception:
    """Add the frames of the environment to an error as a note, to send it to another process."""
    trace = "".join(traceback.format_list(own_frames(error)))
    try:
        sent: Exception = pickle.loads(pickle.dumps(error))
    except Exception:  # a foreign exception may fail to pickle in any way
        sent = RuntimeError(f"{type(error).__name__}: {error}")
    for note in (*getattr(error, "__notes__", ()), f"{WORKER_NOTE}{trace}"):
        if note not in getattr(sent, "__notes__", ()):
            sent.add_note(note)
    return sent


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error


@contextmanager
def _starting_workers() -> Iterator[None]:
    """Change settings that processes started meanwhile inherit.

    They have one thread each, do not import the user's script, and ignore Ctrl-C, which reaches
    every process of a terminal, from their very start.
    """
    main = sys.modules["__main__"]
    before = {name: os.environ.get(name) for name in (*_THREADS, *_MALLOC)}
    if os.name == "posix":  # there is none elsewhere
        resource_tracker.ensure_running()  # its start would let SIGINT through again
    blocked: Any = None
    try:
        if hasattr(signal, "pthread_sigmask"):
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        os.environ.update(_MALLOC | dict.fromkeys(_THREADS, "1"))
        sys.modules["__main__"] = ModuleType("__main__")
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if blocked is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
