"""Hyperparameters of agents: tuned ones from rl-baselines3-zoo, and general ones elsewhere.

The tuned values are those of ``hyperparams/{ppo,sac,dqn}.yml`` of
https://github.com/DLR-RM/rl-baselines3-zoo; what it leaves out is Stable-Baselines3's default. Its
normalization of observations and rewards is left out: latents have a standard deviation near 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.utils import LinearSchedule

from worldmodel.agent_config import AgentConfig
from worldmodel.config import override
from worldmodel.errors import ConfigError
from worldmodel.settings import parse_setting, read_yaml

_GAMMA = 0.98
_DREAMS, _REAL_ENVS = 128, 32
"""Environments at once; as many real ones where there is no tuned number."""

_PPO_ROLLOUT = 2048
"""Steps of all environments between two updates of PPO; in the dream at least."""
_PPO_MINIBATCHES = 8
_OFF_POLICY: dict[str, Any] = {"train_freq": 1, "gradient_steps": -1, "buffer_size": 100_000}

_DQN = {
    "learning_rate": 2.5e-4,
    "batch_size": 512,
    "buffer_size": 100_000,
    "learning_starts": 0,
    "gamma": 0.99,
    "target_update_interval": 5000,
    "train_freq": 16,
    "gradient_steps": 4,
    "exploration_fraction": 0.06,
    "exploration_final_eps": 0.11,
}

TUNED: dict[tuple[str, str], dict[str, Any]] = {
    ("ppo", "CartPole-v1"): {
        "num_envs": 8,
        "n_steps": 32,
        "batch_size": 256,
        "gae_lambda": 0.8,
        "gamma": 0.98,
        "n_epochs": 20,
        "ent_coef": 0.0,
        "learning_rate": "lin_1e-3",
        "clip_range": "lin_0.2",
    },
    ("ppo", "Pendulum-v1"): {
        "num_envs": 4,
        "n_steps": 1024,
        "gae_lambda": 0.95,
        "gamma": 0.9,
        "n_epochs": 10,
        "ent_coef": 0.0,
        "learning_rate": 1e-3,
        "clip_range": 0.2,
        "use_sde": True,
        "sde_sample_freq": 4,
    },
    ("ppo", "Acrobot-v1"): {
        "num_envs": 16,
        "n_steps": 256,
        "gae_lambda": 0.94,
        "gamma": 0.99,
        "n_epochs": 4,
        "ent_coef": 0.0,
    },
    ("ppo", "MountainCar-v0"): {
        "num_envs": 16,
        "n_steps": 16,
        "gae_lambda": 0.98,
        "gamma": 0.99,
        "n_epochs": 4,
        "ent_coef": 0.0,
    },
    ("sac", "Pendulum-v1"): {"num_envs": 1, "gamma": 0.99, "learning_rate": 1e-3},
    ("sac", "MountainCarContinuous-v0"): {
        "num_envs": 1,
        "learning_rate": 3e-4,
        "buffer_size": 50_000,
        "batch_size": 512,
        "ent_coef": 0.1,
        "train_freq": 32,
        "gradient_steps": 32,
        "gamma": 0.9999,
        "tau": 0.01,
        "learning_starts": 0,
        "use_sde": True,
        "policy_kwargs": {"log_std_init": -3.67, "net_arch": [64, 64]},
    },
    ("dqn", "CartPole-v1"): {"num_envs": 1, **_DQN},
    ("dqn", "Acrobot-v1"): {"num_envs": 1, **_DQN},
    ("dqn", "MountainCar-v0"): {
        "num_envs": 1,
        "learning_rate": 4e-3,
        "batch_size": 128,
        "buffer_size": 10_000,
        "learning_starts": 1000,
        "gamma": 0.98,
        "target_update_interval": 5000,
        "train_freq": 16,
        "gradient_steps": 8,
        "exploration_fraction": 0.2,
        "exploration_final_eps": 0.07,
        "policy_kwargs": {"net_arch": [256, 256]},
    },
}
"""Settings by algorithm and environment; ``n_steps``, ``train_freq`` and ``gradient_steps`` are
those of `num_envs` environments at once."""


def resolve_agent(config: AgentConfig, env_id: str | None) -> AgentConfig:
    """Fill in what an agent's configuration leaves open: `num_envs`, `gamma` and `kwargs`.

    Args:
        config: of an agent; what it gives is kept.
        env_id: of the environment.
    """
    tuned = TUNED.get((config.algo, (env_id or "").rpartition(":")[2]))
    tuned_envs = tuned["num_envs"] if tuned else _REAL_ENVS
    num_envs = config.num_envs or (_DREAMS if config.on == "dream" else tuned_envs)
    if tuned:
        settings = _scaled(tuned, num_envs, _PPO_ROLLOUT if config.on == "dream" else 0)
    else:
        settings = {"gamma": _GAMMA, **_general(config.algo, num_envs)}
    gamma = settings.pop("gamma")
    return config.model_copy(
        update={
            "num_envs": num_envs,
            "gamma": gamma if config.gamma is None else config.gamma,
            "kwargs": {**settings, **config.kwargs},
        }
    )


def _scaled(tuned: dict[str, Any], num_envs: int, min_rollout: int) -> dict[str, Any]:
    """Adapt tuned settings to another number of environments.

    The rollout of PPO stays as long, and off-policy algorithms keep their number of gradient steps
    per step.
    """
    settings = {key: value for key, value in tuned.items() if key != "num_envs"}
    if "n_steps" in settings:
        rollout = max(settings["n_steps"] * tuned["num_envs"], min_rollout)
        settings["n_steps"] = max(2, rollout // num_envs)
    if "train_freq" in settings:
        interval = settings["train_freq"] * tuned["num_envs"]
        per_step = settings["gradient_steps"] / interval
        settings["train_freq"] = max(1, interval // num_envs)
        settings["gradient_steps"] = max(1, round(per_step * settings["train_freq"] * num_envs))
    return settings


def _general(algo: str, num_envs: int) -> dict[str, Any]:
    """Settings that suit many parallel environments better than Stable-Baselines3's defaults."""
    if algo == "ppo":
        n_steps = max(1, _PPO_ROLLOUT // num_envs // _PPO_MINIBATCHES) * _PPO_MINIBATCHES
        return {
            "n_steps": n_steps,
            "batch_size": max(2, n_steps * num_envs // _PPO_MINIBATCHES),
            "learning_rate": "lin_1e-3_1e-4",
        }
    if algo == "a2c":
        return {}
    if algo == "dqn":
        control = {"learning_rate": 1e-3, "learning_starts": 1000, "target_update_interval": 500}
        return _OFF_POLICY | control
    return dict(_OFF_POLICY)


def with_schedules(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Replace ``lin_A_B`` by a linear change from A to B over the training; B is 0 if not given.

    Raises:
        ValueError: If one or two numbers do not follow ``lin_``.
    """
    return {
        name: _schedule(name, value) if str(value).startswith("lin_") else value
        for name, value in kwargs.items()
    }


def _schedule(name: str, text: str) -> LinearSchedule:
    try:
        numbers = [float(part) for part in text.split("_")[1:]]
        start, end = numbers if len(numbers) > 1 else [*numbers, 0.0]
    except ValueError:
        raise ValueError(f"{name} is {text!r}; expected lin_A or lin_A_B, as lin_1e-3") from None
    return LinearSchedule(start, end, 1.0)


def parse_hyper(texts: Sequence[str] | None) -> dict[str, Any]:
    """Convert values of ``--hyper`` to fields of `AgentConfig`.

    Args:
        texts: each ``key=value``, the value in YAML, or the path of a YAML file of such keys; later
            ones override earlier ones.

    Raises:
        ConfigError: If a text is neither, or a file cannot be read.
    """
    values: dict[str, Any] = {}
    for text in texts or ():
        if "=" not in text and not Path(text).exists():
            raise ConfigError(
                f"--hyper is {text!r}; expected key=value, e.g. learning_rate=1e-3, or the path of "
                "a YAML file"
            )
        values = override(values, parse_setting(text) if "=" in text else read_yaml(Path(text)))
    gamma = {"gamma": values.pop("gamma")} if "gamma" in values else {}
    return gamma | ({"kwargs": values} if values else {})
