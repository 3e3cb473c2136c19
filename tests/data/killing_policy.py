"""A policy whose process is killed once, in the middle of a collection."""

import os
import signal
from pathlib import Path

from worldmodel import Policy

MARK = "KILLED_ONCE"


class KilledOnce(Policy):
    """Constant actions; the first process that plays seed 7 is killed."""

    def bind(self, action_space, observation_space, steps):
        def start(seed):
            mark = Path(os.environ[MARK])
            if seed == 7 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return lambda t, observation: action_space.start

        return start


class Invalid(Policy):
    """Actions that do not exist."""

    def bind(self, action_space, observation_space, steps):
        return lambda seed: lambda t, observation: 9
