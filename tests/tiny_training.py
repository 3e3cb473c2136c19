"""A toy world small enough to train on in seconds: a dot that moves as its action says."""

from __future__ import annotations

import copy
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch

from worldmodel.config import Config, build_config
from worldmodel.data import ReplayBuffer
from worldmodel.models import ModelSpec, WorldModel
from worldmodel.optim import Phase

SIDE = 16


def tiny_config(**changes) -> Config:
    """A configuration for the toy world; nested keys as in YAML."""
    base = {
        "image_size": SIDE,
        "model": {"latent_dim": 8, "width": 4, "hidden": 32},
        "objective": {"horizon": 3, "offsets": (0, 1, 3)},
        "data": {"size": 24, "steps": 12, "validation_size": 8},
        "phase1": {"epochs": 6, "batch_size": 16},
        "phase2": {"epochs": 6, "batch_size": 16},
    }
    return build_config(base, changes, preset="smoke")


def draw(position: np.ndarray) -> np.ndarray:
    """Frames (T, 16, 16, 1) of a blurred dot at positions (T, 2) in pixels."""
    grid = np.arange(SIDE) + 0.5
    dy = grid[None, :, None] - position[:, 1, None, None]
    dx = grid[None, None, :] - position[:, 0, None, None]
    return (255 * np.exp(-(dx**2 + dy**2) / 4))[..., None].astype(np.uint8)


def tiny_buffer(path, config: Config, episodes: int = 24, seed: int = 0) -> ReplayBuffer:
    """Trajectories of the dot; the reward is its height and the top row ends the episode."""
    rng = np.random.default_rng(seed)
    steps = config.data.steps
    with ReplayBuffer.create(
        path, frame_shape=(SIDE, SIDE, 1), action_space=gym.spaces.Box(-1, 1, (2,)), metadata={}
    ) as buffer:
        for episode in range(episodes):
            actions = rng.uniform(-1, 1, (steps, 2)).astype(np.float32)
            start = rng.uniform(4, 12, 2)
            position = np.clip(start + np.vstack((np.zeros(2), actions.cumsum(0))), 2, 14)
            terminated = bool(position[-1, 1] < 4)
            rewards = position[1:, 1] / SIDE
            buffer.add_episode(draw(position), actions, rewards, terminated, seed=episode)
    return ReplayBuffer.open(path)


def new_model(config: Config, seed: int = 0) -> WorldModel:
    """A model of the toy world, with the seed's weights."""
    torch.manual_seed(seed)
    spec = ModelSpec.of(config, (SIDE, SIDE, 1), gym.spaces.Box(-1, 1, (2,)))
    return WorldModel(spec)


def whole_and_resumed(
    make: Callable[[WorldModel, ReplayBuffer, Config], Phase],
    buffer: ReplayBuffer,
    config: Config,
    updates: int,
) -> tuple[WorldModel, WorldModel]:
    """Models after a phase: one trained in one go, the other resumed after some updates."""
    whole, first, second = (new_model(config) for _ in range(3))
    make(whole, buffer, config).run()
    phase = make(first, buffer, config)
    for _ in range(updates):
        phase.update()
    second.load_state_dict(first.state_dict())
    resumed = make(second, buffer, config)
    resumed.load_state_dict(copy.deepcopy(phase.state_dict()))
    resumed.run()
    return whole, second
