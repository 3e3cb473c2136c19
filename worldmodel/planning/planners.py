"""Planners: optimizers of action sequences (CEM, iCEM, MPPI).

`planning.method` chooses one by its short name in `worldmodel.registry.PLANNERS` or by
``module:Name``: a class or function that returns a `TrajectoryOptimizer` and takes `samples`,
`iterations` and `planning.kwargs`, all optional. `search` runs without gradients; a planner that
needs them uses ``torch.enable_grad``.

Candidates have shape (H, B, N, A): H steps ahead, B problems that are solved side by side, N
candidates per problem, A numbers per action in [-1, 1]. A score maps them to values (B, N), the
higher the better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from worldmodel.errors import ConfigError
from worldmodel.registry import PLANNERS, reference

Score = Callable[[Tensor], Tensor]
"""Maps candidates (H, B, N, A) to values (B, N)."""

MAX_ACTION = 1.0


class Search(NamedTuple):
    """The result of a search, from which the next one can start.

    Attributes:
        actions: float32 (H, B, A), the actions to take.
        mean: float32 (H, B, A), of the last distribution.
        elites: float32 (H, B, E, A), the best candidates, best first; E may be 0.
    """

    actions: Tensor
    mean: Tensor
    elites: Tensor

    @classmethod
    def zeros(cls, horizon: int, problems: int, size: int, device: torch.device) -> Search:
        """A search with zero actions and no elites.

        Args:
            horizon: H.
            problems: B.
            size: A.
            device: of the tensors.
        """
        zeros = torch.zeros(horizon, problems, size, device=device)
        return cls(zeros, zeros, zeros[:, :, None][:, :, :0])

    def shifted(self) -> Search:
        """The search one step later: without the first action, the last one repeated."""
        return Search(*(torch.cat([part[1:], part[-1:]]) for part in self))


class TrajectoryOptimizer(Protocol):
    """Finds action sequences with high scores."""

    def search(self, score: Score, initial: Search, generator: torch.Generator) -> Search:
        """Search for each problem.

        Args:
            score: maps candidates (H, B, N, A) to values (B, N).
            initial: where to start; its mean gives H, B and A.
            generator: source of all random draws, on the device of `initial`.
        """


@dataclass(frozen=True)
class CEM:
    """Cross-entropy method (Rubinstein and Kroese, 2004), with the additions of iCEM.

    Each iteration draws candidates from a Gaussian and fits the next Gaussian to the best of them.
    The defaults are plain CEM; `icem` sets the additions (Pinneri et al., "Sample-efficient
    Cross-Entropy Method for Real-time Planning", arXiv:2008.06389).

    Args:
        samples: candidates N in the first iteration.
        iterations: how often candidates are drawn and the Gaussian is fitted.
        elites: best candidates, to which the Gaussian is fitted.
        spread: initial standard deviation of the sampling Gaussian; actions are in [-1, 1].
        noise_exponent: exponent β of the noise over time, whose power falls as 1 / f^β; 0 is white.
        kept: fraction of the elites reused as candidates of the next iteration and next search.
        decay: factor by which N shrinks with each iteration.
        follows_best: return the best candidate of the last iteration instead of the mean.

    Raises:
        ValueError: If there are fewer than 2 elites, fewer samples than elites, or no iteration.
    """

    samples: int = 300
    iterations: int = 5
    elites: int = 30
    spread: float = 1.0
    noise_exponent: float = 0.0
    kept: float = 0.0
    decay: float = 1.0
    follows_best: bool = False

    def __post_init__(self) -> None:
        if self.iterations < 1 or not 2 <= self.elites <= self.samples:
            raise ValueError(
                f"samples={self.samples}, elites={self.elites}, iterations={self.iterations} is "
                "not valid; expected at least 2 elites, at least as many samples as elites, and at "
                "least 1 iteration"
            )

    def search(self, score: Score, initial: Search, generator: torch.Generator) -> Search:
        """Search for each problem; see `TrajectoryOptimizer`."""
        mean, elites = initial.mean, initial.elites
        std = torch.full_like(mean, self.spread)
        count = round(self.kept * self.elites)
        for iteration in range(self.iterations):
            samples = max(self.elites, round(self.samples * self.decay**-iteration))
            drawn = _draw(mean, std, samples, self.noise_exponent, generator)
            if self.follows_best and iteration == self.iterations - 1:
                drawn[:, :, 0] = mean
            candidates = torch.cat([drawn, elites[:, :, :count]], 2)
            values = score(candidates)
            best = values.topk(self.elites, dim=1).indices  # (B, E)
            elites = _pick(candidates, best)
            mean, std = elites.mean(2), elites.std(2)
        return Search(elites[:, :, 0] if self.follows_best else mean, mean, elites[:, :, :count])


def cem(samples: int = 150, iterations: int = 3) -> CEM:
    """Make plain CEM with at most a fifth of the samples as elites."""
    return CEM(samples, iterations, elites=max(2, min(15, samples // 5)))


def icem(samples: int = 96, iterations: int = 3, elites: int | None = None) -> CEM:
    """Make iCEM: colored noise, elite reuse, shrinking populations, and the best candidate.

    Args:
        samples: candidates in the first iteration.
        iterations: of the search.
        elites: by default 10, but at most a fifth of the samples.
    """
    return CEM(
        samples=samples,
        iterations=iterations,
        elites=max(2, min(10, samples // 5)) if elites is None else elites,
        spread=0.7,
        noise_exponent=2.0,
        kept=0.3,
        decay=1.25,
        follows_best=True,
    )


@dataclass(frozen=True)
class MPPI:
    """Model predictive path integral control (Williams et al., arXiv:1509.01149, Algorithm 2).

    Each iteration moves the mean to the average of the candidates, weighted by exp(value / λ). λ is
    in units of the standard deviation of the candidates' values, so it suits rewards of any scale.

    Args:
        samples: candidates N.
        iterations: how often candidates are drawn and averaged.
        spread: standard deviation, in half ranges of the action.
        temperature: λ.
        noise_exponent: see `CEM`.

    Raises:
        ValueError: If there are fewer than 2 samples, or no iteration.
    """

    samples: int = 256
    iterations: int = 1
    spread: float = 0.7
    temperature: float = 0.2
    noise_exponent: float = 2.0

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.samples < 2:
            raise ValueError(
                f"samples={self.samples}, iterations={self.iterations} is not valid; expected at "
                "least 2 samples and at least 1 iteration"
            )

    def search(self, score: Score, initial: Search, generator: torch.Generator) -> Search:
        """Search for each problem; see `TrajectoryOptimizer`."""
        mean = initial.mean
        std = torch.full_like(mean, self.spread)
        for _ in range(self.iterations):
            candidates = _draw(mean, std, self.samples, self.noise_exponent, generator)
            candidates[:, :, 0] = mean
            values = score(candidates)  # (B, N)
            scale = self.temperature * values.std(1, keepdim=True) + 1e-8
            weights = ((values - values.amax(1, keepdim=True)) / scale).softmax(1)
            mean = (candidates * weights[None, :, :, None]).sum(2)
        return Search(mean, mean, mean[:, :, None][:, :, :0])


def make_planner(
    method: str, samples: int | None = None, iterations: int | None = None, **kwargs: Any
) -> TrajectoryOptimizer:
    """Make a planner by its name.

    Args:
        method: a short name in `PLANNERS`, or ``module:Name``.
        samples: candidates per iteration; None for the planner's own.
        iterations: of the search; None for the planner's own.
        kwargs: further arguments of the planner.

    Raises:
        ConfigError: If there is no such planner, or it does not take the numbers.
        ValueError: If the numbers are not valid.
    """
    make = PLANNERS.resolve(method)
    given = {"samples": samples, "iterations": iterations, **kwargs}
    try:
        planner = make(**{name: value for name, value in given.items() if value is not None})
    except TypeError as error:
        raise ConfigError(f"cannot construct the planner {method!r}: {error}") from error
    if not callable(getattr(planner, "search", None)):
        raise ConfigError(
            f"the planner {method!r} makes a {type(planner).__name__} without a `search` method; "
            "expected a TrajectoryOptimizer, see worldmodel/planning/planners.py"
        )
    found: TrajectoryOptimizer = planner
    return found


def planner_settings(planner: TrajectoryOptimizer) -> dict[str, Any]:
    """Return the settings of a planner by name; of one that is not built in, also its `class`."""
    name = {} if isinstance(planner, (CEM, MPPI)) else {"class": reference(type(planner))}
    return {**name, **vars(planner)}


def _draw(
    mean: Tensor, std: Tensor, samples: int, exponent: float, generator: torch.Generator
) -> Tensor:
    """Draw candidates (H, B, N, A) around a mean (H, B, A), clipped to the range of actions."""
    steps, problems, size = mean.shape
    noise = _noise((problems, samples, size, steps), exponent, generator, mean.device)
    spread = noise.permute(3, 0, 1, 2) * std[:, :, None]
    return (mean[:, :, None] + spread).clamp(-MAX_ACTION, MAX_ACTION)


def _noise(
    shape: tuple[int, ...], exponent: float, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Draw Gaussian noise of unit variance, with power 1 / f^exponent along the last axis."""
    white = torch.randn(shape, generator=generator, device=device)
    if exponent == 0.0 or shape[-1] == 1:
        return white
    spectrum = torch.fft.rfft(white)
    frequency = torch.arange(spectrum.shape[-1], device=device).clamp(min=1)
    gain = frequency ** (-exponent / 2)
    power = gain.square()
    power[1 : (shape[-1] + 1) // 2] *= 2  # frequencies of both signs, except 0 and the last one
    colored: Tensor = torch.fft.irfft(spectrum * gain, n=shape[-1])
    return colored * (shape[-1] / power.sum()).sqrt()


def _pick(candidates: Tensor, indices: Tensor) -> Tensor:
    """Select candidates (H, B, N, A) at indices (B, E): (H, B, E, A)."""
    steps, _, _, size = candidates.shape
    index = indices[None, :, :, None].expand(steps, -1, -1, size)
    return candidates.gather(2, index)
