"""Optimisers of action sequences that only sample: CEM, iCEM and MPPI.

Candidates have shape (H, B, N, A): H steps ahead, B problems solved side by side, N candidates of
each, A numbers an action. A score maps them to (B, N), the higher the better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]
"""Candidates (H, B, N, A) to values (B, N)."""

MAX_ACTION = 1.0


class Search(NamedTuple):
    """What one search found and what the next may begin with.

    Attributes:
        actions: float32 (H, B, A), to follow.
        mean: float32 (H, B, A), of the distribution that was searched last.
        elites: float32 (H, B, E, A), the best candidates, best first; E may be 0.
    """

    actions: Tensor
    mean: Tensor
    elites: Tensor

    def shifted(self) -> Search:
        """One step later: the first action is over, the last is repeated."""
        return Search(*(torch.cat([part[1:], part[-1:]]) for part in self))


class Optimizer(Protocol):
    """Finds action sequences that score high."""

    def search(self, score: Score, begin: Search, generator: torch.Generator) -> Search:
        """Search near `begin`, whose mean gives H, B and A."""


@dataclass(frozen=True)
class CEM:
    """The cross-entropy method (Rubinstein and Kroese, 2004), with the additions of iCEM.

    A Gaussian is fitted again and again to the best of the candidates drawn from it. As they stand
    the defaults are plain CEM; `icem` sets the additions (Pinneri et al., "Sample-efficient
    Cross-Entropy Method for Real-time Planning", arXiv:2008.06389).

    Args:
        samples: N, in the first iteration.
        iterations: Of drawing and fitting.
        elites: Best candidates that the Gaussian is fitted to.
        spread: First standard deviation, in half ranges of the action.
        noise_exponent: β of the noise over time, whose power falls as 1 / f^β; 0 is white.
        kept: Share of the elites that join the next iteration's candidates, and the next search's.
        decay: Factor by which N shrinks with each iteration.
        follows_best: Follow the best candidate seen, not the mean.
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
                f"a search with {self.samples} samples, {self.elites} elites and "
                f"{self.iterations} iterations cannot be made; it needs at least 2 elites, no "
                "fewer samples than elites, and 1 iteration"
            )

    def search(self, score: Score, begin: Search, generator: torch.Generator) -> Search:
        """See `Optimizer`."""
        mean, elites = begin.mean, begin.elites
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


def icem(samples: int = 96, iterations: int = 3, elites: int = 10) -> CEM:
    """iCEM: noise with memory, kept elites, shrinking populations, the best candidate followed."""
    return CEM(
        samples=samples,
        iterations=iterations,
        elites=elites,
        spread=0.7,
        noise_exponent=2.0,
        kept=0.3,
        decay=1.25,
        follows_best=True,
    )


@dataclass(frozen=True)
class MPPI:
    """Model predictive path integral control (Williams et al., arXiv:1509.01149, Algorithm 2).

    The mean moves to the average of the candidates weighted by exp(value / λ). λ is given in
    standard deviations of the candidates' values, so that it fits rewards of any scale.

    Args:
        samples: N.
        iterations: Of drawing and averaging.
        spread: Standard deviation, in half ranges of the action.
        temperature: λ.
        noise_exponent: See `CEM`.
    """

    samples: int = 256
    iterations: int = 1
    spread: float = 0.7
    temperature: float = 0.2
    noise_exponent: float = 2.0

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.samples < 2:
            raise ValueError(
                f"a search with {self.samples} samples and {self.iterations} iterations cannot be "
                "made; it needs at least 2 samples and 1 iteration"
            )

    def search(self, score: Score, begin: Search, generator: torch.Generator) -> Search:
        """See `Optimizer`."""
        mean = begin.mean
        std = torch.full_like(mean, self.spread)
        for _ in range(self.iterations):
            candidates = _draw(mean, std, self.samples, self.noise_exponent, generator)
            candidates[:, :, 0] = mean
            values = score(candidates)  # (B, N)
            scale = self.temperature * values.std(1, keepdim=True) + 1e-8
            weights = ((values - values.amax(1, keepdim=True)) / scale).softmax(1)
            mean = (candidates * weights[None, :, :, None]).sum(2)
        return Search(mean, mean, mean[:, :, None][:, :, :0])


METHODS: dict[str, CEM | MPPI] = {"cem": CEM(150, 3, 15), "icem": icem(), "mppi": MPPI()}


def make_optimizer(
    method: str, samples: int | None = None, iterations: int | None = None
) -> CEM | MPPI:
    """An optimiser by its name, with another number of samples or iterations if given.

    Raises:
        ValueError: There is no such method, or the numbers do not fit.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    optimizer = METHODS[method]
    samples, iterations = samples or optimizer.samples, iterations or optimizer.iterations
    if isinstance(optimizer, MPPI):
        return replace(optimizer, samples=samples, iterations=iterations)
    elites = max(2, min(optimizer.elites, samples // 5))
    return replace(optimizer, samples=samples, iterations=iterations, elites=elites)


def _draw(
    mean: Tensor, std: Tensor, samples: int, exponent: float, generator: torch.Generator
) -> Tensor:
    """Candidates around a mean and spread (H, B, A), clipped to the range of actions."""
    steps, problems, size = mean.shape
    noise = _noise((problems, samples, size, steps), exponent, generator, mean.device)
    spread = noise.permute(3, 0, 1, 2) * std[:, :, None]
    return (mean[:, :, None] + spread).clamp(-MAX_ACTION, MAX_ACTION)


def _noise(
    shape: tuple[int, ...], exponent: float, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Gaussian noise of unit variance with a power spectrum 1 / f^exponent along the last axis."""
    white = torch.randn(shape, generator=generator, device=device)
    if exponent == 0.0 or shape[-1] == 1:
        return white
    spectrum = torch.fft.rfft(white)
    frequency = torch.arange(spectrum.shape[-1], device=device).clamp(min=1)
    gain = frequency ** (-exponent / 2)
    power = gain.square()
    power[1 : (shape[-1] + 1) // 2] *= 2  # both signs of a frequency, but for 0 and the last
    coloured = torch.fft.irfft(spectrum * gain, n=shape[-1])
    return coloured * (shape[-1] / power.sum()).sqrt()


def _pick(candidates: Tensor, which: Tensor) -> Tensor:
    """Candidates (H, B, N, A) at indices (B, E): (H, B, E, A)."""
    steps, _, _, size = candidates.shape
    index = which[None, :, :, None].expand(steps, -1, -1, size)
    return candidates.gather(2, index)
