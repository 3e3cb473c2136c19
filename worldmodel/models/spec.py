"""The shape of a world model: all that is needed to build one before its weights are loaded."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from worldmodel.config import Config
from worldmodel.data import FrameStack
from worldmodel.models.heads import HEADS

_MAX_FRAME_SIZE = 2**22


class BoxActions(BaseModel):
    """Bounds of a flat continuous action space; the model takes actions scaled to [-1, 1]."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["box"] = "box"
    low: tuple[FiniteFloat, ...] = Field(min_length=1, max_length=10_000)
    high: tuple[FiniteFloat, ...]

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if len(self.low) != len(self.high) or any(a > b for a, b in zip(self.low, self.high)):
            raise ValueError(f"bounds {self.low} and {self.high} do not fit each other")
        return self

    @property
    def dim(self) -> int:
        """Size A of the action vector."""
        return len(self.low)

    def __str__(self) -> str:
        low, high = (
            f"{bound[0]:g}" if len(set(bound)) == 1 else f"[{', '.join(f'{x:g}' for x in bound)}]"
            for bound in (self.low, self.high)
        )
        return f"Box({low}, {high}, ({self.dim},))"

    def space(self) -> spaces.Box:
        """Make the Gymnasium space."""
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        return spaces.Box(low, high, dtype=np.float32)


class DiscreteActions(BaseModel):
    """A discrete action space; the model takes one-hot vectors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["discrete"] = "discrete"
    n: int = Field(ge=1, le=10_000)
    start: int = 0

    @property
    def dim(self) -> int:
        """Size A of the action vector."""
        return self.n

    def __str__(self) -> str:
        return str(self.space())

    def space(self) -> spaces.Discrete:
        """Make the Gymnasium space."""
        return spaces.Discrete(self.n, start=self.start)


Actions = Annotated[BoxActions | DiscreteActions, Field(discriminator="kind")]


def describe_actions(space: gym.Space[Any]) -> BoxActions | DiscreteActions:
    """Describe a Gymnasium action space.

    Raises:
        ValueError: If the space is neither a bounded flat Box nor a Discrete.
    """
    if isinstance(space, spaces.Discrete):
        return DiscreteActions(n=int(space.n), start=int(space.start))
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.is_bounded():
        return BoxActions(low=tuple(space.low.tolist()), high=tuple(space.high.tolist()))
    raise ValueError(
        f"action space {space} is not supported: expected Discrete or a bounded one-dimensional "
        "Box; change it with a wrapper, --wrapper module:Name, for instance "
        "gymnasium.wrappers.TransformAction with a bounded Box"
    )


class ModelSpec(BaseModel):
    """Sizes and parts of a world model; see `worldmodel.hyperparameters.Model` for the choices.

    Attributes:
        frame_shape: (H, W, C) of one uint8 frame, or (d,) of one float32 vector.
        frame_stack: frames S per observation.
        actions: the action space.
        latent_dim: size D of the latent.
        width: channels of the pixel encoder and decoder.
        hidden: width of the predictor's hidden layers.
        encoder: short name or ``module:Name``.
        decoder: likewise; not used for vectors.
        predictor: likewise.
        heads: names in `worldmodel.models.heads.HEADS`.
        encoder_kwargs: further arguments of the encoder.
        decoder_kwargs: further arguments of the decoder.
        predictor_kwargs: further arguments of the predictor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    frame_shape: tuple[PositiveInt, ...]
    frame_stack: int = Field(ge=1, le=64)
    actions: Actions
    latent_dim: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=256)
    hidden: int = Field(ge=1, le=8192)
    encoder: str = "keypoints"
    decoder: str = "patches"
    predictor: str = "residual"
    heads: tuple[str, ...] = ("reward_head", "termination_head")
    encoder_kwargs: dict[str, Any] = {}
    decoder_kwargs: dict[str, Any] = {}
    predictor_kwargs: dict[str, Any] = {}

    @field_validator("frame_shape")
    @classmethod
    def _check_shape(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) not in (1, 3) or math.prod(shape) > _MAX_FRAME_SIZE:
            raise ValueError(
                f"a frame has the shape {shape}; expected (H, W, C) or (d,), of at most "
                f"{_MAX_FRAME_SIZE:,} numbers"
            )
        return shape

    @field_validator("heads")
    @classmethod
    def _check_heads(cls, heads: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(heads) - set(HEADS)):
            raise ValueError(f"unknown heads {unknown}; expected {', '.join(HEADS)}")
        return heads

    @model_validator(mode="before")
    @classmethod
    def _fill_encoder(cls, values: Any) -> Any:
        """Choose the encoder of vectors where none is named."""
        shape = values.get("frame_shape") if isinstance(values, dict) else None
        if isinstance(shape, list | tuple) and len(shape) == 1:
            return {"encoder": "mlp", **values}
        return values

    @classmethod
    def of(
        cls, config: Config, frame_shape: tuple[int, ...], action_space: gym.Space[Any]
    ) -> ModelSpec:
        """Describe the model of a configuration for frames and actions of an environment.

        Raises:
            ValueError: If the action space is not supported.
        """
        return cls(
            frame_shape=frame_shape,
            frame_stack=config.frame_stack,
            actions=describe_actions(action_space),
            heads=tuple(HEADS),
            **config.model.model_dump(),
        )

    @property
    def pixels(self) -> bool:
        """Whether observations are images."""
        return len(self.frame_shape) == 3

    @property
    def frames(self) -> FrameStack:
        """How frames are stacked to observations."""
        return FrameStack(self.frame_stack)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """(H, W, S*C), or (S*d,)."""
        return self.frames.shape(self.frame_shape)

    def require_fit(
        self, env_id: str, actions: gym.Space[Any], observations: gym.Space[Any]
    ) -> None:
        """Check that a model of this spec can act in an environment.

        Args:
            env_id: of the environment, for the message.
            actions: its action space; bounds of a Box may differ.
            observations: its space of stacked frames.

        Raises:
            ValueError: If the model was trained on other actions or observations.
        """
        shape, found, own = self.observation_shape, describe_actions(actions), self.actions
        same = found.dim == own.dim if isinstance(own, BoxActions) else found == own
        if type(found) is not type(own) or not same or observations.shape != shape:
            raise ValueError(
                f"{env_id} has actions {found} and observations of shape {observations.shape}, "
                f"but the model was trained on actions {own} and observations of shape {shape}; "
                "use the environment that its data comes from"
            )
