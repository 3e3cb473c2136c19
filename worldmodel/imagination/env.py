"""`LatentEnv`, one imagined episode at a time, and the functions behind `gym.make` of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from torch import Tensor

from worldmodel.imagination.domain import reset_latents
from worldmodel.imagination.vector import LatentVectorEnv
from worldmodel.models import WorldModel

if TYPE_CHECKING:
    from worldmodel.run import Run
    from worldmodel.viz.viewer import Window


class LatentEnv(gym.Env[np.ndarray, Any]):
    """
    ## Description

    An imagined episode: the predictor and the heads of a world model as an environment. Each step
    predicts the next latent, its reward and its termination, without the environment that the
    model was trained on.

    ## Action Space

    The action space of the environment that the model was trained on, a flat `Box` or a
    `Discrete`. Actions outside the bounds of a `Box` are clipped.

    ## Observation Space

    The latent, a `Box` of float32 (D,). Its bounds are `wm.domain.low` and `wm.domain.high`: the
    range of each dimension on training observations, extended by a quarter of it on both sides.

    ## Rewards

    The prediction of the reward head.

    ## Starting State

    A latent drawn uniformly from `starts`, or `reset(options={"latent": z})`, float32 (D,).

    ## Episode End

    Termination where the termination head predicts a probability of 0.5 or more. Truncation after
    `max_episode_steps`, or where the latent is out of distribution (see `Domain`), with
    `info["out_of_domain"]`. Such a latent is clipped to the bounds of the observation space.

    ## Arguments

    | Parameter           | Type         | Default     | Description                         |
    | ------------------- | ------------ | ----------- | ----------------------------------- |
    | `wm`                | `WorldModel` |             | The model, with a `domain`          |
    | `starts`            | Tensor       | `wm.starts` | float32 (M, D), see `start_latents` |
    | `max_episode_steps` | int          | `200`       | Steps until truncation              |
    | `render_mode`       | str          | `None`      | `"rgb_array"`, or `"human"`         |

    `gym.make("worldmodel/Latent-v0", run=run)` takes the model of `run`, a run directory or a
    `Run`. There, `starts` is `"data"` (training observations), `"resets"` (first observations of
    the real environment's episodes) or an array of observations, uint8 (M, H, W, S*C); and `device`
    is the device of the model, as in `worldmodel.load`.

    ```python
    >>> import gymnasium as gym
    >>> import worldmodel
    >>> env = gym.make("worldmodel/Latent-v0", run=run, max_episode_steps=50)
    >>> observation, info = env.reset(seed=0)
    >>> observation.dtype, info
    (dtype('float32'), {'out_of_domain': False})
    >>> observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    >>> gym.make("worldmodel/Latent-v0", run=run, starts="rest")
    Traceback (most recent call last):
    ...
    ValueError: starts is 'rest'; expected 'data', 'resets', or an array of observations

    ```

    ## Vectorized environment

    `LatentVectorEnv`, or `gym.make_vec`, computes many imagined episodes in one batch.

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
        starts: Tensor | None = None,
        max_episode_steps: int = 200,
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(
                f"render_mode is {render_mode!r}; expected None, 'rgb_array' or 'human'"
            )
        self._envs = LatentVectorEnv(
            wm,
            1,
            starts=starts,
            max_episode_steps=max_episode_steps,
            autoreset_mode=AutoresetMode.DISABLED,
            render_mode="rgb_array" if render_mode == "human" else render_mode,
        )
        self.render_mode = render_mode
        self._window = _open_window() if render_mode == "human" else None
        self.observation_space = self._envs.single_observation_space
        self.action_space = self._envs.single_action_space

    @property
    def wm(self) -> WorldModel:
        """The world model."""
        return self._envs.wm

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode at a random start, or at `options["latent"]`, float32 (D,)."""
        super().reset(seed=seed)
        batched = dict(options or {})
        latent = batched.pop("latent", None)
        if latent is not None:
            batched["latents"] = np.asarray(latent)[None]
        if seed is None and self._envs._np_random is None:
            seed = int(self.np_random.integers(2**31))
        observations, info = self._envs.reset(seed=seed, options=batched)
        self._show()
        return observations[0], {"out_of_domain": bool(info["out_of_domain"][0])}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Predict the next latent and the outcome, see `LatentVectorEnv.step`."""
        z, reward, terminated, truncated, info = self._envs.step(np.asarray(action)[None])
        self._show()
        outside = {"out_of_domain": bool(info["out_of_domain"][0])}
        return z[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), outside

    def render(self) -> np.ndarray | None:
        """Decode the newest frame, uint8 (H, W, 3); return None after updating the window."""
        if self._window is not None:
            self._show()
            return None
        frames = self._envs.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Close the window."""
        if self._window is not None:
            self._window.close()

    def _show(self) -> None:
        if self._window is not None and (frames := self._envs.render()) is not None:
            from worldmodel.viz.canvas import enlarge

            self._window.show(enlarge(frames[0]))
            self._window.wait(self.metadata["render_fps"])


def _open_window() -> Window:
    from worldmodel.viz.viewer import Window

    return Window("Imagined episode")


def make_latent_env(
    run: Run | str | Path,
    starts: str | np.ndarray = "data",
    device: str = "auto",
    **settings: Any,
) -> LatentEnv:
    """Make the environment of ``gym.make("worldmodel/Latent-v0", run=run)``.

    Args:
        run: a run, or the path of a run directory.
        starts: observations at which episodes start: ``"data"`` for training observations,
            ``"resets"`` for first observations of the real environment's episodes, or an array of
            observations, uint8 (M, H, W, S*C), or float32 (M, S*d).
        device: device of the model if `run` is a path, see `worldmodel.load`.
        settings: further arguments of `LatentEnv`.

    Raises:
        RunError: If there is no evaluated run.
        ValueError: If an argument does not fit the run.
    """
    wm, latents = _model_and_starts(run, starts, device)
    return LatentEnv(wm, starts=latents, **settings)


def make_latent_vector_env(
    run: Run | str | Path,
    num_envs: int = 1,
    starts: str | np.ndarray = "data",
    device: str = "auto",
    **settings: Any,
) -> LatentVectorEnv:
    """Make the environments of ``gym.make_vec("worldmodel/Latent-v0", num_envs=1024, run=run)``.

    Args:
        run: a run, or the path of a run directory.
        num_envs: number N of episodes.
        starts: observations at which episodes start, see `make_latent_env`.
        device: device of the model if `run` is a path, see `worldmodel.load`.
        settings: further arguments of `LatentVectorEnv`.

    Raises:
        RunError: If there is no evaluated run.
        ValueError: If an argument does not fit the run.
    """
    wm, latents = _model_and_starts(run, starts, device)
    return LatentVectorEnv(wm, num_envs, starts=latents, **settings)


def _model_and_starts(
    run: Run | str | Path, starts: str | np.ndarray, device: str
) -> tuple[WorldModel, Tensor]:
    from worldmodel.run import Run

    if not isinstance(run, Run):
        run = Run(run, device)
    _ = run.domain  # raises RunError if the run has none yet
    if isinstance(starts, np.ndarray):
        return run.model, run.model.encode(starts)
    if starts == "data":
        return run.model, run.starts
    if starts == "resets" and str(run.config.env.id).endswith("worldmodel/Latent-v0"):
        raise ValueError(f"{run.path} has no real environment to reset; use starts='data'")
    if starts == "resets":
        return run.model, reset_latents(run.model, run.make_env())
    raise ValueError(
        f"starts is {starts!r}; expected 'data', 'resets', or an array of observations"
    )
