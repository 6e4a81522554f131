# SPDX-License-Identifier: Apache-2.0
"""Real-time scheduling of what controls an arm, as ros2_control asks for it too, where the system permits it."""

from __future__ import annotations

import os

PRIORITY = 10  # of 1 to 99: before every usual process, behind the kernel's own threads and what drives hardware


def go_first() -> str:
    """Let all threads that this process has by now run as soon as they have something to do; return why not, or "".

    Among usual processes one that wakes up waits for its turn, milliseconds where others compute. Threads that are made
    later, for a disk or a compiler, do not go first.
    """
    try:
        how, priority = os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY)
        for thread in os.listdir("/proc/self/task"):
            os.sched_setscheduler(int(thread), how, priority)
    except ProcessLookupError:  # a thread that has just ended
        return go_first()
    except (OSError, AttributeError) as error:  # AttributeError: not Linux
        return getattr(error, "strerror", None) or "this system has none"
    return ""
