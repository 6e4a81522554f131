# SPDX-License-Identifier: Apache-2.0
"""Storage of what cameras saw for a replay buffer: each observation once, shared by the transitions around it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from rlpd_ros.types import Observation, SpaceField

REMEMBERED = 64  # observations that may still be shared: more than actors that bring transitions in turn


class FeatureFunction(Protocol):
    """What is kept of an observation's images in place of them, in some variants, one of which is drawn each time.

    ``shapes``: camera -> (variants, bytes). A call begins to compute, and returns camera -> what NumPy makes that array
    of, uint8, as soon as it is done.
    """

    @property
    def shapes(self) -> Mapping[str, tuple[int, int]]: ...

    def __call__(self, observation: Observation) -> Mapping[str, Any]: ...


class FrameStore:
    """Keep the images of up to ``capacity`` observations, or their ``features``, each until its last user lets go.

    A frame is shared only if state and images are equal to what is stored, so no pairing can go wrong at an episode's
    boundary, between interleaved actors or after an eviction. Features are computed by ``compute``, in the order in
    which observations came; until then a frame is not ``ready``.
    """

    def __init__(self, fields: Iterable[SpaceField], capacity: int, features: FeatureFunction | None = None) -> None:
        shapes = features.shapes if features else {f.name: (1, f.size) for f in fields}
        self.variants = max(variants for variants, _ in shapes.values())
        self.data = {name: np.zeros((capacity, *shape), np.uint8) for name, shape in shapes.items()}
        self._features = features
        self._users = [0] * capacity
        self._free = list(range(capacity - 1, -1, -1))
        self._fillings = 0
        self._filled = [0] * capacity  # the number of the filling that a frame holds; 0: free
        self._recent: OrderedDict[bytes, tuple[int, int, Observation]] = OrderedDict()  # state -> frame, filling, what
        self._waiting: OrderedDict[int, Observation] = OrderedDict()  # frame -> whose features are to be computed

    @staticmethod
    def frame_bytes(fields: Iterable[SpaceField], features: FeatureFunction | None) -> int:
        """Return how many bytes one observation takes."""
        return sum(a * b for a, b in features.shapes.values()) if features else sum(f.size for f in fields)

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def waiting(self) -> int:
        """Return how many frames are not ready."""
        return len(self._waiting)

    def ready(self, frame: int) -> bool:
        return frame not in self._waiting

    def put(self, observation: Observation) -> int:
        """Return the frame that holds ``observation``'s images; copies them unless they are there already."""
        key = observation.state.tobytes()
        frame, filled, known = self._recent.pop(key, (0, -1, observation))
        if self._filled[frame] != filled or not _same_images(known, observation):  # it may hold another one by now
            frame = self._free.pop()
            self._fillings += 1
            self._filled[frame] = filled = self._fillings
            known = Observation(observation.state, {name: np.array(observation.images[name]) for name in self.data})
            if self._features is None:
                for name, images in self.data.items():
                    images[frame, 0] = known.images[name].reshape(-1)
            else:
                self._waiting[frame] = known
        self._recent[key] = frame, filled, known
        if len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        self._users[frame] += 1
        return frame

    def release(self, frame: int) -> None:
        """Let go of a frame that ``put`` returned."""
        self._users[frame] -= 1
        if self._users[frame] == 0:
            self._free.append(frame)
            self._waiting.pop(frame, None)
            self._filled[frame] = 0

    def compute(self, limit: int) -> None:
        """Compute the features of the first ``limit`` observations that wait, all under way at once."""
        if self._features is None:
            return
        begun = [(frame, self._features(self._waiting[frame])) for frame in list(self._waiting)[:limit]]
        for frame, features in begun:
            for name, stored in self.data.items():
                stored[frame] = np.asarray(features[name])
            del self._waiting[frame]


def _same_images(a: Observation, b: Observation) -> bool:
    return all(np.array_equal(image, b.images[name]) for name, image in a.images.items())
