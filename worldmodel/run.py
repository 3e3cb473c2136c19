"""A run: the one object that opens, once and lazily, what a run directory holds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import gymnasium as gym
import numpy as np
from torch import Tensor

from worldmodel.callbacks import Callback, CallbackList
from worldmodel.config import override, validate
from worldmodel.errors import RunError
from worldmodel.files import load_tensors, read_json
from worldmodel.models import WorldModel, choose_device
from worldmodel.plugins import EnvPlugin, Readout, choose_readout, find_plugin
from worldmodel.run_directory import RunDirectory

if TYPE_CHECKING:
    from worldmodel.data import Policy
    from worldmodel.data.datasets import Datasets
    from worldmodel.evaluation.metrics import Metrics
    from worldmodel.evaluation.probes import MLPProbe
    from worldmodel.imagination import Domain, LatentVectorEnv
    from worldmodel.keywords import AgentOptions, GoalOptions, ImagineOptions


class Run(RunDirectory):
    """A run directory. Each part is opened on first use and kept.

    Args:
        path: the directory, as in ``results/RUN``, or ``hf://user/name``; see `worldmodel.hub`.
        device: where the model goes: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        trust: import the code that an untrusted run names; see `worldmodel.trust`.
    """

    def with_settings(self, values: dict[str, Any]) -> Run:
        """Return the same run with a changed configuration; nothing on disk changes.

        Raises:
            ConfigError: If a key is unknown or a value is invalid.
        """
        run = Run(self.path, self.device, trust=self.trust)
        run.config = validate(override(self.config.model_dump(mode="json"), values))
        return run

    @cached_property
    def model(self) -> WorldModel:
        """The trained model in evaluation mode, with `domain` and `starts` where they are saved.

        Raises:
            RunError: If training has not finished, or a file is damaged.
        """
        model = WorldModel(self.read_spec())
        for name, part in model.parts().items():
            path = self.weights_path(name)
            state = load_tensors(path, self._resume_hint)
            try:
                part.load_state_dict(state)
            except (RuntimeError, TypeError) as error:
                raise RunError(f"{path} does not fit models/spec.json: {error}") from error
            if not all(bool(value.isfinite().all()) for value in part.state_dict().values()):
                raise RunError(f"{path} is damaged: it holds NaN or infinity; train the run again")
        device = choose_device(self.device)
        return self._with_imagination(model.to(device).eval().requires_grad_(False))

    def set_model(self, model: WorldModel) -> None:
        """Use a model that has just been trained instead of loading it."""
        self.model = self._with_imagination(model)

    @property
    def domain(self) -> Domain:
        """The region of latent space that the training data covers.

        Raises:
            RunError: If the run has none yet.
        """
        if self.model.domain is None:
            raise RunError(f"{self._imagination_path} is missing; {self._evaluate_hint}")
        return self.model.domain

    @property
    def starts(self) -> Tensor:
        """Latents of training observations, float32 (M, D), at which imagined episodes start.

        Raises:
            RunError: If the run has none yet.
        """
        if self.model.starts is None:
            raise RunError(f"{self._imagination_path} is missing; {self._evaluate_hint}")
        return self.model.starts

    @cached_property
    def probe(self) -> MLPProbe | None:
        """The MLP probe that reads angles from latents; None where the readout has no angles.

        Raises:
            RunError: If it is damaged.
        """
        from worldmodel.evaluation.probes import MLPProbe

        path = self.path / "models" / "probe.pt"
        if not path.is_file():
            return None
        try:
            return MLPProbe.from_state(load_tensors(path, self._evaluate_hint))
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise RunError(f"{path} is damaged ({error!r}); {self._evaluate_hint}") from error

    @cached_property
    def metrics(self) -> Metrics:
        """The evaluation on held-out episodes.

        Raises:
            RunError: If there is none yet, or the file is damaged.
        """
        from worldmodel.evaluation.metrics import Metrics

        path = self.path / "metrics.json"
        content = read_json(path, self._evaluate_hint)
        try:
            return Metrics.from_dict(content)
        except ValueError as error:
            raise RunError(f"{path}: {error}") from error

    @cached_property
    def plugin(self) -> EnvPlugin:
        """What is known about the environment, as its data was collected."""
        kwargs = {**self.config.env.kwargs, **self.config.data.env_kwargs}
        return find_plugin(self.config.env.id, kwargs)

    @cached_property
    def dt(self) -> float:
        """Simulated seconds per step, which is `env.frame_skip` steps of the environment."""
        return self.plugin.seconds_per_step() * self.config.env.frame_skip

    def readout(self, state_dim: int) -> Readout:
        """Return what probes read from states of `state_dim` numbers; see `evaluation.readout`."""
        return choose_readout(self.config.evaluation.readout, self.plugin, state_dim)

    def datasets(self, callbacks: Sequence[Callback] = ()) -> AbstractContextManager[Datasets]:
        """Open training and validation data, collecting what is missing."""
        from worldmodel.data.datasets import open_datasets

        return open_datasets(self.config, callbacks)

    def make_env(
        self, render_mode: str | None = None, **env_kwargs: Any
    ) -> gym.Env[np.ndarray, Any]:
        """Make the real environment with observations for the encoder.

        Args:
            render_mode: as in `gymnasium.make`; always "rgb_array" where the model was trained on
                renderings.
            env_kwargs: override the arguments of the run, as ``start="uniform"``. Those used for
                collecting its data only are left out.

        Raises:
            ValueError: If the environment does not take the arguments.
        """
        from worldmodel.data.adapters import make_env

        env = make_env(self.config, render_mode, **env_kwargs)
        self._require_fit(env, env.action_space, env.observation_space)
        return env

    def make_vec_env(
        self, num_envs: int, render_mode: str | None = None, **env_kwargs: Any
    ) -> gym.vector.VectorEnv[Any, Any, Any]:
        """Make N real environments at once, with autoreset disabled; see `make_env`."""
        from worldmodel.data.adapters import make_vec_env

        envs = make_vec_env(self.config, num_envs, render_mode, **env_kwargs)
        self._require_fit(envs, envs.single_action_space, envs.single_observation_space)
        return envs

    def imagine(self, num_envs: int = 1024, **settings: Unpack[ImagineOptions]) -> LatentVectorEnv:
        """Make the world model as a vector environment.

        Args:
            num_envs: imagined environments N.
            settings: of `LatentVectorEnv`, as ``max_episode_steps=50``.
        """
        from worldmodel.imagination import LatentVectorEnv

        if "starts" not in settings:
            settings["starts"] = self.starts
        return LatentVectorEnv(self.model, num_envs, **settings)

    def evaluate(
        self, *, reference_updates: int | None = None, callbacks: Sequence[Callback] = ()
    ) -> Metrics:
        """Evaluate on held-out episodes; write metrics.json, pictures, video and report.

        Args:
            reference_updates: of a reference model trained on the true state; 0 for none, None for
                `evaluation.reference.updates`.
            callbacks: that show progress.
        """
        from worldmodel.evaluation.run_evaluation import evaluate_run

        if reference_updates is None:
            reference_updates = self.config.evaluation.reference.updates
        return evaluate_run(self, reference_updates=reference_updates, callbacks=callbacks)

    def rollout(
        self,
        *,
        policy: str | Path | Policy | None = None,
        seed: int = 20_000,
        state: Sequence[float] | None = None,
        steps: int = 100,
        output: str | Path | None = None,
        window: bool = False,
        callbacks: Sequence[Callback] = (),
    ) -> dict[str, Any]:
        """Play a real episode, imagine it open loop, and show both; see `viz.rollout.rollout`."""
        from worldmodel.viz.rollout import rollout

        return rollout(
            self,
            policy=policy,
            seed=seed,
            state=state,
            steps=steps,
            output=output,
            window=window,
            callbacks=callbacks,
        )

    def play(self, *, seed: int = 20_000, callbacks: Sequence[Callback] = ()) -> None:
        """Drive real and imagined environment by keyboard; see `viz.viewer.play`."""
        from worldmodel.viz.viewer import play

        play(self, seed=seed, callbacks=callbacks)

    def plan(
        self,
        *,
        goal: str | None = None,
        method: str | None = None,
        horizon: int | None = None,
        samples: int | None = None,
        iterations: int | None = None,
        episodes: int = 10,
        steps: int = 200,
        seed: int = 20_000,
        output: str | Path | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> dict[str, Any]:
        """Act in the real environment by planning; see `planning.episodes.plan`."""
        from worldmodel.planning.episodes import plan

        return plan(
            self,
            goal=goal,
            method=method,
            horizon=horizon,
            samples=samples,
            iterations=iterations,
            episodes=episodes,
            steps=steps,
            seed=seed,
            output=output,
            callbacks=callbacks,
        )

    def reach_goals(
        self, *, callbacks: Sequence[Callback] = (), **settings: Unpack[GoalOptions]
    ) -> dict[str, Any]:
        """Reach goals of held-out episodes by planning.

        Args:
            callbacks: that show progress.
            settings: arguments of `planning.goal_reaching.reach_goals`, as ``goal_offset=25``.
        """
        from worldmodel.planning.goal_reaching import reach_goals

        return reach_goals(self, callbacks=callbacks, **settings)

    def train_agent(
        self, *, callbacks: Sequence[Callback] = (), **settings: Unpack[AgentOptions]
    ) -> dict[str, Any]:
        """Train an agent, evaluate it in the real environment, and return ``results.json``.

        Args:
            callbacks: that show progress.
            settings: fields of `AgentConfig` that differ from the run's configuration, as
                ``on="dream"``, ``algo="sac"``, ``loop={"rounds": 3}``.

        Raises:
            ConfigError: If a setting is unknown or invalid.
            ValueError: If the settings do not fit the run.
            InterruptedRunError: If the user stopped it.
        """
        from worldmodel.rl.agents import train_agent

        run = self.with_settings({"agent": settings})
        run.model = self.model
        return train_agent(run, run.config.agent, callbacks)

    def compare_agents(
        self,
        seeds: Sequence[int] = (0, 1, 2),
        *,
        pixels: bool = True,
        callbacks: Sequence[Callback] = (),
        **settings: Unpack[AgentOptions],
    ) -> dict[str, Any]:
        """Train agents on state, latents, dream and pixels with the same budget.

        Args:
            seeds: of the agents.
            pixels: whether to train agents on pixels, by far the slowest.
            callbacks: that show progress.
            settings: fields of `AgentConfig`.
        """
        from worldmodel.rl.compare import compare_agents

        run = self.with_settings({"agent": settings})
        run.model = self.model
        return compare_agents(run, run.config.agent, seeds, pixels=pixels, callbacks=callbacks)

    def export(self, to: str | Path, *, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
        """Write the model as one page (``NAME.html``) or as ONNX (a directory); see `export`."""
        from worldmodel.export import export

        return export(self, to, callbacks=callbacks)

    def require_decoder(self) -> None:
        """Raise ValueError if the model has no decoder, so that there is nothing to show."""
        if self.model.decoder is None:
            raise ValueError(
                f"{self.path} was trained on vectors and has no pictures to show; train on pixels"
            )

    def warn_if_one_action(self, callbacks: CallbackList) -> None:
        """Report that the training data held one action only, before the model is used to act."""
        if self.config.data.policy == "passive":
            callbacks.on_message(
                "This model was trained on one action only and cannot know what actions do; train "
                "one with --policy random",
                warning=True,
            )

    def describe(self) -> dict[str, Any]:
        """Describe what the run holds, as JSON values."""
        description: dict[str, Any] = {
            "path": str(self.path),
            "finished": self.finished,
            "config": self.read_config().model_dump(mode="json"),
            "parts": sorted(part.stem for part in (self.path / "models").glob("*.pth")),
        }
        if self.finished:
            if (angle := self.metrics.forecast.angle) is not None:
                forecast = {"angle_error": angle.error, "horizon_steps": angle.horizon.steps}
                description["forecast"] = forecast
            description["effective_rank"] = self.metrics.collapse.effective_rank
        return description

    def _require_fit(self, env: Any, actions: gym.Space[Any], observations: gym.Space[Any]) -> None:
        try:
            if self._spec_path.is_file():
                self.read_spec().require_fit(str(self.config.env.id), actions, observations)
        except ValueError:
            env.close()
            raise

    def _with_imagination(self, model: WorldModel) -> WorldModel:
        if self.has_imagination:
            model.starts, model.domain = self.load_imagination(model)
        return model


def load(path: str | Path, device: str = "auto", *, trust: bool = False) -> WorldModel:
    """Load a trained world model.

    Args:
        path: a run directory, as in ``results/pendulum_image_20260101_120000``, or ``hf://user/name``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        trust: import the code that an untrusted run names; see `worldmodel.trust`.

    Raises:
        RunError: If there is no finished run in the directory, a file is damaged, or the run is not
            trusted.
        ValueError: If there is no such device on this machine.
    """
    return Run(path, device, trust=trust).model


def make_env(
    run: Run | str | Path, render_mode: str | None = None, **env_kwargs: Any
) -> gym.Env[np.ndarray, Any]:
    """Make the real environment of a run; see `Run.make_env`, and `load` for a run of others."""
    return (run if isinstance(run, Run) else Run(run)).make_env(render_mode, **env_kwargs)
