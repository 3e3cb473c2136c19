"""Training of Stable-Baselines3 agents on a run, and the files of their results."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import shutil
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from worldmodel.agent_config import AgentConfig, Candidates, Ensemble
from worldmodel.agent_files import load_agent_file
from worldmodel.callbacks import Callback, CallbackList, deferred_interrupt
from worldmodel.errors import InterruptedRunError, RunError
from worldmodel.files import only_one_process, replacing, write_json
from worldmodel.rl.envs import AgentEnvs
from worldmodel.rl.evaluation import (
    Curve,
    EvalCallback,
    heldout_seeds,
    real_evaluation,
    record_video,
    validation_seeds,
)
from worldmodel.rl.guards import find_ensemble
from worldmodel.rl.tuned import resolve_agent, with_schedules
from worldmodel.run import Run

ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    "a2c": A2C,
    "ddpg": DDPG,
    "dqn": DQN,
    "ppo": PPO,
    "sac": SAC,
    "td3": TD3,
}
"""Algorithms of Stable-Baselines3 by their short names."""
_CONTINUOUS, _DISCRETE = {"ddpg", "sac", "td3"}, {"dqn"}

DREAM_ONLY: dict[str, Any] = {
    name: getattr(AgentConfig(), name)
    for name in ("dream_steps", "leaving_terminates", "ensemble", "candidates", "loop")
}
"""Settings that apply to agents in the dream alone, with their defaults."""

_UNFINISHED = "unfinished.zip"


def train_agent(
    run: Run, config: AgentConfig, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Train an agent and evaluate it in the real environment.

    The results replace those of the same configuration in ``rl/NAME`` of the run directory:
    ``agent.zip``, ``agent.mp4``, ``results.json`` and TensorBoard events. If training is stopped
    earlier, the agent trained so far is saved as ``unfinished.zip``. With `config.loop.rounds` the
    agent is trained by `train_with_rounds`, with several `config.candidates` by `train_candidates`.

    Args:
        run: A finished run.
        config: Configuration of the agent.
        callbacks: Callbacks that show progress and messages.

    Returns:
        The content of ``results.json``: `config`; `steps` of training, whole rollouts; `real_steps`
        of the agent in the real environment, and `model_data_steps` in the model's training data;
        `seconds` of training; `real`, the final evaluation on held-out seeds, see
        `evaluate_policy`; `heldout_seeds`, first and last; `curve`, see `Curve`; `agent` and
        `video`, paths.

    Raises:
        RunError: If the run is not finished, or a file is damaged.
        ValueError: If the configuration does not fit the run or is inconsistent.
        InterruptedRunError: If the user stopped it; the agent trained so far is saved.
    """
    config = resolve_agent(config, run.config.env.id)
    if config.loop.rounds or config.candidates.count > 1:
        from worldmodel.rl.candidates import train_candidates
        from worldmodel.rl.loop import train_with_rounds

        check_consistent(config)
        folder = results_folder(run, config)
        folder.parent.mkdir(exist_ok=True)
        train = train_with_rounds if config.loop.rounds else train_candidates
        with only_one_process(folder.with_name(f"{folder.name}.lock"), f"training in {folder}"):
            return train(run, config, callbacks)
    watching = CallbackList(callbacks)
    envs = open_envs(run, config, watching)
    folder = results_folder(run, config)
    ensemble = find_ensemble(run, config.ensemble, [watching])
    with closing(envs.training(config, ensemble)) as training:
        agent, curve = make_agent(config, training, folder / "tensorboard"), Curve()
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        stopped = learn(agent, envs, config, curve, f"{config.algo} on {config.on}", [watching])
    with suppress(KeyboardInterrupt):
        if not stopped:
            return finalize(envs, config, agent, curve, folder)
        save_agent(agent, folder / _UNFINISHED)
    raise InterruptedRunError(
        f"Stopped after {agent.num_timesteps} steps. The agent trained so far is in "
        f"{folder / _UNFINISHED}; it was not evaluated, and the same command trains from scratch"
    )


def open_envs(run: Run, config: AgentConfig, callbacks: CallbackList) -> AgentEnvs:
    """Check that the configuration of an agent fits the run, and open the agent's environments.

    Raises:
        ValueError: If the configuration does not fit the run.
    """
    check_consistent(config)
    envs = AgentEnvs(run, config.on)
    check_algorithm(config.algo, envs.action_space)
    if config.on == "dream":
        run.warn_if_one_action(callbacks)
    return envs


