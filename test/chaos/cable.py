# SPDX-License-Identifier: Apache-2.0
"""Two hosts on one machine, and a cable between them that loses, delays and breaks as it is told to.

The hosts are network namespaces, which takes root and ``ip``. Each has one end of the cable, a TAP device; this program
carries the frames from one to the other: ``cable.py NAME NAME`` reads lines "LOSS DELAY JITTER" (share, s, s) from its
standard input. (The kernel's netem would do the same, but not every kernel has it.)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
FRAME = 2**16  # bytes at most


class Cable:
    """Two hosts and the cable between them; ``enter(i)`` begins a command on one of them."""

    def __init__(self) -> None:
        self.hosts = tuple(f"rlpd{os.getpid()}{side}" for side in "ab")
        self._ends = tuple(f"t{os.getpid()}{side}" for side in "ab")
        self._carrier: subprocess.Popen[str] | None = None

    def enter(self, host: int) -> tuple[str, ...]:
        return "ip", "netns", "exec", self.hosts[host]

    def lay(self) -> None:
        """Make it. Raises OSError with the reason where this is not possible."""
        if not shutil.which("ip"):
            raise OSError("it needs ip (sudo apt install iproute2)")
        for host in self.hosts:
            _run("ip", "netns", "add", host)
        self._carrier = subprocess.Popen([sys.executable, __file__, *self._ends], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)
        assert self._carrier.stdout is not None
        if self._carrier.stdout.readline() != "ready\n":
            raise OSError("it cannot make TAP devices (/dev/net/tun)")
        for i, (host, end) in enumerate(zip(self.hosts, self._ends, strict=True)):
            _run("ip", "link", "set", end, "netns", host)
            _run(*self.enter(i), "ip", "address", "add", f"10.77.0.{i + 1}/24", "dev", end)
            for device in ("lo", end):
                _run(*self.enter(i), "ip", "link", "set", device, "up")
            _run(*self.enter(i), "ip", "route", "add", "224.0.0.0/4", "dev", end)

    def shape(self, loss: float = 0.0, delay: float = 0.0, jitter: float = 0.0) -> None:
        """From now on lose a share of the frames in both directions, and delay the others by so many s."""
        assert self._carrier is not None
        assert self._carrier.stdin is not None
        print(loss, delay, jitter, file=self._carrier.stdin, flush=True)

    def remove(self) -> None:
        if self._carrier is not None:
            self._carrier.kill()
            self._carrier.wait()
        for host in self.hosts:
            subprocess.run(["ip", "netns", "delete", host], check=False, capture_output=True)


def _run(*line: str) -> None:
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(line)}: {done.stderr.strip()}")


@contextlib.contextmanager
def lay_cable() -> Iterator[Cable]:
    """Lay a cable for a while. Raises OSError with the reason where this is not possible."""
    cable = Cable()
    try:
        cable.lay()
        yield cable
    finally:
        cable.remove()


def carry(names: list[str]) -> None:
    """Carry frames between the two TAP devices of these names until standard input ends."""
    ends = [_tap(name) for name in names]
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    waiting: dict[int, deque[tuple[float, bytes]]] = {end: deque() for end in ends}  # for each end: when, what
    loss = delay = jitter = 0.0
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        first = min((queue[0][0] for queue in waiting.values() if queue), default=now + 1.0)
        readable, _, _ = select.select([*ends, 0], [], [], max(0.0, first - now))
        if 0 in readable:
            lines = os.read(0, 4096).splitlines()  # not through a buffer: select would not see what waits in it
            if not lines:
                return
            loss, delay, jitter = map(float, lines[-1].split())
        now = time.monotonic()
        for end in set(readable) & set(ends):
            frame, queue = os.read(end, FRAME), waiting[other[end]]
            if random.random() >= loss:
                due = now + delay + random.uniform(-jitter, jitter)
                queue.append((max(due, queue[-1][0] if queue else 0.0), frame))  # in order, as on a real path
        for end, queue in waiting.items():
            while queue and queue[0][0] <= now:
                with contextlib.suppress(OSError):  # the end is down
                    os.write(end, queue.popleft()[1])


def _tap(name: str) -> int:
    end = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return end


if __name__ == "__main__":
    carry(sys.argv[1:])
