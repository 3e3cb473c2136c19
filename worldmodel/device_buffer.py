"""A replay buffer whose episodes are also on the device, so that batches are gathered there."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from worldmodel.accelerator import to_device
from worldmodel.data import ReplayBuffer
from worldmodel.hyperparameters import Switch
from worldmodel.models import WorldModel


class DeviceReplayBuffer(ReplayBuffer):
    """A replay buffer for reading, with a copy of all its episodes on a model's device.

    Args:
        buffer: where the episodes are.
        model: gives the device and the action vectors.
    """

    def __init__(self, buffer: ReplayBuffer, model: WorldModel) -> None:
        super().__init__(buffer.path, buffer.header, buffer._log, buffer._view, buffer.parts)
        device, steps = model.device, buffer.num_transitions
        self._first = np.cumsum(self.lengths) - self.lengths
        frame_dtype = torch.from_numpy(np.empty(0, self.frame_dtype)).dtype
        shape = (self.num_frames, *self.frame_shape)
        self._frames = torch.empty(shape, dtype=frame_dtype, device=device)
        self._actions = torch.empty((steps, model.spec.actions.dim), device=device)
        self._rewards = torch.empty(steps, device=device)
        self._terminated = torch.empty(steps, device=device)
        for episode in range(self.num_episodes):
            self._copy_episode(episode, model)

    def _copy_episode(self, episode: int, model: WorldModel) -> None:
        length = int(self.lengths[episode])
        windows = self.windows([episode], [0], length)
        frames, actions, rewards, terminated = (torch.from_numpy(part[0]) for part in windows)
        row = int(self._first[episode])
        steps = slice(row - episode, row - episode + length - 1)
        self._frames[row : row + length] = frames.to(model.device)
        self._actions[steps] = model.action_vector(actions)
        self._rewards[steps] = rewards.to(model.device)
        self._terminated[steps] = terminated.float().to(model.device)

    def gather(
        self, episodes: np.ndarray, starts: np.ndarray, length: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gather windows on the device.

        Args:
            episodes: int64 (B,), episode of each window.
            starts: int64 (B,), first frame of each window within its episode.
            length: frames per window, L.

        Returns:
            The fields of a `Batch`: frames (B, L, *frame_shape), action vectors (L-1, B, A),
            rewards (L-1, B) and terminated (L-1, B).
        """
        first = self._first[episodes] + starts
        device = self._frames.device
        frame, step = to_device(torch.from_numpy(np.stack((first, first - episodes))), device)
        time = torch.arange(length, device=device)
        steps = step + time[:-1, None]
        frames = self._frames[frame[:, None] + time]
        return frames, self._actions[steps], self._rewards[steps], self._terminated[steps]


def cache_on_device(buffer: ReplayBuffer, model: WorldModel, setting: Switch) -> ReplayBuffer:
    """Return a buffer with its episodes on the model's device, or the buffer itself.

    Args:
        buffer: training episodes.
        model: gives the device.
        setting: `training.device_cache`.

    Raises:
        ValueError: If `setting` is true and the episodes exceed the free memory of a GPU.
    """
    if not setting or (setting == "auto" and model.device.type != "cuda"):
        return buffer
    if model.device.type == "cuda":
        needed, (free, _) = _size(buffer, model), torch.cuda.mem_get_info(model.device)
        if setting == "auto" and 2 * needed > free:
            return buffer
        if needed > free:
            raise ValueError(
                f"training.device_cache is true, but the training data takes {needed / 1e9:.1f} GB "
                f"and {model.device} has {free / 1e9:.1f} GB of free memory; set "
                "training.device_cache=auto"
            )
    return DeviceReplayBuffer(buffer, model)


def _size(buffer: ReplayBuffer, model: WorldModel) -> int:
    """Return the bytes of all episodes on a device."""
    frame = math.prod(buffer.frame_shape) * buffer.frame_dtype.itemsize
    return buffer.num_frames * frame + buffer.num_transitions * 4 * (model.spec.actions.dim + 2)
