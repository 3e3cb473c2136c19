"""The types of keyword arguments that are passed on, for type checkers and editors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    from gymnasium.vector import AutoresetMode
    from torch import Tensor

    from worldmodel.imagination.vector import Predict

Part: TypeAlias = "str | Callable[..., Any]"
"""A short name, ``module:Name``, or the class or function itself."""


class TrainOptions(TypedDict, total=False):
    """Options of `worldmodel.train`; those that are None are left out."""

    mode: Literal["pendulum_image", "pendulum"] | None
    env_kwargs: Mapping[str, Any] | None
    wrappers: Sequence[Part] | None
    frame_skip: int | None
    observation: Literal["pixels", "vector"] | None
    observation_key: str | None
    size: int | None
    steps: int | None
    policy: Part | Path | None
    state_key: str | None
    data_dir: str | Path | None
    updates: int | None
    decoder_updates: int | None
    workers: int | None
    epochs: int | None
    decoder_epochs: int | None
    batch_size: int | None
    image_size: int | None
    frame_stack: int | None
    objective: Part | None
    encoder: Part | None
    decoder: Part | None
    predictor: Part | None
    readout: Part | None
    seed: int | None
    device: str | None
    output_dir: str | Path | None
    trackers: Sequence[str] | None


class AgentOptions(TypedDict, total=False):
    """Fields of `worldmodel.AgentConfig` that differ from the run's configuration."""

    on: Literal["latent", "dream", "pixels", "state"]
    algo: Literal["ppo", "a2c", "sac", "td3", "ddpg", "dqn"]
    steps: int
    seed: int
    num_envs: int | None
    gamma: float | None
    kwargs: Mapping[str, Any]
    normalize_rewards: bool
    dream_steps: int
    leaving_terminates: bool
    eval_points: int
    eval_episodes: int
    max_eval_steps: int
    ensemble: Mapping[str, Any]
    candidates: Mapping[str, Any]
    loop: Mapping[str, Any]


class GoalOptions(TypedDict, total=False):
    """Arguments of `worldmodel.planning.reach_goals`."""

    goals: str | Path
    goal_offset: int
    budget: int
    episodes: int
    success: str | None
    tolerance: float
    start_option: str | None
    goal_option: str | None
    method: str | None
    horizon: int | None
    samples: int | None
    iterations: int | None
    seed: int
    output: str | Path | None


class ImagineOptions(TypedDict, total=False):
    """Arguments of `worldmodel.LatentVectorEnv` beside the model and the number of environments."""

    starts: Tensor | None
    max_episode_steps: int
    predict: Predict | None
    autoreset_mode: AutoresetMode | str
    render_mode: str | None
