# SPDX-License-Identifier: Apache-2.0
"""Bags of transitions, as the rest of the package uses them: demonstrations to read, logs to write and to read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlpd_ros.data.demonstrations import DemonstrationManifest, Demonstrations, collect
from rlpd_ros.errors import DataError
from rlpd_ros.ros import qos
from rlpd_ros.ros.bag_log import TransitionLog
from rlpd_ros.ros.bag_reader import Bag, expect_space, find_bags
from rlpd_ros.types import SpaceSpec, TransitionRecord

__all__ = ["Bag", "DemonstrationManifest", "Demonstrations", "TransitionLog", "find_bags", "read_demonstrations"]


OVERHEAD = 2000  # bytes of a transition besides its observations


def read_demonstrations(paths: Sequence[str | Path], spec: SpaceSpec | None = None,
                        successful_only: bool = False) -> Demonstrations:
    """Read all demonstrations at ``paths`` into memory, as one session with its manifest.

    With ``successful_only`` episodes that did not end in success are left out. All must have been made in the same
    space, that of ``spec`` if it is given. Raises DataError for anything that is not as it should be: no demonstration
    is left out in silence, and what recordings lack is told in ``gaps``.
    """
    bags = []
    memory = _Memory()
    for path in find_bags(paths):
        bag = Bag(path)
        found = bag.spec()
        if found is not None and spec is not None:
            expect_space(path, spec, found)
        spec = spec or found
        if spec is None:
            raise DataError(f"{path}: expected the space on a topic '{qos.SPACE_SPEC.name}', found none; record it "
                            "with the transitions")
        bags.append((str(path), _within(memory, path, bag.records(spec))))
    if spec is None:
        raise DataError("expected at least one bag of demonstrations, found none")
    return collect(spec, bags, successful_only)


class _Memory:
    """What demonstrations may take of this machine's memory: half of it, in bytes."""

    def __init__(self) -> None:
        self.left = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _within(memory: _Memory, path: Path, records: Iterator[TransitionRecord]) -> list[TransitionRecord]:
    """Return the records. Raises DataError if they do not fit: a small file may hold a lot, compressed."""
    kept: list[TransitionRecord] = []
    for record in records:
        observations = [o for o in (record.observation, record.final_observation) if o is not None]
        memory.left -= OVERHEAD + sum(o.state.nbytes + sum(i.nbytes for i in o.images.values()) for o in observations)
        if memory.left < 0:
            raise DataError(f"{path}: more demonstrations than half of this machine's memory holds, after "
                            f"{len(kept)} transitions of this bag; load fewer")
        kept.append(record)
    return kept
