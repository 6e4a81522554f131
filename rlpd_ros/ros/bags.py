# SPDX-License-Identifier: Apache-2.0
"""Bags of transitions, as the rest of the package uses them: demonstrations to read, logs to write and to read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlpd_ros.data.demonstrations import DemonstrationManifest, Demonstrations, collect
from rlpd_ros.errors import DataError
from rlpd_ros.ros import qos
from rlpd_ros.ros.bag_log import TransitionLog
from rlpd_ros.ros.bag_reader import Bag, expect_space, find_bags
from rlpd_ros.types import SpaceSpec

__all__ = ["Bag", "DemonstrationManifest", "Demonstrations", "TransitionLog", "find_bags", "read_demonstrations"]


def read_demonstrations(paths: Sequence[str | Path], spec: SpaceSpec | None = None) -> Demonstrations:
    """Read all demonstrations at ``paths`` into memory, as one session with its manifest.

    All must have been made in the same space, that of ``spec`` if it is given. Raises DataError for anything that is
    not as it should be: no demonstration is left out in silence.
    """
    bags = []
    for path in find_bags(paths):
        bag = Bag(path)
        found = bag.spec()
        if found is not None and spec is not None:
            expect_space(path, spec, found)
        spec = spec or found
        if spec is None:
            raise DataError(f"{path}: expected the space on a topic '{qos.SPACE_SPEC.name}', found none; record it "
                            "with the transitions")
        bags.append((str(path), list(bag.records(spec))))
    if spec is None:
        raise DataError("expected at least one bag of demonstrations, found none")
    return collect(spec, bags)
