"""The world model and its parts."""

from worldmodel.models.predictors import unroll
from worldmodel.models.spec import BoxActions, DiscreteActions, ModelSpec, describe_actions
from worldmodel.models.world_model import (
    WorldModel,
    check_parts,
    choose_device,
    imagined_return,
)

__all__ = [
    "BoxActions",
    "DiscreteActions",
    "ModelSpec",
    "WorldModel",
    "check_parts",
    "choose_device",
    "describe_actions",
    "imagined_return",
    "unroll",
]
