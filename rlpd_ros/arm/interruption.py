# SPDX-License-Identifier: Apache-2.0
"""How a process that has an arm for itself, without ROS, is stopped."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last one when the terminal is closed
IMPATIENCE = 1.0  # s after which a signal that comes again was meant: some parents send each twice


@contextmanager
def stopping_between_motions(impatience: float = IMPATIENCE) -> Iterator[Callable[[], None]]:
    """Let SIGNALS take effect where the function that this yields is called: it raises KeyboardInterrupt.

    A motion that is broken off would leave a real arm in the middle of it, and without ``close``. So call the function
    before each. A signal after its last call takes effect at the end. One that comes again after ``impatience`` s takes
    effect at once.
    In a thread that cannot handle signals nothing changes.
    """
    asked_at: float | None = None

    def ask(*_: object) -> None:
        nonlocal asked_at
        if asked_at is None:
            asked_at = time.monotonic()
        elif time.monotonic() - asked_at > impatience:
            raise KeyboardInterrupt

    def stop_if_asked() -> None:
        if asked_at is not None:
            raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, ask) for number in SIGNALS if main}
    try:
        yield stop_if_asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    stop_if_asked()
