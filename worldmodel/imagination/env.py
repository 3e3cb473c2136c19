"""One dream as a Gymnasium environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from torch import Tensor

from worldmodel.imagination.domain import Domain
from worldmodel.imagination.store import load_dream
from worldmodel.imagination.vector import LatentVectorEnv
from worldmodel.models import WorldModel
from worldmodel.run import load


class LatentEnv(gym.Env[np.ndarray, Any]):
    """`LatentVectorEnv` with one dream, as a `gymnasium.Env`.

    Args:
        wm: The world model.
        starts: float32 (M, D), latents that episodes begin at.
        domain: From `fit_domain`.
        max_episode_steps: Steps until truncation.
        render_mode: None, or "rgb_array" for the decoder's newest frame.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(
        self,
        wm: WorldModel,
        *,
        starts: Tensor,
        domain: Domain,
        max_episode_steps: int = 200,
        render_mode: str | None = None,
    ) -> None:
        self._dreams = LatentVectorEnv(
            wm,
            1,
            starts=starts,
            domain=domain,
            max_episode_steps=max_episode_steps,
            autoreset_mode=AutoresetMode.DISABLED,
            render_mode=render_mode,
        )
        self.render_mode = render_mode
        self.observation_space = self._dreams.single_observation_space
        self.action_space = self._dreams.single_action_space

    @property
    def wm(self) -> WorldModel:
        """The world model."""
        return self._dreams.wm

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a dream at a start drawn with `seed`, or at `options["latent"]`, float32 (D,)."""
        super().reset(seed=seed)
        rest = dict(options or {})
        given = rest.pop("latent", None)
        if given is not None:
            rest["latents"] = np.asarray(given)[None]
        if seed is None and self._dreams._np_random is None:
            seed = int(self.np_random.integers(2**31))
        observations, info = self._dreams.reset(seed=seed, options=rest)
        return observations[0], {"out_of_domain": bool(info["out_of_domain"][0])}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Imagine one step; see `LatentVectorEnv`."""
        z, reward, terminated, truncated, info = self._dreams.step(np.asarray(action)[None])
        left = {"out_of_domain": bool(info["out_of_domain"][0])}
        return z[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), left

    def render(self) -> Any:
        """The decoder's newest frame, uint8 (H, W, 3)."""
        frames = self._dreams.render()
        return None if frames is None else frames[0]


def make_latent_env(run: str | Path, device: str = "auto", **settings: Any) -> LatentEnv:
    """The dream of a run: ``gym.make("worldmodel/Latent-v0", run="results/<run>")``."""
    wm = load(run, device)
    return LatentEnv(wm, **load_dream(run, wm), **settings)


def make_latent_vector_env(
    run: str | Path, num_envs: int = 1, device: str = "auto", **settings: Any
) -> LatentVectorEnv:
    """The dreams of a run: ``gym.make_vec("worldmodel/Latent-v0", run=..., num_envs=1024)``."""
    wm = load(run, device)
    return LatentVectorEnv(wm, num_envs, **load_dream(run, wm), **settings)
