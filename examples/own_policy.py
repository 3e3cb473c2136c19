"""Your own policy for collecting data: sine waves of a random phase.

worldmodel train --policy examples.own_policy:SinePolicy
"""

import numpy as np

from worldmodel import Policy


class SinePolicy(Policy):
    """Drives every action dimension with a sine of its own frequency and phase."""

    uses_observations = False

    def bind(self, action_space, observation_space, steps):
        center = (action_space.high + action_space.low) / 2
        half = (action_space.high - action_space.low) / 2

        def start(seed):
            rng = np.random.default_rng(seed)
            frequency, phase = rng.uniform(0.1, 0.5, half.shape), rng.uniform(0, 6.28, half.shape)

            def act(t, observation):
                return (center + half * np.sin(frequency * t + phase)).astype(action_space.dtype)

            return act

        return start
