"""Guards against exploiting model errors when an agent is trained in the dream."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from worldmodel.agent_config import AgentConfig, Ensemble
from worldmodel.callbacks import Callback, CallbackList
from worldmodel.data import ReplayBuffer
from worldmodel.errors import RunError
from worldmodel.files import load_tensors, save_tensors
from worldmodel.hyperparameters import Optimization
from worldmodel.imagination import LatentVectorEnv
from worldmodel.latents import encode_episodes
from worldmodel.models import WorldModel
from worldmodel.models.predictors import ResidualPredictor
from worldmodel.phases import predictor_phase
from worldmodel.run import Run

_SCALE_TRANSITIONS = 4096
"""Maximum number of training transitions whose median disagreement is the unit."""
_REWARD_SAMPLES = 4096
"""Maximum number of first transitions of imagined episodes to estimate the lowest reward."""


class PredictorEnsemble:
    """Predictors of the same latent, trained from different initial weights.

    Args:
        predictors: Two predictors or more.
        scale: Median disagreement of the predictors on training data.

    Raises:
        ValueError: If there are fewer than two predictors.
    """

    def __init__(self, predictors: Sequence[nn.Module], scale: float) -> None:
        if len(predictors) < 2:
            raise ValueError(f"an ensemble has {len(predictors)} predictors; expected 2 or more")
        self.predictors, self.scale = list(predictors), scale

    @torch.no_grad()
    def disagreement(self, z: Tensor, action: Tensor) -> Tensor:
        """Measure how much the predictors disagree, in units of the median on training data.

        It is the norm of the standard deviation of the next latent over the predictors.

        Args:
            z: float32 (B, D).
            action: float32 (B, A), action vectors.

        Returns:
            float32 (B,), 0 or more.
        """
        predictions = torch.stack([predictor(z, action) for predictor in self.predictors])
        spread: Tensor = predictions.std(0).norm(dim=-1)
        return spread / self.scale


class RandomMember:
    """Predicts each latent with a random predictor of an ensemble (MBPO, arXiv:1906.08253).

    Args:
        wm: The world model, for its action vectors.
        ensemble: The predictors.
        seed: Random seed of the choice.
    """

    def __init__(self, wm: WorldModel, ensemble: PredictorEnsemble, seed: int) -> None:
        self.wm, self.predictors = wm, ensemble.predictors
        self.rng = np.random.default_rng(seed)

    @torch.no_grad()
    def __call__(self, z: Tensor, actions: np.ndarray) -> Tensor:
        """Predict the next latents (B, D) of latents (B, D) and actions of B environments."""
        vectors = self.wm.action_vector(actions)
        predictions = torch.stack([predictor(z, vectors) for predictor in self.predictors])
        drawn = torch.as_tensor(self.rng.integers(len(self.predictors), size=len(z)))
        return predictions[drawn.to(z.device), torch.arange(len(z), device=z.device)]


def train_ensemble(
    wm: WorldModel,
    buffer: ReplayBuffer,
    settings: Ensemble,
    optimization: Optimization,
    *,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
) -> PredictorEnsemble:
    """Train predictors on the latents of training episodes.

    Args:
        wm: The world model, which encodes the episodes.
        buffer: Training episodes.
        settings: Size of the ensemble and hyperparameters of its training.
        optimization: Hyperparameters of each predictor's optimization; the learning rate is that
            of `settings`.
        seed: Random seed of episodes, weights and batches.
        callbacks: Callbacks that show progress.
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(buffer.num_episodes)[: settings.episodes])
    latents = encode_episodes(wm, buffer, chosen)
    optimization = optimization.model_copy(update={"learning_rate": settings.learning_rate})
    predictors = []
    with CallbackList(callbacks).task("ensemble", settings.size) as advance:
        for i in range(settings.size):
            predictor = _untrained(wm, seed + i)
            predictor_phase(
                f"ensemble {i}",
                predictor,
                [latents],
                optimization,
                updates=settings.updates,
                horizon=min(settings.horizon, int(latents.remaining.max())),
                seed=seed + i,
            ).run()
            predictors.append(predictor.requires_grad_(False).to(wm.device))
            advance(i + 1)
    rows = torch.as_tensor(rng.permutation(latents.starts(1).numpy())[:_SCALE_TRANSITIONS])
    z, actions = latents.z[rows].to(wm.device), latents.actions[rows].to(wm.device)
    disagreement = PredictorEnsemble(predictors, 1.0).disagreement(z, actions)
    return PredictorEnsemble(predictors, float(disagreement.median()))


def save_ensemble(path: Path, ensemble: PredictorEnsemble) -> None:
    """Write an ensemble to a file."""
    states = [predictor.state_dict() for predictor in ensemble.predictors]
    save_tensors(path, {"scale": ensemble.scale, "predictors": states})


