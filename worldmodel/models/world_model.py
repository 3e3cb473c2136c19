"""The world model: encode, predict, decode, and what a transition earns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.models.decoder import PixelDecoder
from worldmodel.models.encoder import ConvEncoder, VectorEncoder
from worldmodel.models.heads import OutcomeHead
from worldmodel.models.keypoints import KeypointEncoder
from worldmodel.models.predictor import DirectPredictor, IdentityPredictor, ResidualPredictor
from worldmodel.models.spec import BoxActions, DiscreteActions, ModelSpec

ENCODED_AT_ONCE = 64
"""Observations that a CPU encodes together: with more, activations outgrow the memory that the C
library keeps, and most of the time goes into fresh pages."""


class WorldModel(nn.Module):
    """A latent world model.

    Shapes: B batch, T time, H W C one frame, S frames in an observation, D latent, A action.
    The methods without an underscore are the public interface; they run without gradients and
    take arrays or tensors. Training works on the submodules.

    Args:
        spec: sizes, see :class:`ModelSpec`.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = self._new_encoder()
        self.target_encoder = self._new_encoder().requires_grad_(False)
        self.target_encoder.load_state_dict(self.encoder.state_dict())
        d, a = spec.latent_dim, spec.actions.dim
        self.predictor = self._new_predictor()
        self.decoder = self._new_decoder()
        self._bounds: tuple[Tensor, Tensor] | None = None
        self.reward_head = OutcomeHead(d, a)
        self.termination_head = OutcomeHead(d, a)

    def _new_predictor(self) -> ResidualPredictor | IdentityPredictor:
        s = self.spec
        if s.predictor == "identity":
            return IdentityPredictor()
        kind = DirectPredictor if s.predictor == "direct" else ResidualPredictor
        return kind(s.latent_dim, s.actions.dim, s.hidden)

    def _new_encoder(self) -> KeypointEncoder | ConvEncoder | VectorEncoder:
        s = self.spec
        if not s.pixels:
            return VectorEncoder(s.frame_stack * s.frame_shape[0], s.latent_dim)
        side, _, channels = s.frame_shape
        kind = KeypointEncoder if s.encoder == "keypoints" else ConvEncoder
        return kind(side, channels, s.frame_stack, s.latent_dim, s.width)

    def _new_decoder(self) -> PixelDecoder | None:
        s = self.spec
        if not s.pixels:
            return None
        side, _, channels = s.frame_shape
        return PixelDecoder(side, s.frame_stack * channels, s.latent_dim)

    def untrained(self, seed: int) -> WorldModel:
        """A model of the same sizes with the weights that `seed` gives, on the same device.

        The global random state is untouched.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return WorldModel(self.spec).to(self.device).eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def frame_stack(self) -> int:
        """Frames S in an observation."""
        return self.spec.frame_stack

    def action_vector(self, action: Any) -> Tensor:
        """Turn environment actions into the model's action vectors.

        Args:
            action: Box actions (..., A) within their bounds, or Discrete ones (...,).

        Returns:
            float32 (..., A): Box actions scaled to [-1, 1], Discrete ones one-hot.
        """
        actions = self.spec.actions
        action = torch.as_tensor(action, device=self.device)
        if isinstance(actions, DiscreteActions):
            return F.one_hot(action.long() - actions.start, actions.n).float()
        low, high = self._action_bounds(self.device)
        return (action.float() - low) / (high - low) * 2 - 1

    def _action_bounds(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Made once a device: making small tensors costs as much as a layer of the predictor."""
        if self._bounds is None or self._bounds[0].device != device:
            actions = self.spec.actions
            assert isinstance(actions, BoxActions)
            low, high = (torch.tensor(b, device=device) for b in (actions.low, actions.high))
            self._bounds = (low, high)
        return self._bounds

    @torch.no_grad()
    def encode(self, obs: ArrayLike | Tensor) -> Tensor:
        """Encode observations.

        Args:
            obs: uint8 (B, H, W, S*C), oldest frame first; float32 (B, S*d) for vectors.

        Returns:
            float32 (B, D).

        Raises:
            ValueError: the observations have another shape, or are images but not uint8.
        """
        obs = torch.as_tensor(np.asarray(obs) if not isinstance(obs, Tensor) else obs)
        *sides, last = self.spec.frame_shape
        expected = (*sides, self.frame_stack * last)
        if tuple(obs.shape[1:]) != expected:
            raise ValueError(
                f"observations have shape {tuple(obs.shape)}, expected (B, "
                f"{', '.join(map(str, expected))}): a batch of {self.frame_stack} stacked frames"
            )
        if self.spec.pixels and obs.dtype != torch.uint8:
            raise ValueError(
                f"observations are {str(obs.dtype).removeprefix('torch.')}, expected uint8 frames, "
                "0 to 255"
            )
        obs = obs.to(self.device)
        at_once = ENCODED_AT_ONCE if obs.device.type == "cpu" else max(len(obs), 1)
        return torch.cat([self.encoder(part) for part in obs.split(at_once)])

    @torch.no_grad()
    def predict(self, z: ArrayLike | Tensor, action: Any) -> Tensor:
        """Predict the next latents.

        Args:
            z: float32 (B, D).
            action: (B, A), or (B,) if Discrete.

        Returns:
            float32 (B, D).

        Raises:
            ValueError: the latents or the actions have another shape.
        """
        z = self._latents(z)
        return self.predictor(z, self._vectors_for(z, action, "B"))

    @torch.no_grad()
    def rollout(self, z: ArrayLike | Tensor, actions: Any) -> Tensor:
        """Roll out open loop.

        Args:
            z: float32 (B, D), where to start.
            actions: (T, B, A), or (T, B) if Discrete.

        Returns:
            float32 (T, B, D): the latents after each action; `z` itself is left out.

        Raises:
            ValueError: the latents or the actions have another shape.
        """
        z = self._latents(z)
        vectors = self._vectors_for(z, actions, "T, B")
        return self.predictor.unroll(z, vectors) if len(vectors) else z.new_empty((0, *z.shape))

    def _latents(self, z: ArrayLike | Tensor) -> Tensor:
        z = torch.as_tensor(z, dtype=torch.float32, device=self.device)
        if z.ndim != 2 or z.shape[1] != self.spec.latent_dim:
            raise ValueError(
                f"latents have shape {tuple(z.shape)}, expected (B, {self.spec.latent_dim})"
            )
        return z

    def _vectors_for(self, z: Tensor, actions: Any, axes: str) -> Tensor:
        """The vectors of actions that must have these axes, and a size if they are Box ones."""
        actions = torch.as_tensor(actions, device=self.device)
        size = () if isinstance(self.spec.actions, DiscreteActions) else (self.spec.actions.dim,)
        leading = len(axes.split())
        if actions.shape[leading - 1 :] != (len(z), *size):
            expected = ", ".join((axes, *map(str, size)))
            raise ValueError(
                f"actions have shape {tuple(actions.shape)}, expected ({expected}) for B = "
                f"{len(z)} latents"
            )
        return self.action_vector(actions)

    @torch.no_grad()
    def decode(self, z: ArrayLike | Tensor) -> Tensor:
        """Decode latents (B, D) to uint8 frames (B, H, W, S*C).

        Raises:
            ValueError: the latents have another shape, or the model works on vectors and has no
                decoder.
        """
        if self.decoder is None:
            raise ValueError("this model was trained on vectors: it has no pixels to decode")
        return (self.decoder(self._latents(z)).clamp(0, 1) * 255).round().to(torch.uint8)

    @torch.no_grad()
    def outcome(
        self, z: ArrayLike | Tensor, action: Any, z_next: ArrayLike | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Judge transitions.

        Args:
            z: float32 (B, D), latents before the action.
            action: (B, A), or (B,) if Discrete.
            z_next: float32 (B, D), latents after it.

        Returns:
            Rewards (B,) and probabilities of termination (B,) in [0, 1], float32.

        Raises:
            ValueError: the latents or the actions have another shape.
        """
        z, z_next = self._latents(z), self._latents(z_next)
        if len(z) != len(z_next):
            raise ValueError(
                f"there are {len(z)} latents before the action and {len(z_next)} after"
            )
        a = self._vectors_for(z, action, "B")
        end = self.termination_head(z, a, z_next).sigmoid()
        return self.reward_head(z, a, z_next), end
