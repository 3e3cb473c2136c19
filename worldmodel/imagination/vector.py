"""Many imagined episodes at once: `LatentVectorEnv`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from worldmodel.imagination.domain import require_domain
from worldmodel.models import WorldModel

Predict = Callable[[Tensor, np.ndarray], Tensor]
"""Maps latents (B, D) and actions to the next latents (B, D)."""

TERMINATION_THRESHOLD = 0.5
"""Predicted probability of termination at which an imagined episode terminates."""


class LatentVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """
    ## Description

    N imagined episodes: the predictor and the heads of a world model as a vector environment. All
    episodes are computed in one batch, without the environment that the model was trained on.

    ## Action Space

    The batched action space of the environment that the model was trained on. Actions outside the
    bounds of a `Box` are clipped.

    ## Observation Space

    The latents, a `Box` of float32 (N, D). Its bounds are `wm.domain.low` and `wm.domain.high`.

    ## Rewards

    The predictions of the reward head, float64 (N,).

    ## Starting State

    A latent drawn uniformly from `starts` for each episode, or `reset(options={"latents": z})`,
    float32 (N, D). `reset(options={"reset_mask": mask})`, bool (N,), resets some of the episodes.

    ## Episode End

    Termination where the termination head predicts a probability of 0.5 or more. Truncation after
    `max_episode_steps`, or where a latent is out of distribution (see `Domain`), with
    `info["out_of_domain"]`, bool (N,). Such a latent is clipped to the bounds of the observation
    space.

    ## Arguments

    | Parameter           | Type            | Default      | Description                         |
    | ------------------- | --------------- | ------------ | ----------------------------------- |
    | `wm`                | `WorldModel`    |              | The model, with a `domain`          |
    | `num_envs`          | int             | `1024`       | Number N of episodes                |
    | `starts`            | Tensor          | `wm.starts`  | float32 (M, D), see `start_latents` |
    | `max_episode_steps` | int             | `200`        | Steps until truncation              |
    | `predict`           | `Predict`       | `wm.predict` | Predicts the next latents           |
    | `autoreset_mode`    | `AutoresetMode` | `"NextStep"` | Or `"SameStep"`, or `"Disabled"`    |
    | `render_mode`       | str             | `None`       | `"rgb_array"`: decoded frames       |

    With `run` a run directory or a `Run`:

    ```python
    >>> import gymnasium as gym
    >>> import worldmodel
    >>> envs = gym.make_vec("worldmodel/Latent-v0", num_envs=3, run=run)
    >>> observations, info = envs.reset(seed=0)
    >>> observations.dtype, info["out_of_domain"]
    (dtype('float32'), array([False, False, False]))
    >>> observations, rewards, terminated, truncated, info = envs.step(envs.action_space.sample())

    ```

    ## Vectorized environment

    This is the vectorized form of `LatentEnv`.

    ## Version History

    * v0: Initial version.
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
        starts: Tensor | None = None,
        max_episode_steps: int = 200,
        predict: Predict | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        for name, value in (("num_envs", num_envs), ("max_episode_steps", max_episode_steps)):
            if value < 1:
                raise ValueError(f"{name} is {value}; expected 1 or more")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}; expected None or 'rgb_array'")
        if render_mode and wm.decoder is None:
            raise ValueError(
                "this model was trained on vectors and has no decoder, so it cannot be rendered; "
                "use render_mode=None"
            )
        self.wm, self.num_envs = wm, num_envs
        self._predict = wm.predict if predict is None else predict
        self.domain = require_domain(wm)
        self.starts = _checked_starts(wm, starts)
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = self.domain.space
        self.single_action_space = wm.spec.actions.space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._z: Tensor | None = None
        self._steps = np.zeros(num_envs, np.int64)
        self._done = np.zeros(num_envs, np.bool_)

    @property
    def latents(self) -> Tensor:
        """The current latents, float32 (N, D), on the model's device."""
        if self._z is None:
            raise ResetNeeded("the environment has no state yet: call reset() first")
        return self._z

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start all episodes, or those in a mask.

        Args:
            seed: random seed of the one generator that draws all starts; of a sequence, the first
                item.
            options: `"reset_mask"`, bool (N,), the episodes to reset; `"latents"`, float32 (N, D),
                the latents to start at.

        Returns:
            Observations float32 (N, D), and `info`.

        Raises:
            ValueError: If an option is unknown or the latents do not fit.
            ResetNeeded: If the first reset has a mask.
        """
        first = seed if seed is None or isinstance(seed, int | np.integer) else seed[0]
        super().reset(seed=None if first is None else int(first))
        unknown = dict(options or {})
        mask, latents = unknown.pop("reset_mask", None), unknown.pop("latents", None)
        if unknown:
            raise ValueError(f"unknown options {sorted(unknown)}; expected 'reset_mask', 'latents'")
        if mask is None:
            mask = np.ones(self.num_envs, np.bool_)
        if self._z is None and not np.all(mask):
            raise ResetNeeded("the environment has no state yet: call reset() without a mask first")
        outside = self._start(np.asarray(mask, np.bool_), latents)
        return self._observation(), self._info(outside)

    @torch.no_grad()
    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Predict the next latents and the outcome of the transition.

        Args:
            actions: (N, A), or (N,) if discrete.

        Returns:
            Observations float32 (N, D), rewards float64 (N,), terminated and truncated bool (N,),
            and `info`.

        Raises:
            ValueError: If the actions have another shape, are not finite, or are not in a discrete
                action space.
            ResetNeeded: If an episode has ended and autoreset is disabled.
        """
        z = self.latents
        if self.autoreset_mode is AutoresetMode.DISABLED and self._done.any():
            raise ResetNeeded(
                f"episodes {np.flatnonzero(self._done).tolist()} have ended and autoreset is "
                'disabled: call reset(options={"reset_mask": mask}) first'
            )
        actions = self._checked(actions)
        z_next = self._predict(z, actions)
        reward, termination = self.wm.outcome(z, actions, z_next)
        outside = self.domain.outside(z_next).cpu().numpy()
        self._z = z_next.nan_to_num().clamp(self.domain.low, self.domain.high)
        self._steps += 1
        rewards = reward.nan_to_num().cpu().numpy().astype(np.float64)
        terminated = (termination >= TERMINATION_THRESHOLD).cpu().numpy() & ~outside
        truncated = outside | ((self._steps >= self.max_episode_steps) & ~terminated)
        if self._done.any():  # in next-step mode, this step resets them instead
            for array in (outside, terminated, truncated):
                array[self._done] = False
            rewards[self._done] = 0.0
            self._start(self._done)
        ended = terminated | truncated
        self._done = ended.copy()
        info: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and ended.any():
            info = self._final(ended, outside)
            self._start(ended)
            outside = outside & ~ended
        return self._observation(), rewards, terminated, truncated, info | self._info(outside)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Decode the newest frame of each episode, uint8 (H, W, 3)."""
        if self.render_mode is None:
            gym.logger.warn('render() needs a render mode: make_vec(..., render_mode="rgb_array")')
            return None
        frames = self.wm.frames.newest(self.wm.decode(self.latents))
        return tuple(np.repeat(frame, 3 // frame.shape[-1], axis=-1) for frame in frames)

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        """Validate actions, and clip those of a Box to its bounds."""
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(
                f"actions have shape {actions.shape}, expected {self.action_space.shape}"
            )
        if isinstance(self.action_space, spaces.Box):
            if not np.isfinite(actions).all():
                raise ValueError("actions contain NaN or infinity, expected finite numbers")
            clipped: np.ndarray = np.clip(actions, self.action_space.low, self.action_space.high)
            return clipped
        if not self.action_space.contains(actions):
            raise ValueError(f"actions {actions.tolist()} are not in {self.action_space}")
        return actions

    def _start(self, mask: np.ndarray, latents: Any = None) -> np.ndarray:
        """Start the episodes in the mask, and return which of them start outside the domain."""
        device = self.wm.device
        chosen = torch.as_tensor(np.flatnonzero(mask), device=device)
        if self._z is None:
            self._z = torch.zeros((self.num_envs, self.starts.shape[1]), device=device)
        if latents is None:
            drawn = self.np_random.integers(0, len(self.starts), len(chosen))
            starts = self.starts[torch.as_tensor(drawn, device=device)]
        else:
            starts = torch.as_tensor(latents, dtype=torch.float32, device=device)
            if starts.shape != self._z.shape or not starts.isfinite().all():
                raise ValueError(
                    f"latents to start at have shape {tuple(starts.shape)}; expected finite "
                    f"numbers of shape {tuple(self._z.shape)}"
                )
            starts = starts[chosen]
        self._z = self._z.clone()
        self._z[chosen] = starts.clamp(self.domain.low, self.domain.high)
        outside = np.zeros(self.num_envs, np.bool_)
        outside[mask] = self.domain.outside(starts).cpu().numpy()
        self._steps[mask] = 0
        self._done[mask] = False
        return outside

    def _observation(self) -> np.ndarray:
        return self.latents.cpu().numpy().copy()

    def _info(self, outside: np.ndarray) -> dict[str, Any]:
        return {"out_of_domain": outside, "_out_of_domain": np.ones(self.num_envs, np.bool_)}

    def _final(self, ended: np.ndarray, outside: np.ndarray) -> dict[str, Any]:
        """Make the entries of `info` about episodes that ended in a step that also resets them."""
        observation = self._observation()
        final = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(ended):
            final[i] = observation[i]
        return {
            "final_obs": final,
            "_final_obs": ended.copy(),
            "final_info": {"out_of_domain": outside.copy(), "_out_of_domain": ended.copy()},
            "_final_info": ended.copy(),
        }


def _checked_starts(wm: WorldModel, starts: Tensor | None) -> Tensor:
    """Validate the latents at which episodes start, and move them to the model's device."""
    if starts is None:
        starts = wm.starts
    if starts is None:
        raise ValueError(
            "this model has no latents to start at; pass starts=start_latents(wm, buffer, count) "
            "or starts=wm.encode(observations)"
        )
    if starts.ndim != 2 or not len(starts):
        raise ValueError(
            f"starts have shape {tuple(starts.shape)}; expected latents (M, D), at least one"
        )
    return starts.to(wm.device)
