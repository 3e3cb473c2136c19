"""The loop: act in the real environment, fine-tune the model, and train in the dream again.

Fine-tuning unrolls the predictor for `objective.horizon` steps, as phase 1 does, or for fewer where
the longest episode of the training data or of the agent has fewer.
"""

from __future__ import annotations

import copy
import shutil
import statistics
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import FiniteFloat
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from typing_extensions import TypedDict

from worldmodel.agent_config import AgentConfig, Loop
from worldmodel.callbacks import Callback, CallbackList
from worldmodel.data import ReplayBuffer, collect
from worldmodel.data.datasets import TRAINING_OVERFLOW, collect_kwargs, split_seeds
from worldmodel.errors import InterruptedRunError, RunError
from worldmodel.files import read_record, write_json
from worldmodel.imagination.domain import domain_of, require_domain
from worldmodel.latents import LatentEpisodes, concatenate, encode_episodes
from worldmodel.phases import heads_phase, predictor_phase
from worldmodel.rl.agents import (
    finalize,
    learn,
    load_agent,
    make_agent,
    open_envs,
    results_folder,
    save_agent,
)
from worldmodel.rl.envs import AgentEnvs
from worldmodel.rl.evaluation import Curve, real_evaluation
from worldmodel.rl.explorer import Explorer
from worldmodel.rl.guards import PredictorEnsemble, find_ensemble
from worldmodel.run import Run

_FIRST_SEED = TRAINING_OVERFLOW + 500_000


class Round(TypedDict):
    """A finished round: its number, the real steps so far, and the mean return of its agent."""

    round: int
    real_steps: int
    mean: FiniteFloat


class RewardStatistics(TypedDict):
    """Running mean and variance of the discounted returns by which rewards are normalized."""

    mean: FiniteFloat
    var: FiniteFloat
    count: FiniteFloat


@dataclass
class LoopState:
    """The finished rounds, and the learning curve over all of them."""

    rounds: list[Round] = field(default_factory=list)
    curve: Curve = field(default_factory=Curve)

    def __post_init__(self) -> None:
        if [finished["round"] for finished in self.rounds] != list(range(len(self.rounds))):
            raise ValueError("the rounds are not numbered from 0")

    def best_round(self, settings: Loop) -> int:
        """Find the round with the best return; a later one has to improve on it to count."""
        best = 0
        for each in self.rounds[1:]:
            before = self.rounds[best]["mean"]
            if each["mean"] > before + settings.min_improvement * abs(before):
                best = int(each["round"])
        return best

    def improving(self, settings: Loop) -> bool:
        """Whether one of the last `settings.patience` rounds was the best."""
        return len(self.rounds) - 1 - self.best_round(settings) < settings.patience


