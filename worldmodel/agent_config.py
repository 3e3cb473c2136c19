"""Hyperparameters of agents: the section `agent` of the configuration, see `hyperparameters`."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from worldmodel.hyperparameters import Section


class Ensemble(Section):
    """Predictors whose disagreement lowers imagined rewards.

    Attributes:
        size: predictors; 0 for no penalty, else 2 or more.
        penalty: reward per unit of disagreement, the median of which is 1 on training data.
        rollouts: each step of an imagined episode is predicted by a predictor drawn at random from
            the ensemble, instead of the model's own.
        updates: of each predictor.
        episodes: training episodes used, at most.
        horizon: steps unrolled, at most.
        learning_rate: peak of each predictor's schedule.
    """

    size: int = Field(default=0, ge=0)
    penalty: float = Field(default=0.02, ge=0)
    rollouts: bool = False
    updates: int = Field(default=600, ge=1)
    episodes: int = Field(default=2000, ge=1)
    horizon: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=5e-3, gt=0)

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if self.size == 1:
            raise ValueError("one predictor has nothing to disagree with; use 0, or 2 and more")
        return self


class Candidates(Section):
    """Agents of different seeds, of which the best in the real environment is kept.

    Attributes:
        count: agents that are trained; 1 for no choice.
        episodes: real episodes that each of them plays, with deterministic actions and on
            validation seeds; their steps count as real steps.
    """

    count: int = Field(default=1, ge=1)
    episodes: int = Field(default=5, ge=1, le=10_000)


class Loop(Section):
    """Rounds of acting in the real environment, fine-tuning the model and training in the dream.

    Attributes:
        rounds: after the first training in the dream; 0 for no loop.
        patience: rounds without improvement after which the loop ends.
        min_improvement: relative improvement of the return that counts.
        episodes: real episodes per round.
        max_steps: longest of those episodes.
        validation_episodes: further real episodes per round, with deterministic actions and on
            validation seeds, by whose return the rounds are compared; 0 to compare them by the
            collected episodes.
        noise: standard deviation of exploration noise, in half ranges of a Box action.
        fresh_fraction: fraction of the agent's own episodes in a batch.
        replay_episodes: episodes of the first data that stay in use, at most.
        updates: of predictor and heads per round.
        learning_rate: peak of their schedule.
    """

    rounds: int = Field(default=0, ge=0)
    patience: int = Field(default=2, ge=1)
    min_improvement: float = Field(default=0.01, ge=0)
    episodes: int = Field(default=20, ge=1)
    max_steps: int = Field(default=1000, ge=1)
    validation_episodes: int = Field(default=0, ge=0, le=10_000)
    noise: float = Field(default=0.2, ge=0)
    fresh_fraction: float = Field(default=0.5, gt=0, lt=1)
    replay_episodes: int = Field(default=3000, ge=1)
    updates: int = Field(default=400, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)


class AgentConfig(Section):
    """An agent of Stable-Baselines3.

    Attributes:
        on: what it is trained on: ``latent``, ``dream``, ``pixels`` or ``state``.
        algo: ``ppo``, ``a2c``, ``sac``, ``td3``, ``ddpg`` or ``dqn``.
        steps: environment steps of training, imagined ones for ``dream``.
        seed: of weights and exploration.
        num_envs: environments at once; None for 128 in the dream and for the environment's tuned
            number elsewhere (`worldmodel.rl.tuned`), or 32 if it has none.
        gamma: discount factor; None for the environment's tuned one, or 0.98 if it has none.
        kwargs: further arguments of the algorithm, as ``{"learning_rate": 3e-4}``; ``lin_3e-4`` is
            a linear decay to 0, ``lin_1e-3_1e-4`` one to 1e-4.
        normalize_rewards: divide the rewards of the training by the running standard deviation of
            the discounted return and clip them to ±10 (`VecNormalize` of Stable-Baselines3).
        dream_steps: maximum imagined rollout length.
        leaving_terminates: an imagined rollout that leaves the domain terminates at the lowest
            value, see `worldmodel.rl.guards.LeavingTerminates`; otherwise it is truncated and the
            value of its last latent counts.
        eval_points: evaluations of the learning curve.
        eval_episodes: episodes per evaluation.
        max_eval_steps: steps after which an evaluation episode without end is cut.
    """

    on: Literal["latent", "dream", "pixels", "state"] = "dream"
    algo: Literal["ppo", "a2c", "sac", "td3", "ddpg", "dqn"] = "ppo"
    steps: int = Field(default=200_000, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    num_envs: int | None = Field(default=None, ge=1)
    gamma: float | None = Field(default=None, ge=0, lt=1)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    normalize_rewards: bool = False
    dream_steps: int = Field(default=50, ge=1)
    leaving_terminates: bool = True
    eval_points: int = Field(default=10, ge=1)
    eval_episodes: int = Field(default=20, ge=1, le=10_000)
    max_eval_steps: int = Field(default=10_000, ge=1)
    ensemble: Ensemble = Ensemble()
    candidates: Candidates = Candidates()
    loop: Loop = Loop()

    @model_validator(mode="after")
    def _check_rounds(self) -> Self:
        if self.ensemble.rollouts and self.loop.rounds:
            raise ValueError(
                "rounds fine-tune the model's own predictor, which ensemble.rollouts replaces; set "
                "loop.rounds to 0 or ensemble.rollouts to false"
            )
        if self.candidates.count > 1 and self.loop.rounds:
            raise ValueError(
                "rounds train one agent further, and candidates are several agents; set "
                "agent.loop.rounds (--rounds) to 0 or agent.candidates.count (--candidates) to 1"
            )
        return self

    def to_json(self) -> dict[str, Any]:
        """Return all settings as JSON values; of other values, as classes, the ``repr``."""
        return self.model_dump(mode="json", fallback=repr)
