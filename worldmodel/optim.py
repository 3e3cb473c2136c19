"""Optimization: Muon, the learning rate schedule, and the one loop that updates weights.

Muon is momentum whose matrices are orthogonalized before the step: Keller Jordan et al., "Muon: an
optimizer for hidden layers in neural networks" (2024), with the step scaled to the size of AdamW's
as in arXiv:2502.16982, section 2.2, and the polynomials of Polar Express (arXiv:2505.16932,
section 3). ``torch.optim.Muon`` takes matrices only; this one also flattens convolution kernels,
from which the encoder gains most.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.distributed import average_gradients
from worldmodel.hyperparameters import Optimization

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_KEPT = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1}
_RETURNED = {_M_MMAP_MAX: 65_536, _M_MMAP_THRESHOLD: 2**25, _M_TRIM_THRESHOLD: 2**26}
"""What glibc's own adjustment, which ends with the first call of mallopt, arrives at by itself."""


@contextmanager
def tuned_cpu() -> Iterator[None]:
    """Configure the process for training, and restore it afterwards.

    Flushes denormal numbers to zero: the gradients of a head whose loss has vanished, such as
    termination in an environment that never terminates, become denormal, and a CPU then takes ten
    times as long per update.

    Lets the C library keep freed memory. By default glibc maps every large tensor anew and the
    kernel clears its pages, which costs a quarter of an update.
    """
    kept_denormals = bool((torch.full((8,), 2e-38) * 0.1).any())
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    glibc = libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
    torch.set_flush_denormal(True)
    _mallopt(glibc, _KEPT)
    try:
        yield
    finally:
        torch.set_flush_denormal(not kept_denormals)
        _mallopt(glibc, _RETURNED)
        if glibc is not None:
            glibc.malloc_trim(0)


def _mallopt(glibc: Any, values: Mapping[int, int]) -> None:
    for parameter, value in values.items() if glibc is not None else ():
        glibc.mallopt(parameter, value)


