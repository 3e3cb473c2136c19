"""Many dreams at once as one Gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from worldmodel.evaluation.forecast import newest_frame
from worldmodel.imagination.domain import Domain
from worldmodel.models import WorldModel
from worldmodel.models.spec import DiscreteActions

ENDS = 0.5
"""Probability from which the termination head ends a dream."""


class LatentVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """A world model's predictor and heads as N environments, computed in one batch.

    Observations are latents, float32 (N, D), within the bounds of the training latents. Actions
    are those of the environment that was learned. Rewards are the reward head's. An episode
    terminates where the termination head gives 0.5 or more, and is truncated after
    `max_episode_steps` or where the dream leaves the domain that the model was trained on, which
    `info["out_of_domain"]`, bool (N,), tells. The latent that left is clipped to the bounds.

    Args:
        wm: The world model.
        num_envs: N.
        starts: float32 (M, D), latents that episodes begin at, drawn uniformly: `start_latents`
            of a buffer, or `wm.encode(observations)`.
        domain: From `fit_domain`.
        max_episode_steps: Steps until truncation.
        autoreset_mode: `AutoresetMode` or its value, "NextStep", "SameStep" or "Disabled".
        render_mode: None, or "rgb_array" for the decoder's newest frames.

    Raises:
        ValueError: If a number is below 1, there is nothing to start from, or frames are asked of
            a model without a decoder.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": 20,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        wm: WorldModel,
        num_envs: int = 1024,
        *,
        starts: Tensor,
        domain: Domain,
        max_episode_steps: int = 200,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        for name, value in (("num_envs", num_envs), ("max_episode_steps", max_episode_steps)):
            if value < 1:
                raise ValueError(f"{name} is {value}; expected 1 or more")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}; expected None or 'rgb_array'")
        if render_mode and wm.decoder is None:
            raise ValueError("this model has no decoder, so dreams cannot be rendered")
        if starts.ndim != 2 or not len(starts):
            raise ValueError(
                f"starts have shape {tuple(starts.shape)}; expected latents (M, D), at least one"
            )
        self.wm, self.domain, self.num_envs = wm, domain, num_envs
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = spaces.Box(
            domain.low.cpu().numpy(), domain.high.cpu().numpy(), dtype=np.float32
        )
        self.single_action_space = _action_space(wm)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.starts = starts.to(wm.device)
        self._z: Tensor | None = None
        self._steps = np.zeros(num_envs, np.int64)
        self._done = np.zeros(num_envs, np.bool_)

    @property
    def latents(self) -> Tensor:
        """The current latents, float32 (N, D), on the model's device."""
        if self._z is None:
            raise ResetNeeded("the dreams have not begun: call reset() first")
        return self._z

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin all dreams, or those in a mask, at starts drawn by one generator.

        Args:
            seed: Of the generator; of a sequence, the first item counts.
            options: `"reset_mask"`, bool (N,), limits the reset to where it is True;
                `"latents"`, float32 (N, D), sets the starts.
        """
        first = seed if seed is None or isinstance(seed, int | np.integer) else seed[0]
        super().reset(seed=None if first is None else int(first))
        rest = dict(options or {})
        mask, given = rest.pop("reset_mask", None), rest.pop("latents", None)
        if rest:
            raise ValueError(f"unknown options {sorted(rest)}; expected 'reset_mask', 'latents'")
        if mask is None:
            mask = np.ones(self.num_envs, np.bool_)
        if self._z is None and not np.all(mask):
            raise ResetNeeded("the dreams have not begun: call reset() without a mask first")
        left = self._begin(np.asarray(mask, np.bool_), given)
        return self._observation(), self._info(left)

    @torch.no_grad()
    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Imagine one step under actions of the environment that was learned, (N, A) or (N,).

        Actions beyond the bounds of a Box are clipped.

        Raises:
            ValueError: They have another shape, are not numbers, or none of a discrete space.
        """
        z = self.latents
        if self.autoreset_mode is AutoresetMode.DISABLED and self._done.any():
            raise ResetNeeded(
                f"dreams {np.flatnonzero(self._done).tolist()} have ended and autoreset is "
                'disabled: call reset(options={"reset_mask": mask}) first'
            )
        actions = self._checked(actions)
        following = self.wm.predict(z, actions)
        reward, end = self.wm.outcome(z, actions, following)
        left = self.domain.outside(following).cpu().numpy()
        low, high = self.domain.low, self.domain.high
        self._z = following.nan_to_num().clamp(low, high)
        self._steps += 1
        rewards = reward.nan_to_num().cpu().numpy().astype(np.float64)
        terminated = (end >= ENDS).cpu().numpy() & ~left
        truncated = left | ((self._steps >= self.max_episode_steps) & ~terminated)
        if self._done.any():
            for array in (left, terminated, truncated):
                array[self._done] = False
            rewards[self._done] = 0.0
            self._begin(self._done)
        ended = terminated | truncated
        self._done = ended.copy()
        info: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and ended.any():
            info = self._final(ended, left)
            self._begin(ended)
            left = left & ~ended
        return self._observation(), rewards, terminated, truncated, info | self._info(left)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The decoder's newest frame of each dream, uint8 (H, W, C)."""
        if self.render_mode is None:
            gym.logger.warn("render() needs render_mode='rgb_array'")
            return None
        channels = self.wm.spec.frame_shape[-1]
        frames = newest_frame(self.wm.decode(self.latents), channels)
        return tuple(np.repeat(f, 3 // f.shape[-1], axis=-1) for f in frames)

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(
                f"actions have shape {actions.shape}, expected {self.action_space.shape}"
            )
        if isinstance(self.action_space, spaces.Box):
            if not np.isfinite(actions).all():
                raise ValueError("actions hold numbers that are not finite")
            actions = np.clip(actions, self.action_space.low, self.action_space.high)
        elif not self.action_space.contains(actions):
            raise ValueError(f"actions {actions.tolist()} are not in {self.action_space}")
        return actions

    def _begin(self, mask: np.ndarray, given: Any = None) -> np.ndarray:
        """Begin those in the mask; which of them are outside the domain, bool (N,)."""
        chosen = torch.as_tensor(np.flatnonzero(mask), device=self.wm.device)
        if self._z is None:
            self._z = torch.zeros((self.num_envs, self.starts.shape[1]), device=self.wm.device)
        if given is None:
            drawn = self.np_random.integers(0, len(self.starts), len(chosen))
            starts = self.starts[torch.as_tensor(drawn, device=self.wm.device)]
        else:
            starts = torch.as_tensor(given, dtype=torch.float32, device=self.wm.device)
            if starts.shape != self._z.shape or not starts.isfinite().all():
                raise ValueError(
                    f"latents to begin at have shape {tuple(starts.shape)}; expected finite "
                    f"numbers {tuple(self._z.shape)}"
                )
            starts = starts[chosen]
        self._z = self._z.clone()
        self._z[chosen] = starts.clamp(self.domain.low, self.domain.high)
        left = np.zeros(self.num_envs, np.bool_)
        left[mask] = self.domain.outside(starts).cpu().numpy()
        self._steps[mask] = 0
        self._done[mask] = False
        return left

    def _observation(self) -> np.ndarray:
        return self.latents.cpu().numpy().copy()

    def _info(self, left: np.ndarray) -> dict[str, Any]:
        return {"out_of_domain": left, "_out_of_domain": np.ones(self.num_envs, np.bool_)}

    def _final(self, ended: np.ndarray, left: np.ndarray) -> dict[str, Any]:
        observation = self._observation()
        final = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(ended):
            final[i] = observation[i]
        return {
            "final_obs": final,
            "_final_obs": ended.copy(),
            "final_info": {"out_of_domain": left.copy(), "_out_of_domain": ended.copy()},
            "_final_info": ended.copy(),
        }


def _action_space(wm: WorldModel) -> spaces.Space:
    actions = wm.spec.actions
    if isinstance(actions, DiscreteActions):
        return spaces.Discrete(actions.n, start=actions.start)
    return spaces.Box(
        np.array(actions.low, np.float32), np.array(actions.high, np.float32), dtype=np.float32
    )