def check_consistent(config: AgentConfig) -> None:
    """Check that the settings of an agent are consistent.

    Raises:
        ValueError: If a setting would have no effect, or the algorithm does not take an argument.
    """
    changed = [name for name, default in DREAM_ONLY.items() if getattr(config, name) != default]
    if config.on != "dream" and changed:
        keys = ", ".join(f"agent.{name}" for name in changed)
        raise ValueError(
            f"{keys}: for agents in the dream only, and agent.on is {config.on!r}; use --on dream, "
            "or keep the default"
        )
    if not config.ensemble.size and config.ensemble != Ensemble():
        raise ValueError(
            "the settings of the ensemble have no effect, as ensemble.size is 0; set it to 2 or "
            "more, or keep their defaults"
        )
    if config.candidates.count == 1 and config.candidates != Candidates():
        raise ValueError(
            "agent.candidates.episodes has no effect, as candidates.count is 1; set it to 2 or more"
        )
    given = inspect.signature(ALGORITHMS[config.algo]).parameters.keys()
    allowed = sorted(given - {"policy", "env", "gamma", "seed", "tensorboard_log"})
    if unknown := sorted(config.kwargs.keys() - set(allowed)):
        raise ValueError(
            f"unexpected keyword argument {unknown[0]!r} in agent.kwargs; expected one of "
            f"{', '.join(allowed)} for {config.algo} (agent.gamma and agent.seed are separate keys)"
        )
    with_schedules(config.kwargs)


def check_algorithm(algo: str, actions: spaces.Space[Any]) -> None:
    """Check that an algorithm can act in an action space.

    Raises:
        ValueError: If the algorithm is unknown, or does not support the action space.
    """
    if algo not in ALGORITHMS:
        raise ValueError(f"algo is {algo!r}; expected one of {', '.join(ALGORITHMS)}")
    if algo in _CONTINUOUS and not isinstance(actions, spaces.Box):
        raise ValueError(
            f"{algo} needs continuous actions, and the environment has {actions}; use dqn or ppo"
        )
    if algo in _DISCRETE and not isinstance(actions, spaces.Discrete):
        raise ValueError(
            f"{algo} needs discrete actions, and the environment has {actions}; use ppo or sac"
        )


def results_folder(run: Run, config: AgentConfig) -> Path:
    """Directory of an agent's results: a readable name for each configuration of the agent."""
    folder = run.path / "rl" / directory_name(config, run.config.env.id)
    if folder.resolve().parent != (run.path / "rl").resolve():
        raise RunError(f"{folder} is not in the directory of the run")
    return folder


def directory_name(config: AgentConfig, env_id: str | None) -> str:
    """Name the results of an agent by what differs from the defaults of its environment."""
    main = AgentConfig(on=config.on, algo=config.algo, steps=config.steps, seed=config.seed)
    resolved = resolve_agent(config, env_id)
    same_envs = resolve_agent(main.model_copy(update={"num_envs": resolved.num_envs}), env_id)
    ignored = {"loop": {"rounds"} if config.loop.rounds else True}  # rounds can be added later
    default, given = (
        _flatten(settings.model_dump(mode="json", exclude=ignored, fallback=repr))
        for settings in (same_envs, resolved)
    )
    default["num_envs"] = resolve_agent(main, env_id).num_envs
    changed = "".join(
        f"_{key}{_short(value)}"
        for key, value in given.items()
        if key not in default or default[key] != value
    )
    if len(changed) > 120 or not re.fullmatch(r"[\w.+-]*", changed):  # a name is at most 255 bytes
        changed = f"_{_digest(changed)}"
    loop = "_loop" if config.loop.rounds else ""
    return f"{config.on}_{config.algo}_{config.steps}_seed{config.seed}{changed}{loop}"


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings: ``{"loop": {"noise": 0.1}}`` becomes ``{"loop_noise": 0.1}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}_")
        elif value != {}:
            flat[prefix + key] = value
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if re.fullmatch(r"[\w.+-]{1,16}", text) else f"-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def make_agent(config: AgentConfig, envs: VecEnv, tensorboard: Path | None = None) -> BaseAlgorithm:
    """Make an untrained agent.

    The settings do not depend on the view, so that agents differ only in what they observe; images
    get Stable-Baselines3's own convolutional network.

    Args:
        config: Configuration of the agent, resolved.
        envs: Training environments.
        tensorboard: Directory of the training curves.

    Raises:
        ValueError: If the algorithm does not accept a value of `config.kwargs`.
    """
    image = len(envs.observation_space.shape or ()) == 3
    algorithm: Any = ALGORITHMS[config.algo]
    kwargs = with_schedules(config.kwargs)
    try:
        agent: BaseAlgorithm = algorithm(
            "CnnPolicy" if image else "MlpPolicy",
            envs,
            seed=config.seed,
            gamma=config.gamma,
            tensorboard_log=None if tensorboard is None else str(tensorboard),
            **{"device": "cpu", **kwargs},
        )
    except (AssertionError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"Stable-Baselines3 does not accept a setting of {config.algo} among {config.kwargs}: "
            f"{reason}"
        ) from error
    return agent


