# SPDX-License-Identifier: Apache-2.0
"""Storage of camera images for a replay buffer: each observation's images once, shared by the transitions around it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

from rlpd_ros.types import Observation, SpaceField

REMEMBERED = 64  # observations that may still be shared: more than actors that bring transitions in turn


class FrameStore:
    """Keep the images of up to ``capacity`` observations, each until its last user lets go.

    A frame is shared only if state and images are equal to what is stored, so no pairing can go wrong at an episode's
    boundary, between interleaved actors or after an eviction.
    """

    def __init__(self, fields: Iterable[SpaceField], capacity: int) -> None:
        self.images = {f.name: np.zeros((capacity, *f.shape), np.uint8) for f in fields}
        self._users = [0] * capacity
        self._free = list(range(capacity - 1, -1, -1))
        self._recent: OrderedDict[bytes, int] = OrderedDict()  # state -> frame

    @property
    def free(self) -> int:
        return len(self._free)

    def put(self, observation: Observation) -> int:
        """Return the frame that holds ``observation``'s images; copies them unless they are there already."""
        key = observation.state.tobytes()
        frame = self._recent.pop(key, None)
        if frame is None or not self._holds(frame, observation):
            frame = self._free.pop()
            for name, images in self.images.items():
                images[frame] = observation.images[name]
        self._recent[key] = frame
        if len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        self._users[frame] += 1
        return frame

    def release(self, frame: int) -> None:
        """Let go of a frame that ``put`` returned."""
        self._users[frame] -= 1
        if self._users[frame] == 0:
            self._free.append(frame)

    def _holds(self, frame: int, observation: Observation) -> bool:
        return self._users[frame] > 0 and all(
            np.array_equal(images[frame], observation.images[name]) for name, images in self.images.items())
