"""The physics of the tiny world of `tiny_model`: hands that nobody pushes."""

import numpy as np
from tiny_model import DT


class FreeHands:
    """Stands where a double pendulum's task would."""

    dt = DT

    def advance(self, states, torques):
        """States (N, 4) after a step, and what the torques worked."""
        after = states + DT * np.concatenate([states[:, 2:], torques], axis=1)
        return after, np.zeros(len(states))

    def energy(self, states):
        """States (N, 4) to kinetic energies (N,)."""
        return 0.5 * np.sum(states[:, 2:] ** 2, axis=1)
