"""A decoder that kills its process once, in training, and one that fails there."""

import os
import signal
from pathlib import Path

from worldmodel.models.heads import PatchDecoder

MARK = "KILLED_ONCE"


class KilledOnce(PatchDecoder):
    """Kills the first process that trains it, after phase 1 and the refinement."""

    def loss(self, z, observation):
        mark = Path(os.environ[MARK])
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(z, observation)


class Failing(PatchDecoder):
    """Raises in training."""

    def loss(self, z, observation):
        raise RuntimeError("the decoder of the test fails")