def load_agent(
    config: AgentConfig,
    path: Path,
    actions: spaces.Space[Any],
    observations: spaces.Space[Any],
    hint: str = "train it again",
) -> BaseAlgorithm:
    """Load an agent that was trained with a configuration, onto the CPU.

    Nothing in the file is executed, see `worldmodel.agent_files`.

    Args:
        config: Configuration of the agent, resolved.
        path: Path of the ``.zip`` file.
        actions: Action space of the environment that it acts in.
        observations: Observation space of that environment.
        hint: How to fix a missing or damaged file, for the message.

    Raises:
        RunError: If the file is missing or damaged.
    """
    settings = with_schedules(config.kwargs)
    try:
        return load_agent_file(path, config.algo.upper(), actions, observations, settings)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is missing or damaged ({error}); {hint}") from error


def save_agent(agent: BaseAlgorithm, path: Path) -> None:
    """Write an agent, completely or not at all."""
    with replacing(path) as temporary:
        agent.save(temporary)


def learn(
    agent: BaseAlgorithm,
    envs: AgentEnvs,
    config: AgentConfig,
    curve: Curve,
    task: str,
    callbacks: Sequence[Callback] = (),
) -> bool:
    """Train an agent for `config.steps` more steps, on one thread unless on pixels.

    Args:
        agent: Agent that is trained in place.
        envs: The agent's environments, for `config.eval_points` evaluations on validation seeds.
        config: Configuration of the agent.
        curve: Learning curve to which the evaluations are added.
        task: Name of the task for `callbacks`.
        callbacks: Callbacks that show progress.

    Returns:
        Whether the user stopped it.
    """
    total = agent.num_timesteps + config.steps
    threads = torch.get_num_threads()
    torch.set_num_threads(threads if envs.on == "pixels" else 1)
    try:
        with (
            real_evaluation(envs, config, validation_seeds(config)) as evaluate,
            deferred_interrupt() as stop,
            CallbackList(callbacks).task(task, total, agent.num_timesteps) as advance,
        ):
            callback = EvalCallback(
                curve,
                evaluate,
                interval=max(1, config.steps // config.eval_points),
                total=total,
                advance=advance,
                stop=stop,
            )
            agent.learn(config.steps, callback, reset_num_timesteps=False, tb_log_name=envs.on)
            return stop.requested
    finally:
        torch.set_num_threads(threads)
        if hasattr(agent, "_logger"):
            agent.logger.close()  # it writes from a thread of its own


def finalize(
    envs: AgentEnvs,
    config: AgentConfig,
    agent: BaseAlgorithm,
    curve: Curve,
    folder: Path,
    **more: Any,
) -> dict[str, Any]:
    """Evaluate a trained agent on held-out seeds, record a video, and replace earlier results.

    Args:
        envs: The agent's environments.
        config: Configuration of the agent.
        agent: The trained agent.
        curve: Learning curve of the agent.
        folder: Directory of the results.
        more: Further entries of the results.

    Returns:
        See `train_agent`.
    """
    save_agent(agent, folder / _UNFINISHED)
    seeds = heldout_seeds(config)
    with real_evaluation(envs, config, seeds) as evaluate:
        real = evaluate(agent)
    video = record_video(envs, agent, seeds[0], folder / "unfinished.mp4", config.algo)
    (folder / "results.json").unlink(missing_ok=True)
    (folder / _UNFINISHED).replace(folder / "agent.zip")
    video.replace(folder / "agent.mp4")
    results = {
        "config": config.to_json(),
        "steps": agent.num_timesteps,
        "real_steps": 0 if config.on == "dream" else agent.num_timesteps,
        "model_data_steps": envs.model_data_steps,
        "seconds": curve.seconds,
        "real": real,
        "heldout_seeds": [seeds[0], seeds[-1]],
        "agent": str(folder / "agent.zip"),
        "video": str(folder / "agent.mp4"),
        "curve": curve.points,
        **more,
    }
    write_json(folder / "results.json", results)
    return results
