"""Environments in which agents are trained and evaluated, for each view of a run."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Literal

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize

from worldmodel.agent_config import AgentConfig
from worldmodel.config import Config
from worldmodel.data.adapters import env_layers, is_native, make_batch
from worldmodel.data.env_ids import find_spec
from worldmodel.data.env_wrappers import own_layers
from worldmodel.imagination import SB3VecEnv, VectorLatentObservation
from worldmodel.plugins import find_plugin
from worldmodel.rl.guards import PredictorEnsemble, RandomMember, guard
from worldmodel.run import Run

View = Literal["state", "latent", "dream", "pixels"]

VIEWS: tuple[View, ...] = ("state", "latent", "dream", "pixels")
"""What an agent observes and where it is trained; the order of comparisons."""

VectorEnv = gym.vector.VectorEnv[Any, Any, Any]

_CNN_MIN_SIDE = 36
"""Smallest image that the convolutional network of Stable-Baselines3 takes."""


class AgentEnvs:
    """The environments of a run for one view.

    - ``state``: the real environment, observed by its true state;
    - ``latent``: the real environment, observed through the frozen encoder;
    - ``dream``: the world model alone; its agents are evaluated like agents on latents;
    - ``pixels``: the real environment, observed by its frames.

    Args:
        run: A finished run.
        on: The view.

    Attributes:
        action_space: Action space of one environment.

    Raises:
        RunError: If the run is not finished.
        ValueError: If the view does not fit the run.
    """

    def __init__(self, run: Run, on: View) -> None:
        self.run, self.on, self.wm = run, on, run.model
        if on == "pixels":
            self._require_pixels()
        with closing(self.real(1)) as envs:
            self.action_space: spaces.Space[Any] = envs.single_action_space

    @property
    def model_data_steps(self) -> int:
        """Real steps in the model's training data; 0 if the agent needs no model.

        Without ``metrics.json`` every episode counts as if it had its maximum length.
        """
        if self.on not in ("latent", "dream"):
            return 0
        data = self.run.config.data
        return self.run.metrics.data.train_steps if self.run.finished else data.size * data.steps

    def training(self, config: AgentConfig, ensemble: PredictorEnsemble | None = None) -> VecEnv:
        """Make the environments that the agent is trained in, seeded, for Stable-Baselines3.

        Args:
            config: Configuration of the agent, resolved; `config.on` must be the view.
            ensemble: Ensemble for the uncertainty penalty of imagined rewards.
        """
        set_random_seed(config.seed)
        envs: VecEnv = VecMonitor(SB3VecEnv(self._unmonitored(config, ensemble)))
        envs.seed(config.seed)
        if config.normalize_rewards:
            assert config.gamma is not None
            envs = VecNormalize(envs, norm_obs=False, gamma=config.gamma)
        return envs

    def real(self, num_envs: int, render_mode: str | None = None) -> VectorEnv:
        """Make N real environments with the agent's observations, without autoreset."""
        if self.on == "state":
            return state_envs(self.run.config, num_envs, render_mode)
        envs = self.run.make_vec_env(num_envs, render_mode)
        return envs if self.on == "pixels" else VectorLatentObservation(envs, self.wm)

    def _unmonitored(self, config: AgentConfig, ensemble: PredictorEnsemble | None) -> VectorEnv:
        num_envs = config.num_envs
        assert num_envs is not None
        if self.on != "dream":
            return self.real(num_envs)
        predict = None
        if ensemble is not None and config.ensemble.rollouts:
            predict = RandomMember(self.wm, ensemble, config.seed)
        dream = self.run.imagine(
            num_envs,
            max_episode_steps=config.dream_steps,
            predict=predict,
            autoreset_mode="Disabled",
        )
        return guard(dream, config, ensemble)

    def _require_pixels(self) -> None:
        side, *rest = self.wm.spec.frame_shape
        if not rest:
            raise ValueError(
                f"{self.run.path} was trained on vectors, and there are no pixels to train an "
                "agent on; use latent, dream or state"
            )
        if side < _CNN_MIN_SIDE:
            raise ValueError(
                f"{self.run.path} has frames of {side} pixels, and the convolutional network of "
                f"Stable-Baselines3 needs {_CNN_MIN_SIDE}; use latent, dream or state"
            )


def state_envs(config: Config, num_envs: int, render_mode: str | None = None) -> VectorEnv:
    """Make N real environments that observe the true state, without autoreset.

    The environment's plug-in says how; without one, the environment's own observation is a vector.

    Raises:
        ValueError: If the observation is not a vector.
    """
    env_id, kwargs = find_plugin(config.env.id, config.env.kwargs).state_env()
    spec, own = find_spec(env_id), config.env
    key = own.observation_key if env_id == own.id else None
    layers = env_layers(spec, kwargs, "vector", own_layers(own.wrappers, own.frame_skip, key))
    if render_mode is not None:
        kwargs = {**kwargs, "render_mode": render_mode}
    native = is_native(spec, kwargs) and not layers
    envs = make_batch(spec, kwargs, native=native, num_envs=num_envs, layers=layers)
    space = envs.single_observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        envs.close()
        raise ValueError(
            f"{env_id} observes {space}, and an agent on the state needs a vector; "
            "use latent, dream or pixels"
        )
    return envs
