"""Your own planner: random shooting, the best of many random action sequences.

worldmodel plan RUN --method examples.own_planner:RandomShooting
"""

from dataclasses import dataclass

import torch

from worldmodel.planning import Search


@dataclass(frozen=True)
class RandomShooting:
    """Draws uniform action sequences and keeps the best one."""

    samples: int = 256
    iterations: int = 1

    def search(self, score, initial, generator):
        horizon, problems, size = initial.mean.shape
        count = self.samples * self.iterations
        shape = (horizon, problems, count, size)
        drawn = torch.rand(shape, generator=generator, device=initial.mean.device) * 2 - 1
        drawn[:, :, 0] = initial.mean  # the last plan, one step later
        best = score(drawn).argmax(1)
        actions = drawn[:, torch.arange(problems), best]
        return Search(actions, actions, actions[:, :, None][:, :, :0])
