"""Latents of stored episodes: encoded once by a frozen encoder, to train and evaluate on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from worldmodel.accelerator import to_device
from worldmodel.batches import to_batch
from worldmodel.data import ReplayBuffer
from worldmodel.models import WorldModel
from worldmodel.models.heads import Transition

_BATCH = 512
"""Observations that are read together, a multiple of those that a CPU encodes together."""

_SEED_STRIDE = 1_000_003


def encode_at(
    wm: WorldModel, buffer: ReplayBuffer, episodes: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """Encode the observations at given times of given episodes.

    Args:
        wm: the world model.
        buffer: where the frames are.
        episodes: int (N,), episode of each observation.
        times: int (N,), index of the newest frame in its episode, at least S - 1.

    Returns:
        float32 (N, D), on the CPU.

    Raises:
        ValueError: If a latent is not finite: the model has diverged.
    """
    chunks = (slice(i, i + _BATCH) for i in range(0, len(episodes), _BATCH))
    return _encode(wm, (wm.frames.read(buffer, episodes[c], times[c]) for c in chunks)).numpy()


def _encode(wm: WorldModel, batches: Iterable[np.ndarray | Tensor]) -> Tensor:
    z = torch.cat([wm.encode(batch).cpu() for batch in batches])
    if not bool(z.isfinite().all()):
        raise ValueError(
            "the encoder outputs NaN or infinity: training diverged; lower phase1.learning_rate"
        )
    return z


@dataclass(frozen=True)
class LatentEpisodes:
    """Encoded episodes, concatenated.

    Attributes:
        z: float32 (N, D), latents.
        actions: float32 (N, A), action vectors; row i leads from latent i to i + 1.
        rewards: float32 (N,), of that step.
        terminated: float32 (N,), 1 where that step ended the episode by termination.
        remaining: int64 (N,), latents that follow in the same episode; where it is 0, actions,
            rewards and terminated are undefined.
    """

    z: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    remaining: Tensor

    def windows(self, starts: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Read latents (horizon + 1, B, D) and action vectors (horizon, B, A) from rows (B,)."""
        rows = starts + torch.arange(horizon + 1, device=starts.device)[:, None]
        return self.z[rows], self.actions[rows[:-1]]

    def episodes(self) -> np.ndarray:
        """Return the episode of each row, int64 (N,)."""
        ends = (self.remaining == 0).long()
        return (ends.cumsum(0) - ends).numpy()

    def terminal(self) -> Tensor:
        """Return which rows are terminal states, bool (N,)."""
        return F.pad(self.terminated[:-1], (1, 0)) > 0

    def to(self, device: torch.device) -> LatentEpisodes:
        """Return the same episodes on a device."""
        return LatentEpisodes(*(getattr(self, field.name).to(device) for field in fields(self)))

    def starts(self, horizon: int) -> Tensor:
        """Return the rows that are followed by at least `horizon` latents, int64 (M,)."""
        return torch.nonzero(self.remaining >= horizon)[:, 0]


def encode_episodes(wm: WorldModel, buffer: ReplayBuffer, episodes: np.ndarray) -> LatentEpisodes:
    """Encode whole episodes, int (E,); those too short for a step are left out.

    Raises:
        ValueError: If none of them is long enough, or a latent is not finite.
    """
    lengths = np.asarray(buffer.lengths)[episodes]
    enough = lengths >= wm.frames.window(1)
    if not enough.any():
        raise ValueError(f"no episode of {buffer.path} has {wm.frames.window(1)} frames")
    chunks = _chunks(episodes[enough], lengths[enough])
    return concatenate([_encode_chunk(wm, buffer, chunk, length) for chunk, length in chunks])


def concatenate(parts: Sequence[LatentEpisodes]) -> LatentEpisodes:
    """Join several sets of episodes."""
    names = [field.name for field in fields(LatentEpisodes)]
    return LatentEpisodes(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _chunks(episodes: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Yield episodes of one length at a time, and not too many."""
    for length in np.unique(lengths):
        same = episodes[lengths == length]
        count = max(1, _BATCH // int(length))
        for i in range(0, len(same), count):
            yield same[i : i + count], int(length)


def _encode_chunk(
    wm: WorldModel, buffer: ReplayBuffer, episodes: np.ndarray, length: int
) -> LatentEpisodes:
    """Encode whole episodes of one length."""
    batch = to_batch(buffer.windows(episodes, np.zeros_like(episodes), length), wm)
    first, steps = wm.frames.first, wm.frames.steps(length)
    times = range(first, length)
    observations = torch.stack([wm.frames.observe(batch.frames, t) for t in times], dim=1)

    def rows(values: Tensor) -> Tensor:
        """Flatten (T, B, ...) of transitions to (B * (steps + 1), ...), last row of each empty."""
        mine = values[first:].transpose(0, 1)
        return F.pad(mine, (0, 0) * (mine.ndim - 2) + (0, 1)).flatten(0, 1).cpu()

    return LatentEpisodes(
        _encode(wm, [observations.flatten(0, 1)]),
        rows(batch.actions),
        rows(batch.rewards),
        rows(batch.terminated),
        torch.arange(steps, -1, -1).repeat(len(episodes)),
    )


class LatentSampler:
    """Draws windows from several sets of encoded episodes, by the seed and the update alone.

    Args:
        parts: encoded episodes.
        horizon: steps per window.
        batch_size: windows per update, over all parts.
        seed: of the draws.
        fractions: of each part in a batch; by the number of windows if not given.
        device: where the windows are gathered; the episodes are copied there.

    Raises:
        ValueError: If no episode is long enough.
    """

    def __init__(
        self,
        parts: Sequence[LatentEpisodes],
        horizon: int,
        batch_size: int,
        seed: int,
        fractions: Sequence[float] | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.horizon, self.batch_size, self.seed = horizon, batch_size, seed
        self.device = torch.device("cpu") if device is None else device
        self.parts = [part.to(self.device) for part in parts]
        self.starts = [part.starts(horizon).cpu() for part in parts]
        counts = torch.tensor([float(len(starts)) for starts in self.starts])
        if not counts.sum():
            raise ValueError(f"no episode has the {horizon + 1} latents that a window needs")
        weights = counts if fractions is None else torch.tensor(fractions) * (counts > 0)
        self.fractions = (weights / weights.sum()).tolist()

    def windows(self, update: int, part: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Read latents (horizon + 1, B, D) and action vectors (horizon, B, A) for an update.

        Args:
            update: decides what is drawn.
            part: of the B windows.
        """
        drawn = [each.windows(rows, self.horizon) for each, rows in self._rows(update)]
        z, actions = (torch.cat(column, 1) for column in zip(*drawn, strict=True))
        return z[:, part], actions[:, part]

    def transitions(self, update: int, part: slice = slice(None)) -> Transition:
        """Draw B steps for one update, or a part of them."""
        drawn = []
        for each, rows in self._rows(update):
            step = each.z[rows], each.actions[rows], each.z[rows + 1]
            drawn.append((*step, each.rewards[rows], each.terminated[rows]))
        return Transition(*(torch.cat(column)[part] for column in zip(*drawn, strict=True)))

    def _rows(self, update: int) -> Iterator[tuple[LatentEpisodes, Tensor]]:
        """Yield the first rows of the windows, part by part."""
        generator = torch.Generator().manual_seed(_SEED_STRIDE * self.seed + update)
        for part, starts, fraction in zip(self.parts, self.starts, self.fractions, strict=True):
            count = round(self.batch_size * fraction)
            if count:
                drawn = starts[torch.randint(len(starts), (count,), generator=generator)]
                yield part, to_device(drawn, self.device)
