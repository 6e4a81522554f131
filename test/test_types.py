# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from rlpd_ros.types import SpaceField, SpaceSpec


def spec(**changes) -> SpaceSpec:
    base = SpaceSpec("arm", (SpaceField.box("q", [-1, -2], [1, 2], "rad"), SpaceField.image("front", 8, 6)),
                     (SpaceField.box("dx", [-0.1], [0.1], "m"),), 10.0, "base", 100)
    return replace(base, **changes)


def test_sizes_and_bounds() -> None:
    s = spec()
    assert (s.state_size, s.action_size) == (2, 1)
    assert [f.name for f in s.image_fields] == ["front"]
    np.testing.assert_array_equal(s.state_bounds, [[-1, -2], [1, 2]])


@pytest.mark.parametrize(("changes", "expected"), [
    ({"observation": (SpaceField.box("q", [-1, -2], [1, 3], "rad"), SpaceField.image("front", 8, 6))},
     "observation q.high: mine (1.0, 2.0), theirs (1.0, 3.0)"),
    ({"observation": (SpaceField.box("q", [-1, -2], [1, 2], "deg"), SpaceField.image("front", 8, 6))},
     "observation q.unit: mine rad, theirs deg"),
    ({"observation": (SpaceField.image("front", 8, 6), SpaceField.box("q", [-1, -2], [1, 2], "rad"))},
     "observation fields: mine ['q', 'front'], theirs ['front', 'q']"),
    ({"observation": (SpaceField.box("q", [-1, -2], [1, 2], "rad"), SpaceField.image("front", 8, 8))},
     "observation front.shape: mine (8, 6, 3), theirs (8, 8, 3)"),
    ({"control_rate": 20.0}, "control_rate: mine 10.0, theirs 20.0"),
    ({"frame_id": "world"}, "frame_id: mine 'base', theirs 'world'"),
])
def test_a_difference_changes_the_fingerprint_and_is_named(changes: dict, expected: str) -> None:
    other = spec(**changes)
    assert other.fingerprint != spec().fingerprint
    assert expected in spec().difference(other)


@pytest.mark.parametrize("changes", [{"robot": "other"}, {"max_episode_steps": 5}, {"lockstep": False}])
def test_what_policies_do_not_depend_on_is_not_in_the_fingerprint(changes: dict) -> None:
    assert spec(**changes).fingerprint == spec().fingerprint
    assert spec().difference(spec(**changes)) == []


def test_spaces_of_thousands_of_numbers_are_told_apart_in_few_words() -> None:
    fields = tuple(SpaceField.box(f"field_{i}", [-1] * 500, [1] * 500) for i in range(30))
    one = spec(observation=fields)
    lines = one.difference(spec(observation=tuple(replace(f, low=(-2.0,) * 500) for f in fields)))
    assert lines[-1] == "and 18 more"
    assert sum(map(len, lines)) < 10_000
