"""Your own state readout: probe for the height of the tip instead of angles and velocities.

worldmodel train --set evaluation.readout=examples.own_readout:TipHeight
"""

import numpy as np


class TipHeight:
    """Targets of the probes as a function of the true state (θ1, θ2, ω1, ω2)."""

    names = ("tip_height",)
    units = ("m",)
    num_scored = 1
    angle_names = ()

    def __init__(self, state_dim: int) -> None:
        if state_dim != 4:
            raise ValueError(f"the state has {state_dim} numbers, expected 4")

    def targets(self, states: np.ndarray) -> np.ndarray:
        return -np.cos(states[..., :2]).sum(-1, keepdims=True)

    def angles(self, targets: np.ndarray) -> np.ndarray:
        return targets[..., :0]

    def true_angles(self, states: np.ndarray) -> np.ndarray:
        return states[..., :0]
