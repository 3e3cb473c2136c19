"""The shape of a world model: all that is needed to build one before its weights are loaded."""

from __future__ import annotations

from typing import Annotated, Literal

import gymnasium as gym
from gymnasium import spaces
from pydantic import BaseModel, ConfigDict, Field

EncoderName = Literal["keypoints", "conv"]
PredictorName = Literal["residual", "direct", "identity"]


class BoxActions(BaseModel):
    """Bounds of a flat continuous action space; actions are scaled to [-1, 1] by them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["box"] = "box"
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def dim(self) -> int:
        """Size A of the action vector."""
        return len(self.low)


class DiscreteActions(BaseModel):
    """A discrete action space; actions are one-hot vectors to the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["discrete"] = "discrete"
    n: int
    start: int = 0

    @property
    def dim(self) -> int:
        """Size A of the action vector."""
        return self.n


Actions = Annotated[BoxActions | DiscreteActions, Field(discriminator="kind")]


class ModelSpec(BaseModel):
    """Sizes of a world model.

    Attributes:
        frame_shape: (H, W, C) of one uint8 frame, or (d,) of one float32 vector.
        frame_stack: frames S in an observation.
        actions: the action space.
        latent_dim: size D of the latent.
        width: channels of the pixel encoder.
        hidden: width of the predictor's hidden layers.
        predictor: ``residual``, ``direct`` without the residual connection, or ``identity`` to
            predict no change.
        encoder: of pixels, ``keypoints`` or ``conv``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    frame_shape: tuple[int, ...]
    frame_stack: int
    actions: Actions
    latent_dim: int
    width: int
    hidden: int
    predictor: PredictorName = "residual"
    encoder: EncoderName = "keypoints"

    @property
    def pixels(self) -> bool:
        """Whether observations are images."""
        return len(self.frame_shape) == 3


def describe_actions(space: gym.Space) -> BoxActions | DiscreteActions:
    """Describe a Gymnasium action space.

    Raises:
        ValueError: the space is neither a bounded flat Box nor a Discrete.
    """
    if isinstance(space, spaces.Discrete):
        return DiscreteActions(n=int(space.n), start=int(space.start))
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.is_bounded():
        return BoxActions(low=tuple(space.low.tolist()), high=tuple(space.high.tolist()))
    raise ValueError(
        f"action space {space} is not supported: expected Discrete or a bounded one-dimensional "
        "Box; wrap the environment, for instance with gymnasium.wrappers.FlattenAction"
    )
