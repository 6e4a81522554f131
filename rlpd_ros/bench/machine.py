# SPDX-License-Identifier: Apache-2.0
"""The machine: what it is, and what it can do at best ("speed of light")."""

from __future__ import annotations

import os
import platform
import socket
import statistics
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rlpd_ros.bench.timing import Effort, high, rates
from rlpd_ros.tables import Row, informative

CALIBRATION = (256, 256, 256)  # rows, inputs and outputs of a layer: the matrix product that most time goes into


def describe(effort: Effort) -> Iterator[Row]:
    """Yield what this machine is, how busy it is, and its speed of light."""
    yield informative("processor", _processor())
    yield informative("cores", len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    yield informative("memory", round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1), "GB")
    yield informative("system", f"{os.uname().sysname} {platform.release()}, Python {platform.python_version()}, "
                                f"JAX {jax.__version__} on {jax.devices()[0].device_kind}")
    yield informative("load average, 1 min", round(os.getloadavg()[0], 2))
    for ensemble in (1, 10):
        yield high(f"matrix product, {ensemble} x 256 x 256 x 256", matmul_rates(ensemble, effort), "GFLOP/s")
    yield high("matrix product, 1024 x 1024 x 1024", matmul_rates(1, effort, (1024, 1024, 1024)), "GFLOP/s")
    yield high("memory, copy of 67 MB", copy_rates(effort), "GB/s")
    yield high("socket between two threads", socket_rates(effort), "GB/s")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def matmul_rates(ensemble: int, effort: Effort, shape: tuple[int, int, int] = CALIBRATION) -> list[float]:
    """Measure float32 matrix products, ``ensemble`` at a time, by JAX: GFLOP/s."""
    m, k, n = shape
    a, b = jnp.ones((ensemble, m, k)), jnp.ones((ensemble, k, n))
    product = jax.jit(jnp.matmul)
    return [2e-9 * ensemble * m * k * n * rate
            for rate in rates(lambda: product(a, b).block_until_ready(), effort)]


def copy_rates(effort: Effort, size: int = 2**26) -> list[float]:
    """Measure copies of ``size`` bytes by one thread: GB/s. Small ones stay in the processor's cache."""
    source = np.ones(size, np.uint8)
    target = np.empty_like(source)
    return [source.nbytes * 1e-9 * rate for rate in rates(lambda: np.copyto(target, source), effort)]


def socket_rates(effort: Effort, size: int = 3_000_000) -> list[float]:
    """Measure how fast messages of ``size`` bytes go through a local socket: GB/s."""
    ours, theirs = socket.socketpair()
    received = bytearray(size)

    def echo() -> None:
        with theirs, memoryview(received) as view:
            while True:
                got = 0
                while got < size:
                    part = theirs.recv_into(view[got:])
                    if not part:
                        return
                    got += part
                theirs.sendall(b".")

    thread = threading.Thread(target=echo, daemon=True)
    thread.start()
    message = bytes(size)

    def send() -> None:
        ours.sendall(message)
        ours.recv(1)

    measured = [size * 1e-9 * rate for rate in rates(send, effort)]
    ours.close()
    thread.join()
    return measured


@cache
def speed_of_light(what: str) -> float:
    """Return, measured once per process: "matmul" (10 x 256^3, FLOP/s), "copy" or "socket" (bytes/s)."""
    effort = Effort(3, 0.3, 0)
    measure = {"matmul": lambda: matmul_rates(10, effort), "copy": lambda: copy_rates(effort),
               "socket": lambda: socket_rates(effort)}[what]
    return 1e9 * statistics.median(measure())
