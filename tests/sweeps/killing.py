"""Parts for sweeps: a decoder that kills its process, one that fails, and a slow predictor."""

import os
import signal
import time
from pathlib import Path

from worldmodel.models.heads import PatchDecoder
from worldmodel.models.predictors import ResidualPredictor

MARK = "KILLED_ONCE"


class KilledOnce(PatchDecoder):
    """Kills the first process that trains it, after phase 1 and the refinement."""

    def loss(self, z, observation):
        mark = Path(os.environ[MARK])
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(z, observation)


class Slow(ResidualPredictor):
    """Waits in every step until the mark exists."""

    def forward(self, z, action):
        if not Path(os.environ[MARK]).exists():
            time.sleep(0.02)
        return super().forward(z, action)


class Failing(PatchDecoder):
    """Raises in training."""

    def loss(self, z, observation):
        raise RuntimeError("the decoder of the test fails")