def load_ensemble(path: Path, wm: WorldModel) -> PredictorEnsemble:
    """Read an ensemble that `save_ensemble` wrote, onto the model's device.

    Raises:
        RunError: If the file is missing or damaged.
    """
    hint = "delete it to train the ensemble again"
    content = load_tensors(path, hint, wm.device)
    predictors = []
    try:
        for state in content["predictors"]:
            predictor = _new_predictor(wm)
            predictor.load_state_dict(state)
            predictors.append(predictor.to(wm.device).requires_grad_(False))
        return PredictorEnsemble(predictors, float(content["scale"]))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"{path} is damaged ({error!r}); {hint}") from error


def find_ensemble(
    run: Run, settings: Ensemble, callbacks: Sequence[Callback] = ()
) -> PredictorEnsemble | None:
    """Load the run's ensemble with these settings, or train and save it if there is none yet.

    Returns:
        None if `settings.size` is 0.
    """
    if not settings.size:
        return None
    changed = settings.model_dump(exclude={"size", "penalty", "rollouts"}, exclude_defaults=True)
    name = "_".join([f"ensemble_{settings.size}", *(f"{k}{v}" for k, v in changed.items())])
    path = run.path / "models" / f"{name}.pt"
    if path.exists():
        return load_ensemble(path, run.model)
    watching = CallbackList(callbacks)
    watching.on_message(f"Training an ensemble of {settings.size} predictors, once for this run")
    with run.datasets([watching]) as data:
        optimization = run.config.refinement
        ensemble = train_ensemble(
            run.model, data.train, settings, optimization, callbacks=[watching]
        )
    save_ensemble(path, ensemble)
    return ensemble


def _untrained(wm: WorldModel, seed: int) -> ResidualPredictor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _new_predictor(wm)


def _new_predictor(wm: WorldModel) -> ResidualPredictor:
    return ResidualPredictor(wm.spec.latent_dim, wm.spec.actions.dim, wm.spec.hidden)


def guard(
    dream: LatentVectorEnv, config: AgentConfig, ensemble: PredictorEnsemble | None = None
) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Wrap a dream in the guards of a resolved configuration; its time limit stays as it is."""
    envs: gym.vector.VectorEnv[Any, Any, Any] = dream
    if ensemble is not None and config.ensemble.penalty:
        envs = DisagreementPenalty(envs, dream, ensemble, config.ensemble.penalty)
    if not config.leaving_terminates:
        return envs
    assert config.gamma is not None
    return LeavingTerminates(envs, dream, config.gamma)


class LeavingTerminates(gym.vector.VectorWrapper):
    """Imagined episodes that leave the domain terminate, at the lowest value.

    It is that of the lowest reward r_min in every step of the effective horizon, 1 / (1 - gamma)
    steps, or of an imagined episode if that is shorter.

    Args:
        env: The dream, or a wrapper of it.
        dream: The dream itself.
        gamma: Discount factor, below 1.
    """

    def __init__(
        self, env: gym.vector.VectorEnv[Any, Any, Any], dream: LatentVectorEnv, gamma: float
    ) -> None:
        super().__init__(env)
        steps = min(1.0 / (1.0 - gamma), dream.max_episode_steps)
        self.lowest_value = lowest_reward(dream) * steps

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step all N imagined episodes."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        left = info["out_of_domain"]
        rewards = np.where(left, rewards + self.lowest_value, rewards)
        return observations, rewards, terminated | left, truncated & ~left, info


class DisagreementPenalty(gym.vector.VectorWrapper):
    """Rewards are lowered in proportion to the ensemble's disagreement.

    Args:
        env: The dream, or a wrapper of it.
        dream: The dream itself.
        ensemble: Predictors of the same latent.
        penalty: Reward per unit of disagreement.
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv[Any, Any, Any],
        dream: LatentVectorEnv,
        ensemble: PredictorEnsemble,
        penalty: float,
    ) -> None:
        super().__init__(env)
        self.dream, self.ensemble, self.penalty = dream, ensemble, penalty

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step all N imagined episodes."""
        vectors = self.dream.wm.action_vector(np.asarray(actions))
        disagreement = self.ensemble.disagreement(self.dream.latents, vectors).cpu().numpy()
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        return observations, rewards - self.penalty * disagreement, terminated, truncated, info


@torch.no_grad()
def lowest_reward(dream: LatentVectorEnv) -> float:
    """Estimate r_min, at most 0: the lowest reward of first steps under random actions."""
    starts = dream.starts[:_REWARD_SAMPLES]
    dream.single_action_space.seed(0)
    actions = np.stack([dream.single_action_space.sample() for _ in starts])
    reward, _ = dream.wm.outcome(starts, actions, dream.wm.predict(starts, actions))
    return min(0.0, float(reward.min()))
