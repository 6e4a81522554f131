# SPDX-License-Identifier: Apache-2.0
"""All benchmarks by name, and the loop that runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rlpd_ros.bench import arm, learning, log, machine, outbox, pixels, running, transport
from rlpd_ros.bench.timing import Effort
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.tables import Row, at_most

BENCHMARKS: dict[str, Callable[[Effort], Iterator[Row]]] = {
    "machine": machine.describe,
    "learner": learning.learner,
    "compile": learning.compilation,
    "act": learning.acting,
    "replay": learning.replay,
    "pixels": pixels.pixels,
    "policy": transport.policy,
    "transitions": transport.transitions,
    "outbox": outbox.outbox,
    "log": log.log,
    "loop": transport.loop,
    "control": running.control,
    "start": running.start,
    "arm": arm.arm,
    "scaling": learning.scaling,
    "actors": transport.actors,
}
"""What `rlpd bench NAME` runs. The last two only describe how things grow; nothing is asked of them."""


def run(names: Sequence[str], effort: Effort, tell: Callable[[str], None]) -> list[Row]:
    """Run the benchmarks ``names`` (none: all); return their rows, after those that describe the machine.

    ``tell`` is called with the name of each before it begins. Raises ConfigError for an unknown name. A benchmark that
    cannot be completed has a row that says so, which fails.
    """
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise ConfigError(f"benchmark '{unknown[0]}': expected some of {', '.join(BENCHMARKS)}")
    rows: list[Row] = []
    for name, benchmark in BENCHMARKS.items():
        if not names or name in names or name == "machine":
            tell(name)
            try:
                rows.extend(benchmark(effort))
            except (DataError, RuntimeError) as error:
                rows.append(at_most(f"{name}: {error}", None, 0))
    return rows