def train_with_rounds(
    run: Run, config: AgentConfig, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Train an agent in the dream, collect real episodes with it, fine-tune the model, and repeat.

    Round 0 trains an agent and collects episodes. Each of the `config.loop.rounds` rounds after it
    fine-tunes the model, trains the agent further in the dream and collects episodes. The loop ends
    early after `config.loop.patience` rounds without improvement; the agent with the best return is
    evaluated. The same call resumes an interrupted loop after its last finished round, also with
    more rounds. ``rl/NAME_loop`` of the run directory holds ``agent_N.zip``, ``experience/N`` and
    ``model_N``, a run directory, for each round N.

    Args:
        run: A finished run.
        config: Configuration of the agent.
        callbacks: Callbacks that show progress and messages.

    Returns:
        See `train_agent`; with `rounds`, `best_round` and `model` (the run directory of the last
        round), and `real_steps` of all episodes that were collected or chose the best agent.

    Raises:
        RunError: If the run is not finished, or a file is damaged or cannot be written.
        ValueError: If the configuration does not fit the run or is inconsistent.
        InterruptedRunError: If the user stopped it; the finished rounds are kept.
    """
    watching = CallbackList(callbacks)
    envs = open_envs(run, config, watching)
    ensemble = find_ensemble(run, config.ensemble, [watching])
    loop = _Rounds(envs, config, ensemble, results_folder(run, config), watching)
    state = loop.read_state()
    try:
        while len(state.rounds) <= config.loop.rounds and state.improving(config.loop):
            state = loop.next_round(state)
        return loop.finish(state)
    except KeyboardInterrupt as stopped:
        raise InterruptedRunError(
            f"Stopped in round {len(state.rounds)}; the finished rounds are kept, and the same "
            "command resumes after them"
        ) from stopped
    except OSError as error:
        # copytree reports (source, target, reason) of every file that it could not copy
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error
        raise RunError(
            f"round {len(state.rounds)} failed: {reason}; the finished rounds are kept, and the "
            "same command resumes after them"
        ) from error


@dataclass(frozen=True)
class _Rounds:
    """The steps and the files of a round."""

    envs: AgentEnvs
    config: AgentConfig
    ensemble: PredictorEnsemble | None
    folder: Path
    callbacks: CallbackList

    @property
    def hint(self) -> str:
        return f"delete {self.folder} to start the loop from scratch"

    @property
    def state_file(self) -> Path:
        return self.folder / "loop.json"

    def agent(self, number: int) -> Path:
        return self.folder / f"agent_{number}.zip"

    def reward_statistics(self, number: int) -> Path:
        return self.folder / f"reward_statistics_{number}.json"

    def model(self, number: int) -> Path:
        return self.folder / f"model_{number}"

    def experience(self, number: int) -> Path:
        return self.folder / "experience" / f"{number}"

    def read_state(self) -> LoopState:
        """Read the finished rounds; an empty directory has none."""
        if self.state_file.exists():
            return read_record(self.state_file, LoopState, self.hint)
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(not entry.name.startswith(".") for entry in self.folder.iterdir()):
            raise RunError(f"{self.state_file} is missing beside the files of rounds; {self.hint}")
        write_json(self.state_file, asdict(LoopState()))
        return LoopState()

    def next_round(self, state: LoopState) -> LoopState:
        """Fine-tune, train in the dream and collect; then record the round as finished."""
        number = len(state.rounds)
        envs = self.open_model(number)
        curve = copy.deepcopy(state.curve)
        agent = self.train_in_dream(envs, number, curve)
        mean, steps = self.collect_episodes(envs, number)
        if self.config.loop.validation_episodes:
            mean, validation_steps = self.validate(envs, agent)
            steps += validation_steps
        total = steps + (state.rounds[-1]["real_steps"] if state.rounds else 0)
        finished = Round(round=number, real_steps=total, mean=mean)
        state = LoopState([*state.rounds, finished], curve)
        write_json(self.state_file, asdict(state))
        self.callbacks.on_message(f"Round {number}: return {mean:.1f}, {total} real steps so far")
        return state

    def finish(self, state: LoopState) -> dict[str, Any]:
        """Evaluate the best agent on latents within the bounds of its own round's model."""
        best = state.best_round(self.config.loop)
        envs = self.open_model(best)
        space = require_domain(envs.wm).space
        return finalize(
            envs,
            self.config,
            load_agent(self.config, self.agent(best), envs.action_space, space, self.hint),
            state.curve,
            self.folder,
            model_data_steps=self.envs.model_data_steps,
            rounds=state.rounds,
            best_round=best,
            model=str(self.model(len(state.rounds) - 1)),
            real_steps=state.rounds[-1]["real_steps"],
        )

    def open_model(self, number: int) -> AgentEnvs:
        """Open the model of a round; if there is none yet, make it from the previous round's.

        Raises:
            RunError: If the previous model is damaged or incomplete.
            OSError: If a file cannot be copied or written, e.g. on a full disk.
        """
        device = str(self.envs.wm.device)
        if not self.model(number).exists():
            source = self.model(number - 1) if number else self.envs.run.path
            unfinished = self.folder / "model.tmp"
            shutil.rmtree(unfinished, ignore_errors=True)
            try:
                shutil.copytree(source / "models", unfinished / "models")
                for name in ("config.yaml", "signature"):
                    if (source / name).exists():
                        shutil.copy(source / name, unfinished)
                run = Run(unfinished, device, trust=self.envs.run.trust)
                AgentEnvs(run, "dream")
            except (RunError, ValueError, FileNotFoundError, NotADirectoryError) as error:
                raise RunError(f"{source} is damaged or incomplete; {self.hint}") from error
            if number:
                self.fine_tune(run, number)
            unfinished.rename(self.model(number))
        return AgentEnvs(Run(self.model(number), device, trust=self.envs.run.trust), "dream")

    def train_in_dream(self, envs: AgentEnvs, number: int, curve: Curve) -> BaseAlgorithm:
        """Train the previous round's agent, or a new one, save it and return it."""
        config = self.config.model_copy(update={"seed": self.config.seed + 1000 * number})
        with closing(envs.training(config, self.ensemble)) as training:
            if number:
                self.restore_statistics(training, number - 1)
                spaces = training.action_space, training.observation_space
                agent = load_agent(config, self.agent(number - 1), *spaces, self.hint)
                agent.set_env(training)
                agent.set_random_seed(config.seed)
                agent.tensorboard_log = str(self.folder / "tensorboard")
            else:
                agent = make_agent(config, training, self.folder / "tensorboard")
            task = f"dream, round {number}"
            if learn(agent, envs, config, curve, task, [self.callbacks]):
                raise KeyboardInterrupt
            self.save_statistics(training, number)
        save_agent(agent, self.agent(number))
        return agent

    def save_statistics(self, training: VecEnv, number: int) -> None:
        """Save the scale of normalized rewards, on which the value function depends."""
        if isinstance(training, VecNormalize):
            kept = training.ret_rms
            statistics = RewardStatistics(
                mean=float(kept.mean), var=float(kept.var), count=float(kept.count)
            )
            write_json(self.reward_statistics(number), statistics)

    def restore_statistics(self, training: VecEnv, number: int) -> None:
        """Normalize rewards as at the end of a round."""
        if isinstance(training, VecNormalize):
            kept = read_record(self.reward_statistics(number), RewardStatistics, self.hint)
            for name, value in kept.items():
                setattr(training.ret_rms, name, value)

    def validate(self, envs: AgentEnvs, agent: BaseAlgorithm) -> tuple[float, int]:
        """Play episodes on validation seeds; return their mean return and number of steps."""
        seeds = split_seeds("validation", self.config.loop.validation_episodes)
        with real_evaluation(envs, self.config, seeds) as evaluate:
            result = evaluate(agent)
        return result["mean"], sum(result["steps"])

    def collect_episodes(self, envs: AgentEnvs, number: int) -> tuple[float, int]:
        """Collect episodes with the round's agent; return their mean return and number of steps."""
        settings = self.config.loop
        first = _FIRST_SEED + max(1000, settings.episodes) * number + 100_000 * self.config.seed
        path = self.experience(number)
        shutil.rmtree(path, ignore_errors=True)
        config = envs.run.config
        with (
            self.callbacks.task(f"real episodes, round {number}", settings.episodes) as advance,
            collect(
                **collect_kwargs(config) | {"env_kwargs": config.env.kwargs},
                path=path,
                episodes=settings.episodes,
                seeds=range(first, first + settings.episodes),
                steps=settings.max_steps,
                policy=Explorer(envs.wm, self.agent(number), self.config.algo, settings.noise),
                workers=config.data.workers,
                progress=advance,
            ) as buffer,
        ):
            episodes = [buffer.windows([i], [0], int(n)) for i, n in enumerate(buffer.lengths)]
            returns = [float(episode.rewards.sum()) for episode in episodes]
            return statistics.fmean(returns), buffer.num_transitions

    def fine_tune(self, run: Run, number: int) -> None:
        """Fine-tune a run's model on its training data and the episodes of earlier rounds."""
        self.callbacks.on_message(f"Round {number}: fine-tuning on the agent's episodes")
        seed = self.config.seed
        with run.datasets([self.callbacks]) as data:
            order = np.random.default_rng((seed, number)).permutation(data.train.num_episodes)
            kept = np.sort(order[: self.config.loop.replay_episodes])
            replayed = encode_episodes(run.model, data.train, kept)
        fresh = []
        for earlier in range(number):
            with ReplayBuffer.open(self.experience(earlier)) as buffer:
                every = np.arange(buffer.num_episodes)
                fresh.append(encode_episodes(run.model, buffer, every))
        fine_tune(run, replayed, concatenate(fresh), self.config.loop, seed + number)


def fine_tune(
    run: Run, replayed: LatentEpisodes, fresh: LatentEpisodes, settings: Loop, seed: int
) -> None:
    """Fine-tune predictor, heads and domain of a run's model, and save them.

    The encoder does not change, so that agents, probes and the decoder remain valid. The predictor
    is unrolled for `objective.horizon` steps, or for as many as the longest episodes of both parts
    have.

    Args:
        run: Run whose model is trained in place.
        replayed: Episodes of the training data.
        fresh: Episodes of the agent.
        settings: Number of updates, learning rate, and fraction of `fresh` in a batch.
        seed: Random seed of the batches and of the domain.
    """
    wm, config, parts = run.model, run.config, (replayed, fresh)
    names = ("predictor", *wm.spec.heads)
    modules = [getattr(wm, name) for name in names]
    for module in modules:
        module.requires_grad_(True)
    rate = {"learning_rate": settings.learning_rate}
    shared: dict[str, Any] = {
        "updates": settings.updates,
        "seed": seed,
        "fractions": (1.0 - settings.fresh_fraction, settings.fresh_fraction),
    }
    if list(wm.predictor.parameters()):
        predictor_phase(
            "predictor",
            wm.predictor,
            parts,
            config.refinement.model_copy(update=rate),
            horizon=min(config.objective.horizon, *(int(p.remaining.max()) for p in parts)),
            **shared,
        ).run()
    heads = {**rate, "batch_size": config.phase2.head_batch_size}
    heads_phase(wm, parts, config.phase2.model_copy(update=heads), **shared).run()
    for module in modules:
        module.requires_grad_(False)
    run.save_weights(wm, names)
    _refit_domain(run, parts, seed)


def _refit_domain(run: Run, parts: Sequence[LatentEpisodes], seed: int) -> None:
    """Fit the domain to training data and new episodes in equal numbers, and draw starts."""
    settings, rng = run.config.evaluation, np.random.default_rng(seed)
    count = settings.domain_observations // len(parts)
    rows = [rng.permutation(len(part.z))[:count] for part in parts]
    z = torch.cat([part.z[r] for part, r in zip(parts, rows)]).to(run.model.device)
    episodes = np.concatenate([part.episodes()[r] for part, r in zip(parts, rows)])
    terminal = torch.cat([part.terminal()[r] for part, r in zip(parts, rows)])
    alive = rng.permutation(torch.nonzero(~terminal)[:, 0].numpy())
    starts = z[torch.as_tensor(alive[: settings.starts])]
    run.save_imagination(starts, domain_of(z, episodes % 2 == 0, settings.ood_false_positive_rate))
