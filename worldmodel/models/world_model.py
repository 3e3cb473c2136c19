"""The world model: encode, predict, decode, and the outcome of a transition."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.data import FrameStack
from worldmodel.data.header import ACTION_SLACK
from worldmodel.distributed import launched, own_gpu
from worldmodel.errors import ConfigError
from worldmodel.models.encoders import encode_windows
from worldmodel.models.heads import HEADS, OutcomeHead
from worldmodel.models.predictors import unroll
from worldmodel.models.spec import BoxActions, DiscreteActions, ModelSpec
from worldmodel.registry import DECODERS, ENCODERS, PREDICTORS, Registry

if TYPE_CHECKING:
    from worldmodel.imagination import Domain

_CPU_BATCH = 64
"""Observations that a CPU encodes together: with more, activations outgrow the memory that the C
library keeps, and most of the time goes into fresh pages."""


class WorldModel(nn.Module):
    """A latent world model.

    Shapes: B batch, T time, H W C one frame, S frames per observation, D latent, A action.
    Public methods run without gradients and take arrays or tensors. Training uses the submodules.

    Args:
        spec: sizes and parts, see `ModelSpec`.

    Attributes:
        domain: the region of latent space that the training data covers, for out-of-distribution
            detection; None until it is fitted.
        starts: float32 (M, D), latents of training observations at which imagined episodes start;
            None until they are drawn.
    """

    PARTS: ClassVar[tuple[str, ...]] = (
        "encoder",
        "target_encoder",
        "predictor",
        "decoder",
        *HEADS,
    )
    """Submodules that hold the weights; models of vectors have no `decoder`."""

    starts: Tensor | None
    reward_head: OutcomeHead
    termination_head: OutcomeHead

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        d, a = spec.latent_dim, spec.actions.dim
        inputs = spec.frame_shape, spec.frame_stack, d, spec.width
        self.encoder = _build(ENCODERS, spec.encoder, *inputs, **spec.encoder_kwargs)
        self.target_encoder = _build(ENCODERS, spec.encoder, *inputs, **spec.encoder_kwargs)
        self.target_encoder.requires_grad_(False)
        self.target_encoder.load_state_dict(self.encoder.state_dict())
        self.predictor = _build(
            PREDICTORS, spec.predictor, d, a, spec.hidden, **spec.predictor_kwargs
        )
        self.decoder = (
            _build(DECODERS, spec.decoder, *inputs, **spec.decoder_kwargs) if spec.pixels else None
        )
        for name in spec.heads:
            self.add_module(name, OutcomeHead(d, a))
        self.domain: Domain | None = None
        self.register_buffer("starts", None, persistent=False)
        self._bounds: tuple[Tensor, Tensor] | None = None

    def untrained(self, seed: int) -> WorldModel:
        """Make a model of the same spec with the weights that `seed` gives, on the same device.

        The global random state is untouched.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return WorldModel(self.spec).to(self.device).eval().requires_grad_(False)

    def parts(self) -> dict[str, nn.Module]:
        """Return the submodules named in `PARTS` that this model has."""
        parts = {name: getattr(self, name, None) for name in self.PARTS}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def frames(self) -> FrameStack:
        """How frames are stacked to observations."""
        return self.spec.frames

    def action_vector(self, action: ArrayLike | Tensor) -> Tensor:
        """Turn environment actions into the model's action vectors.

        Args:
            action: Box actions (..., A) within their bounds, or Discrete ones (...,).

        Returns:
            Box actions scaled to [-1, 1], Discrete ones one-hot, float32 (..., A).
        """
        actions = self.spec.actions
        action = as_device_tensor(action, self.device)
        if isinstance(actions, DiscreteActions):
            return F.one_hot(action.long() - actions.start, actions.n).float()
        low, high = self._action_bounds(self.device)
        return (action.float() - low) / (high - low) * 2 - 1

    def _action_bounds(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return cached bounds: making small tensors costs as much as a predictor layer.

        A number that is always the same has the upper bound low + 1, so that its vector is -1.
        """
        if self._bounds is None or self._bounds[0].device != device:
            actions = self.spec.actions
            assert isinstance(actions, BoxActions)
            low, high = (torch.tensor(b, device=device) for b in (actions.low, actions.high))
            self._bounds = (low, torch.where(high > low, high, low + 1))
        return self._bounds

    @torch.no_grad()
    def encode(self, obs: ArrayLike | Tensor) -> Tensor:
        """Encode observations.

        Args:
            obs: uint8 (B, H, W, S*C), oldest frame first; float32 (B, S*d) for vectors.

        Returns:
            float32 (B, D).

        Raises:
            ValueError: If the observations have another shape, are images but not uint8, or hold
                NaN or infinity.
        """
        obs = torch.as_tensor(np.asarray(obs) if not isinstance(obs, Tensor) else obs)
        expected = self.spec.observation_shape
        if tuple(obs.shape[1:]) != expected:
            raise ValueError(
                f"observations have shape {tuple(obs.shape)}, expected (B, "
                f"{', '.join(map(str, expected))}): a batch of {self.frames.size} stacked frames"
            )
        if self.spec.pixels and obs.dtype != torch.uint8:
            raise ValueError(
                f"observations are {str(obs.dtype).removeprefix('torch.')}, expected uint8 frames, "
                "0 to 255"
            )
        if not self.spec.pixels:
            _require_finite("observations", obs)
        obs = as_device_tensor(obs, self.device)
        batch = _CPU_BATCH if obs.device.type == "cpu" else max(len(obs), 1)
        return torch.cat([self.encoder(part) for part in obs.split(batch)])

    @torch.no_grad()
    def predict(self, z: ArrayLike | Tensor, action: ArrayLike | Tensor) -> Tensor:
        """Predict the next latents.

        Args:
            z: float32 (B, D).
            action: (B, A), or (B,) if Discrete.

        Returns:
            float32 (B, D).

        Raises:
            ValueError: If the latents or the actions have another shape, hold NaN or infinity, or
                the actions are not in the action space.
        """
        z = self._latents(z)
        following: Tensor = self.predictor(z, self._vectors(z, action, "B"))
        return following

    @torch.no_grad()
    def rollout(self, z: ArrayLike | Tensor, actions: ArrayLike | Tensor) -> Tensor:
        """Roll out open loop.

        Args:
            z: float32 (B, D), where to start.
            actions: (T, B, A), or (T, B) if Discrete.

        Returns:
            The latents after each action, float32 (T, B, D), without `z` itself.

        Raises:
            ValueError: As `predict`.
        """
        z = self._latents(z)
        vectors = self._vectors(z, actions, "T, B")
        return unroll(self.predictor, z, vectors) if len(vectors) else z.new_empty((0, *z.shape))

    def _latents(self, z: ArrayLike | Tensor) -> Tensor:
        z = torch.as_tensor(z, dtype=torch.float32, device=self.device)
        if z.ndim != 2 or z.shape[1] != self.spec.latent_dim:
            raise ValueError(
                f"latents have shape {tuple(z.shape)}, expected (B, {self.spec.latent_dim})"
            )
        _require_finite("latents", z)
        return z

    def _vectors(self, z: Tensor, actions: ArrayLike | Tensor, axes: str) -> Tensor:
        """Make action vectors of actions with the given leading axes, for latents (B, D)."""
        actions = as_device_tensor(actions, self.device)
        size = () if isinstance(self.spec.actions, DiscreteActions) else (self.spec.actions.dim,)
        leading = len(axes.split())
        if actions.shape[leading - 1 :] != (len(z), *size):
            expected = ", ".join((axes, *map(str, size))) + "," * (leading == 1 and not size)
            raise ValueError(
                f"actions have shape {tuple(actions.shape)}, expected ({expected}) for B = "
                f"{len(z)} latents"
            )
        self._require_possible(actions)
        return self.action_vector(actions)

    def _require_possible(self, actions: Tensor) -> None:
        """Raise ValueError if actions are not in the action space, but for rounding."""
        space = self.spec.actions
        _require_finite("actions", actions)
        if isinstance(space, DiscreteActions):
            wrong = (actions < space.start) | (actions >= space.start + space.n)
            wrong |= actions != actions.round()
        else:
            low, high = self._action_bounds(self.device)
            slack = ACTION_SLACK * (high - low)
            wrong = (actions < low - slack) | (actions > high + slack)
        if wrong.any():
            raise ValueError(f"action {actions[wrong][0].item():g} is not in {space.space()}")

    @torch.no_grad()
    def decode(self, z: ArrayLike | Tensor) -> Tensor:
        """Decode latents (B, D) to uint8 frames (B, H, W, S*C).

        Raises:
            ValueError: If the latents have another shape or hold NaN or infinity, or the model was
                trained on vectors and has no decoder.
        """
        if self.decoder is None:
            raise ValueError("this model was trained on vectors: it has no pixels to decode")
        images: Tensor = self.decoder(self._latents(z)).clamp(0, 1) * 255
        return images.round().to(torch.uint8)

    @torch.no_grad()
    def outcome(
        self, z: ArrayLike | Tensor, action: ArrayLike | Tensor, z_next: ArrayLike | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predict the rewards and terminations of transitions.

        Args:
            z: float32 (B, D), latents before the action.
            action: (B, A), or (B,) if Discrete.
            z_next: float32 (B, D), latents after it.

        Returns:
            Rewards (B,) and probabilities of termination (B,) in [0, 1], float32; NaN where
            `z_next` is, because the model diverged.

        Raises:
            ValueError: As `predict`.
        """
        z = self._latents(z)
        z_next = torch.as_tensor(z_next, dtype=torch.float32, device=self.device)
        if z.shape != z_next.shape:
            raise ValueError(
                f"latents before the action have shape {tuple(z.shape)}, and those after it "
                f"{tuple(z_next.shape)}"
            )
        a = self._vectors(z, action, "B")
        termination = self.termination_head(z, a, z_next).sigmoid()
        return self.reward_head(z, a, z_next), termination


def as_device_tensor(values: ArrayLike | Tensor, device: torch.device) -> Tensor:
    """Copy values to a device; float64 becomes float32 on MPS, which has no float64."""
    tensor = torch.as_tensor(values)
    if device.type == "mps" and tensor.dtype == torch.float64:
        tensor = tensor.float()
    return tensor.to(device)


def _require_finite(name: str, values: Tensor) -> None:
    if values.is_floating_point() and not values.isfinite().all():
        raise ValueError(f"{name} hold NaN or infinity, expected finite numbers")


def _build(registry: Registry, name: str, /, *args: object, **kwargs: object) -> nn.Module:
    """Make a part by its name.

    Raises:
        ConfigError: If there is no such part, or it does not take the arguments.
    """
    kind = registry.resolve(name)
    try:
        part = kind(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError) as error:
        given = ", ".join([*map(repr, args), *(f"{key}={kwargs[key]!r}" for key in kwargs)])
        call = f"{name.rpartition(':')[2]}({given})"
        raise ConfigError(
            f"cannot make the {registry.kind} {name!r} by calling {call}: {error}"
        ) from error
    if not isinstance(part, nn.Module):
        raise ConfigError(
            f"the {registry.kind} {name!r} makes a {type(part).__name__}, expected an nn.Module"
        )
    return part


def check_parts(spec: ModelSpec) -> None:
    """Run every part of a model once, so that a user's own part fails before data is collected.

    The global random state is untouched.

    Raises:
        ConfigError: If a part cannot be made, fails, or returns another shape than expected.
    """
    with torch.random.fork_rng(devices=[]):
        model = WorldModel(spec)
    dtype = torch.uint8 if spec.pixels else torch.float32
    observations = torch.zeros((2, *spec.observation_shape), dtype=dtype)
    z, actions = torch.zeros(2, spec.latent_dim), torch.zeros(2, spec.actions.dim)
    _check_part(f"encoder {spec.encoder!r}", model.encoder, (observations,), z.shape)
    if hasattr(model.encoder, "encode_windows"):
        windows = torch.zeros((2, spec.frames.window(1), *spec.frame_shape), dtype=dtype)
        times = [spec.frames.first, spec.frames.first + 1]
        part = partial(encode_windows, model.encoder, spec.frames, times=times)
        name = f"encode_windows of encoder {spec.encoder!r}"
        _check_part(name, part, (windows,), torch.Size((2, *z.shape)))
    _check_part(f"predictor {spec.predictor!r}", model.predictor, (z, actions), z.shape)
    if model.decoder is not None:
        _check_part(f"decoder {spec.decoder!r}", model.decoder, (z,), observations.shape)


@torch.no_grad()
def _check_part(
    name: str, part: Callable[..., Tensor], inputs: tuple[Tensor, ...], expected: torch.Size
) -> None:
    given = " and ".join(str(tuple(value.shape)) for value in inputs)
    try:
        shape = tuple(part(*inputs).shape)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ConfigError(f"the {name} fails on inputs of shape {given}: {error}") from error
    if shape != tuple(expected):
        raise ConfigError(f"the {name} maps {given} to shape {shape}, expected {tuple(expected)}")


def choose_device(name: str) -> torch.device:
    """Turn ``auto`` or a torch device name into a device that works here.

    Of several processes on one machine, each gets a GPU of its own.

    Raises:
        ValueError: If there is no such device on this machine.
    """
    if name in ("auto", "cuda") and launched() and torch.cuda.is_available():
        return own_gpu()
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device {name!r} cannot be used on this machine ({str(error).splitlines()[0]}); "
            "expected auto, cpu, cuda, cuda:N or mps"
        ) from error
    return device


def imagined_return(wm: WorldModel, latents: Tensor, actions: Tensor) -> Tensor:
    """Sum the predicted rewards, weighted by the probability that the episode has not terminated.

    Args:
        wm: the world model.
        latents: float32 (H+1, M, D).
        actions: float32 (H, M, A), action vectors.

    Returns:
        float32 (M,).
    """
    steps, count, _ = actions.shape
    z, action, z_next = (part.flatten(0, 1) for part in (latents[:-1], actions, latents[1:]))
    rewards = wm.reward_head(z, action, z_next).view(steps, count)
    survival = (1 - wm.termination_head(z, action, z_next).sigmoid()).view(steps, count)
    alive = torch.cat([torch.ones_like(survival[:1]), survival[:-1].cumprod(0)])
    total: Tensor = (alive * rewards).sum(0)
    return total
