"""One dream as a Gymnasium environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from torch import Tensor

from worldmodel.imagination.domain import Domain
from worldmodel.imagination.starts import reset_latents
from worldmodel.imagination.store import load_dream
from worldmodel.imagination.vector import LatentVectorEnv
from worldmodel.models import WorldModel
from worldmodel.playback.canvas import enlarge
from worldmodel.playback.window import Window
from worldmodel.reality import make_env
from worldmodel.run import load


class LatentEnv(gym.Env[np.ndarray, Any]):
    """
    ## Description

    A trained world model as an environment: each step is imagined by the predictor and judged by
    the reward and termination heads, without the environment that was learned.

    ## Action Space

    That of the environment that was learned, a flat `Box` or a `Discrete`.

    ## Observation Space

    The latent, a `Box` of float32 (D,). Its bounds are the least and greatest value of each number
    on training observations, and a quarter of that range more on both sides.

    ## Rewards

    The reward head's.

    ## Starting State

    A latent drawn uniformly from `starts`, or `reset(options={"latent": z})`, float32 (D,).

    ## Episode End

    Termination where the termination head gives 0.5 or more. Truncation after `max_episode_steps`,
    or, with `info["out_of_domain"]`, where the dream leaves what the model was trained on: see
    `Domain`. The latent that left is clipped to the bounds.

    ## Arguments

    | Parameter           | Type         | Default | Description                         |
    | ------------------- | ------------ | ------- | ----------------------------------- |
    | `wm`                | `WorldModel` |         | The model                           |
    | `starts`            | Tensor       |         | float32 (M, D), see `start_latents` |
    | `domain`            | `Domain`     |         | From `fit_domain`                   |
    | `max_episode_steps` | int          | `200`   | Steps until truncation              |
    | `render_mode`       | str          | `None`  | `"rgb_array"`, `"human"`            |

    `gym.make("worldmodel/Latent-v0", run="results/<run>")` takes the first three from a run
    directory: `starts` is then `"data"` (stored training observations), `"resets"` (where the real
    environment's episodes begin) or an array of observations; and `device` as in
    `worldmodel.load`.

    ## Vectorized environment

    `LatentVectorEnv` imagines all dreams in one batch; `gym.make_vec` gives it.

    ## Version History

    * v0: Initial version.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array", "human"],
        "render_fps": 20,
    }

    def __init__(
        self,
        wm: WorldModel,
        *,
        starts: Tensor,
        domain: Domain,
        max_episode_steps: int = 200,
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(
                f"render_mode is {render_mode!r}; expected None, 'rgb_array' or 'human'"
            )
        self._dreams = LatentVectorEnv(
            wm,
            1,
            starts=starts,
            domain=domain,
            max_episode_steps=max_episode_steps,
            autoreset_mode=AutoresetMode.DISABLED,
            render_mode="rgb_array" if render_mode == "human" else render_mode,
        )
        self.render_mode = render_mode
        self._window = Window("Dream") if render_mode == "human" else None
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
        self._show()
        return observations[0], {"out_of_domain": bool(info["out_of_domain"][0])}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Imagine one step; see `LatentVectorEnv`."""
        z, reward, terminated, truncated, info = self._dreams.step(np.asarray(action)[None])
        self._show()
        left = {"out_of_domain": bool(info["out_of_domain"][0])}
        return z[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), left

    def render(self) -> np.ndarray | None:
        """The decoder's newest frame, uint8 (H, W, 3); None after updating the window."""
        if self._window is not None:
            self._show()
            return None
        frames = self._dreams.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Close the window."""
        if self._window is not None:
            self._window.close()

    def _show(self) -> None:
        if self._window is not None and (frames := self._dreams.render()) is not None:
            self._window.show(enlarge(frames[0]))
            self._window.wait(self.metadata["render_fps"])


def make_latent_env(
    run: str | Path, starts: str | np.ndarray = "data", device: str = "auto", **settings: Any
) -> LatentEnv:
    """The dream of a run: ``gym.make("worldmodel/Latent-v0", run="results/<run>")``.

    Args:
        run: A run directory.
        starts: Where dreams begin: ``"data"`` at stored training observations, ``"resets"`` where
            the real environment's episodes do, or at given observations, uint8 (M, H, W, S*C).
        device: See `worldmodel.load`.
        settings: Of `LatentEnv`.

    Raises:
        RunError: There is no finished run.
        ValueError: `starts` is something else.
    """
    wm, dream = _open(run, starts, device)
    return LatentEnv(wm, **dream, **settings)


def make_latent_vector_env(
    run: str | Path,
    num_envs: int = 1,
    starts: str | np.ndarray = "data",
    device: str = "auto",
    **settings: Any,
) -> LatentVectorEnv:
    """The dreams of a run: ``gym.make_vec("worldmodel/Latent-v0", run=..., num_envs=1024)``.

    Args:
        run: See `make_latent_env`, as for `starts` and `device`.
        num_envs: N.
        starts: Where dreams begin.
        device: Where they are computed.
        settings: Of `LatentVectorEnv`.
    """
    wm, dream = _open(run, starts, device)
    return LatentVectorEnv(wm, num_envs, **dream, **settings)


def _open(
    run: str | Path, starts: str | np.ndarray, device: str
) -> tuple[WorldModel, dict[str, Any]]:
    wm = load(run, device)
    dream = load_dream(run, wm)
    if isinstance(starts, np.ndarray):
        dream["starts"] = wm.encode(starts)
    elif starts == "resets":
        dream["starts"] = reset_latents(wm, make_env(run))
    elif starts != "data":
        raise ValueError(
            f"starts is {starts!r}; expected 'data', 'resets', or an array of observations"
        )
    return wm, dream
