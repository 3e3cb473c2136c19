"""Muon: momentum whose matrices are orthogonalised before the step.

Keller Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), with the
step scaled to the size of AdamW's as in arXiv:2502.16982, section 2.2, and the polynomials of
Polar Express (arXiv:2505.16932, section 3). ``torch.optim.Muon`` takes matrices alone; this one
flattens convolution kernels, where the encoder has most to gain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.training.schedule import set_learning_rate

POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
)
"""Coefficients of x, x^3 and x^5 for one iteration each."""


def orthogonalise(matrix: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values move towards 1.

    Four odd polynomials of degree 5. For a matrix at least twice as wide as high they are
    multiplied up in the small Gram space and meet the matrix once, at the end.

    Args:
        matrix: (M, N) with M <= N.

    Returns:
        (M, N); singular values above 1e-2 of the norm end between 0.4 and 1.6.
    """
    x = matrix / (matrix.norm() * 1.01 + 1e-7)
    if x.shape[1] < 2 * x.shape[0]:
        for a, b, c in POLAR_EXPRESS:
            gram = x @ x.mT
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x
    gram = x @ x.mT
    product = torch.eye(len(x), device=x.device, dtype=x.dtype)
    for a, b, c in POLAR_EXPRESS:
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product
        gram = factor @ gram @ factor
    return product @ x


class Muon(torch.optim.Optimizer):
    """Muon over matrices and convolution kernels, which count as (out, in * height * width).

    Args:
        params: parameters of two dimensions or more.
        lr: learning rate; suits the values that suit AdamW.
        momentum: of the (Nesterov) average of gradients.
        weight_decay: decoupled, times `lr`.
    """

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
        average.lerp_(gradient, 1 - group["momentum"])
        step = gradient.lerp(average, group["momentum"]).flatten(1)
        tall = step.shape[0] > step.shape[1]
        step = orthogonalise(step.mT).mT if tall else orthogonalise(step)
        scale = 0.2 * max(step.shape) ** 0.5
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(step.reshape(p.shape), alpha=-group["lr"] * scale)


def make_optimizers(
    parameters: Sequence[nn.Parameter], name: str, weight_decay: float = 0.0
) -> list[torch.optim.Optimizer]:
    """Muon for matrices and kernels with AdamW for the biases, or AdamW for all.

    Args:
        parameters: all that are trained.
        name: ``muon`` or ``adamw``.
        weight_decay: of matrices and kernels.
    """
    if name == "adamw":
        return [torch.optim.AdamW(parameters, weight_decay=weight_decay, foreach=True)]
    return [
        Muon([p for p in parameters if p.ndim > 1], weight_decay=weight_decay),
        torch.optim.AdamW([p for p in parameters if p.ndim == 1], weight_decay=0.0, foreach=True),
    ]


def clipped_step(
    optimizers: Sequence[torch.optim.Optimizer],
    parameters: Iterable[nn.Parameter],
    rate: float,
    max_norm: float,
) -> bool:
    """Clip the gradients and step at a learning rate; does nothing if they are not finite.

    Clipping an infinite norm would turn the gradients, and then the weights, into NaN.

    Returns:
        Whether a step was taken.
    """
    if not nn.utils.clip_grad_norm_(parameters, max_norm).isfinite():
        return False
    step_at(optimizers, rate)
    return True


def step_at(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Step at a learning rate."""
    for optimizer in optimizers:
        set_learning_rate(optimizer, rate)
        optimizer.step()
