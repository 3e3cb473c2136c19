"""Your own environment plug-in: name the state of CartPole and give it a goal.

worldmodel.register_plugin makes it known; import this module before training or planning.
"""

import numpy as np

import worldmodel
from worldmodel.plugins import EnvPlugin, StateReadout


class CartPoleReadout(StateReadout):
    """The state of CartPole with names and units."""

    def __init__(self, state_dim: int) -> None:
        super().__init__(state_dim)
        self.names = ("position", "velocity", "angle", "angular_velocity")
        self.units = ("m", "m/s", "rad", "rad/s")


class CartPole(EnvPlugin):
    """What is known about CartPole-v1."""

    default_goal = "centered"

    def readout(self, state_dim: int) -> StateReadout:
        return CartPoleReadout(state_dim)

    def goal_test(self, goal: str):
        if goal == "centered":
            return lambda state: bool(np.all(np.abs(state[[0, 2]]) < 0.1))
        return None


worldmodel.register_plugin(["CartPole-v1"], CartPole)
