# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from rlpd_ros.arm.safety import admit_action, limit_joint_motion
from rlpd_ros.errors import DataError

LOW, HIGH, FASTEST = np.array([-1.0, -2.0]), np.array([1.0, 0.5]), np.array([0.1, 0.2])


def test_admitted_action_is_clipped_float32_and_a_copy():
    asked = np.array([0.5, -3.0, 1e300])
    admitted = admit_action(asked, 3, np.zeros(3), max_change=2.0)
    assert admitted.dtype == np.float32
    np.testing.assert_array_equal(admitted, [0.5, -1.0, 1.0])
    asked[0] = 0.0
    assert admitted[0] == 0.5


def test_change_is_limited_around_what_was_executed():
    previous = np.array([0.0, 0.9, -0.9], np.float32)
    np.testing.assert_allclose(admit_action([1.0, -1.0, -1.0], 3, previous, max_change=0.5), [0.5, 0.4, -1.0])


@pytest.mark.parametrize(("action", "said"), [
    ([0.0, np.nan], "expected finite numbers, found [0.0, nan]"),
    ([0.0, -np.inf], "expected finite numbers"),
    ([0.0], "expected shape (2,), found (1,)"),
    ([[0.0, 0.0]], "expected shape (2,), found (1, 2)"),
    (0.5, "expected shape (2,), found ()"),
    (["a", "b"], "expected 2 numbers, found ['a', 'b']"),
    ([10 ** 400, 0], "expected 2 numbers"),
])
def test_what_is_not_an_action_is_refused(action, said):
    with pytest.raises(DataError) as refusal:
        admit_action(action, 2, np.zeros(2), max_change=2.0)
    assert said in str(refusal.value)


def test_motion_within_the_limits_is_not_touched():
    motion = np.array([0.05, -0.2])
    np.testing.assert_array_equal(limit_joint_motion(np.zeros(2), motion, LOW, HIGH, FASTEST), motion)


def test_fast_motion_is_slowed_as_a_whole():
    limited = limit_joint_motion(np.zeros(2), np.array([0.05, -0.8]), LOW, HIGH, FASTEST)
    np.testing.assert_allclose(limited, [0.0125, -0.2])


def test_each_joint_stops_at_its_limit():
    limited = limit_joint_motion(np.array([0.98, 0.45]), np.array([0.1, 0.1]), LOW, HIGH, FASTEST)
    np.testing.assert_allclose(limited, [0.02, 0.05])
