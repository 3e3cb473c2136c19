"""Stopping between two updates instead of within one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class InterruptedRunError(Exception):
    """The user asked to stop, and everything is saved."""


class StopRequest:
    """Whether a stop was asked for."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def deferred_interrupt() -> Iterator[StopRequest]:
    """Note the first SIGINT or SIGTERM instead of acting on it; a second SIGINT acts at once.

    Signals reach the main thread only; elsewhere nothing is changed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(signum: int, frame: object) -> None:
        if request.asked and signum == signal.SIGINT:
            raise KeyboardInterrupt
        request.asked = True

    previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
