"""Stable-Baselines3's algorithms, with settings for batched environments on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gymnasium import spaces
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from worldmodel.rl.guards import DISCOUNT
from worldmodel.run import RunError

ALGORITHMS: dict[str, Any] = {
    "a2c": A2C,
    "ddpg": DDPG,
    "dqn": DQN,
    "ppo": PPO,
    "sac": SAC,
    "td3": TD3,
}

_CONTINUOUS, _DISCRETE = {"ddpg", "sac", "td3"}, {"dqn"}
_ROLLOUT = 2048
"""Steps of all environments between two updates of PPO."""
_MINIBATCHES = 8


def check_algorithm(algo: str, actions: spaces.Space) -> None:
    """Find out whether an algorithm can act in an environment.

    Raises:
        ValueError: There is no such algorithm, or it needs other actions.
    """
    if algo not in ALGORITHMS:
        raise ValueError(f"--algo is {algo!r}; expected one of {', '.join(ALGORITHMS)}")
    if algo in _CONTINUOUS and not isinstance(actions, spaces.Box):
        raise ValueError(
            f"{algo} needs continuous actions, and these are {actions}; use dqn or ppo"
        )
    if algo in _DISCRETE and not isinstance(actions, spaces.Discrete):
        raise ValueError(f"{algo} needs discrete actions, and these are {actions}; use ppo or sac")


def make_agent(algo: str, envs: VecEnv, seed: int, tensorboard: Path | None = None) -> Any:
    """An untrained agent.

    The same settings whatever it sees, so that what it sees is all that differs; images get
    Stable-Baselines3's own convolutional network.

    Args:
        algo: One of `ALGORITHMS`.
        envs: To be trained in.
        seed: Of weights and exploration.
        tensorboard: Where curves go.
    """
    image = len(envs.observation_space.shape or ()) == 3
    return ALGORITHMS[algo](
        "CnnPolicy" if image else "MlpPolicy",
        envs,
        seed=seed,
        gamma=DISCOUNT,
        tensorboard_log=None if tensorboard is None else str(tensorboard),
        device="cpu",
        **_settings(algo, envs.num_envs),
    )


def load_agent(algo: str, path: Path, mend: str, **how: Any) -> Any:
    """Load a saved agent.

    Args:
        algo: A key of `ALGORITHMS`.
        path: Of the ``.zip`` file.
        mend: What to do if it cannot be read.
        how: Passed on to Stable-Baselines3.

    Raises:
        RunError: It is missing or damaged.
    """
    try:
        return ALGORITHMS[algo].load(path, device="cpu", **how)
    except Exception as error:  # Stable-Baselines3 raises many types for damaged files
        raise RunError(f"{path} is missing or damaged; {mend}") from error


def _settings(algo: str, num_envs: int) -> dict[str, Any]:
    if algo == "ppo":
        n_steps = max(1, _ROLLOUT // num_envs // _MINIBATCHES) * _MINIBATCHES
        return {
            "n_steps": n_steps,
            "batch_size": max(2, n_steps * num_envs // _MINIBATCHES),
            "learning_rate": LinearSchedule(1e-3, 1e-4, 1.0),
        }
    if algo == "a2c":
        return {}
    off_policy = {"train_freq": 1, "gradient_steps": -1, "buffer_size": 100_000}
    if algo == "dqn":
        control = {"learning_rate": 1e-3, "learning_starts": 1000, "target_update_interval": 500}
        return off_policy | control
    return off_policy
