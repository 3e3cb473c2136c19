"""The world model and its parts."""

from worldmodel.models.spec import ModelSpec, describe_actions
from worldmodel.models.world_model import WorldModel

__all__ = ["ModelSpec", "WorldModel", "describe_actions"]
