# SPDX-License-Identifier: Apache-2.0
"""What nodes keep of the memory that large messages took."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

THREADS = """
import ctypes, sys, threading
from rlpd_ros.ros.main import keep_memory

keep_memory()
statistics = ctypes.CDLL(None).malloc_stats
statistics()
print("threads", file=sys.stderr, flush=True)
taken, given_back = threading.Barrier(9), threading.Barrier(9)

def work():
    message = bytearray(1_000_000)
    taken.wait()  # all of them at the same time
    given_back.wait()

threads = [threading.Thread(target=work) for _ in range(8)]  # more than libraries leave arenas behind for
for thread in threads:
    thread.start()
taken.wait()
statistics()
given_back.wait()
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_stats"), reason="not the GNU C library")
def test_no_thread_gets_an_arena_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True)
    before, after = (text.count("Arena ") for text in done.stderr.split("threads\n"))
    assert before == after, done.stderr  # those of threads that libraries start when they are imported