def cosine(start: float, end: float, progress: float) -> float:
    """Return the value at `progress`, 0 to 1, on half a cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def learning_rate(step: int, total: int, peak: float, warmup: int, final: float) -> float:
    """Return a learning rate that rises to `peak` and then falls on a cosine to ``final * peak``.

    The warmup takes at most a tenth of all steps.
    """
    warmup = min(warmup, total // 10)
    if step < warmup:
        return peak * (step + 1) / warmup
    return cosine(peak, final * peak, (step - warmup) / max(total - warmup, 1))


POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
)
"""Coefficients of x, x^3 and x^5 for one iteration each."""


def orthogonalize(matrix: Tensor) -> Tensor:
    """Approximate the closest semi-orthogonal matrix: singular values move towards 1.

    Applies four odd polynomials of degree 5. For a matrix at least twice as wide as high they are
    accumulated in the small Gram space and applied to the matrix once, at the end.

    Args:
        matrix: (M, N) with M <= N.

    Returns:
        (M, N); singular values above 1e-2 of the norm end between 0.4 and 1.6.
    """
    x: Tensor = matrix / (matrix.norm() * 1.01 + 1e-7)
    if x.shape[1] < 2 * x.shape[0]:
        for a, b, c in POLAR_EXPRESS:
            gram = x @ x.mT
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x
    gram = x @ x.mT
    factors: list[Tensor] = []
    for a, b, c in POLAR_EXPRESS:
        if factors:
            gram = factors[-1] @ gram @ factors[-1]
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        factors.append(factor)
    product = factors[0]
    for factor in factors[1:]:
        product = factor @ product
    return product @ x


class Muon(torch.optim.Optimizer):
    """Muon over matrices and convolution kernels, which count as (out, in * height * width).

    Args:
        params: parameters of two dimensions or more.
        lr: learning rate; values that suit AdamW are suitable.
        momentum: momentum of the (Nesterov) average of gradients.
        weight_decay: decoupled weight decay, multiplied by `lr`.

    Attributes:
        found_inf: 0-d tensor on the device of the parameters; if it is not 0, `step` changes
            nothing, as in fused optimizers of PyTorch. None for updates without this test.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group)

    def _update(self, p: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        average = self.state[p].setdefault("momentum", torch.zeros_like(p))
        skip = None if self.found_inf is None else self.found_inf > 0
        if skip is not None:
            gradient = torch.where(skip, average, gradient)
        average.lerp_(gradient, 1 - group["momentum"])
        step = gradient.lerp(average, group["momentum"]).flatten(1)
        tall = step.shape[0] > step.shape[1]
        step = orthogonalize(step.mT).mT if tall else orthogonalize(step)
        scale = 0.2 * max(step.shape) ** 0.5
        decay = group["lr"] * group["weight_decay"]
        if skip is not None:
            step, decay = step.masked_fill(skip, 0.0), decay * ~skip
        p.mul_(1 - decay)
        p.add_(step.reshape(p.shape), alpha=-group["lr"] * scale)


def skips_on_device(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether optimizers test on the device if an update is skipped; reading it would wait."""
    return all(parameter.is_cuda for parameter in parameters)


def make_optimizers(
    parameters: Sequence[nn.Parameter], name: str, weight_decay: float = 0.0
) -> list[torch.optim.Optimizer]:
    """Make Muon for matrices and kernels and AdamW for the rest, or AdamW for all.

    On CUDA, AdamW is fused, so that it can skip an update as Muon does (`Muon.found_inf`).

    Args:
        parameters: all trained parameters.
        name: ``muon`` or ``adamw``.
        weight_decay: weight decay of matrices and kernels.
    """
    fused = skips_on_device(parameters)
    if name == "adamw":
        return [_adamw(parameters, weight_decay, fused)]
    matrices = [p for p in parameters if p.ndim > 1]
    rest = [p for p in parameters if p.ndim <= 1]
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        optimizers.append(Muon(matrices, weight_decay=weight_decay))
    if rest:
        optimizers.append(_adamw(rest, 0.0, fused))
    return optimizers


def _adamw(
    parameters: Sequence[nn.Parameter], weight_decay: float, fused: bool
) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, weight_decay=weight_decay, foreach=not fused, fused=fused)


Terms = dict[str, Tensor]
"""Terms of a loss by name: 0-d tensors without gradients."""

Loss = Callable[[int], tuple[Tensor, Terms]]
"""Maps an update to its loss and the loss's terms."""


class Phase:
    """A phase of training: parameters, a loss, and how to optimize it. Resumes exactly.

    Args:
        name: name of the phase, for progress and logs.
        parameters: parameters that are trained.
        loss: function from an update to its loss; it must depend only on the update, the weights
            and `generator`.
        settings: hyperparameters of the optimization.
        updates: total number of updates.
        after_update: function that is called with the update after each step of the optimizers.
        generator: random generator of the loss, saved with the phase.
        module: trained for the loss alone, saved with the phase and not with the model.
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[nn.Parameter],
        loss: Loss,
        settings: Optimization,
        updates: int,
        after_update: Callable[[int], None] | None = None,
        generator: torch.Generator | None = None,
        module: nn.Module | None = None,
    ) -> None:
        self.name, self.updates, self.step = name, updates, 0
        self.parameters, self.loss, self.settings = list(parameters), loss, settings
        self.after_update, self.generator, self.module = after_update, generator, module
        self.optimizers = make_optimizers(
            self.parameters, settings.optimizer, settings.weight_decay
        )
        self.on_device = skips_on_device(self.parameters)
        self.skipped: int | Tensor = 0

    def update(self) -> Terms:
        """Update the weights once.

        With `max_grad_norm`, an update with non-finite gradients is skipped: no weights change.

        Returns:
            The terms of the loss before the update; with `max_grad_norm`, also `skipped`, the
            number of updates skipped so far.
        """
        settings = self.settings
        rate = learning_rate(
            self.step,
            self.updates,
            settings.learning_rate,
            settings.warmup,
            settings.final_learning_rate,
        )
        loss, terms = self.loss(self.step)
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()
        average_gradients(self.parameters)
        if self._clip():
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.step()
        if settings.max_grad_norm is not None:
            terms = {**terms, "skipped": torch.as_tensor(self.skipped, dtype=torch.float32)}
        if self.after_update is not None:
            self.after_update(self.step)
        self.step += 1
        return terms

    def _clip(self) -> bool:
        """Clip the gradients; returns whether the optimizers have to run.

        Clipping an infinite norm would turn the gradients, and then the weights, into NaN. On CUDA
        the optimizers run in any case, but change nothing then.
        """
        if self.settings.max_grad_norm is None:
            return True
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        if self.on_device:
            found_inf = norm.isfinite().logical_not().float()
            self.skipped = self.skipped + found_inf
            for optimizer in self.optimizers:
                optimizer.found_inf = found_inf  # type: ignore[attr-defined]
            return True
        finite = bool(norm.isfinite())
        self.skipped += not finite
        return finite

    def run(self) -> None:
        """Run all remaining updates."""
        while self.step < self.updates:
            self.update()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that exact resumption needs, except for the weights."""
        return {
            "step": self.step,
            "skipped": int(self.skipped),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "generator": None if self.generator is None else self.generator.get_state(),
            "module": None if self.module is None else self.module.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.step, self.skipped = state["step"], state["skipped"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(_with_kind(saved, optimizer))
        if self.generator is not None:
            self.generator.set_state(state["generator"])
        if self.module is not None:
            self.module.load_state_dict(state["module"])


_KINDS = {"fused", "foreach"}
"""Arguments of AdamW that choose its implementation."""


def _with_kind(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Give a saved state the implementation of `optimizer`, which may be on another device."""
    kind = {key: optimizer.defaults[key] for key in _KINDS & optimizer.defaults.keys()}
    return {**saved, "param_groups": [{**group, **kind} for group in saved["param_groups"]]}
