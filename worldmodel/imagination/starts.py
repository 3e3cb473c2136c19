"""Where dreams begin: latents of stored, given or freshly reset observations."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation.observations import encode_at, sample_times
from worldmodel.models import WorldModel

STORED = 4096
RESETS = 256


def start_latents(wm: WorldModel, buffer: ReplayBuffer, *, seed: int = 0) -> Tensor:
    """Latents of at most 4,096 observations of a buffer, drawn at random: float32 (M, D).

    Observations that ended an episode by termination are left out: nothing goes on from there.
    """
    episodes, times = sample_times(buffer, wm.frame_stack, STORED, seed)
    over = buffer.terminated[episodes] & (times == buffer.lengths[episodes] - 1)
    return torch.as_tensor(encode_at(wm, buffer, episodes[~over], times[~over]), device=wm.device)


def reset_latents(
    wm: WorldModel, env: gym.Env[np.ndarray, Any], count: int = RESETS, *, seed: int = 0
) -> Tensor:
    """Latents of the first observations of an environment, float32 (`count`, D).

    An observation at reset repeats its one frame, so a latent at reset says that nothing moves.

    Args:
        wm: The world model.
        env: With the observations of the model, as `worldmodel.make_env` gives it.
        count: Resets.
        seed: Of the first reset; the next ones count up.
    """
    observations = [env.reset(seed=seed + i)[0] for i in range(count)]
    return wm.encode(np.stack(observations))
