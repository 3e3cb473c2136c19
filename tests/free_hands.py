"""The plug-in of the environment of `tiny_model`: hands that turn without friction."""

import numpy as np
from tiny_model import DT

from worldmodel.pendulum import DoublePendulum


class FreeHandsTask:
    """Stands in for the double pendulum's task."""

    dt = DT

    def advance(self, states, torques):
        """States (N, 4) after a step, and rewards (N,)."""
        after = states + DT * np.concatenate([states[:, 2:], torques], axis=1)
        return after, np.zeros(len(states))

    def energy(self, states):
        """Kinetic energies (N,) of states (N, 4)."""
        return 0.5 * np.sum(states[:, 2:] ** 2, axis=1)


class FreeHands(DoublePendulum):
    """The double pendulum's plug-in with other physics."""

    task = FreeHandsTask()

    def __init__(self):
        super().__init__("FreeHands-v0", {"dt": DT})
