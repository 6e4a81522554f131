# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from rlpd_ros.arm.expert import Disturbance, gym_hil_pick_cube, pick_motion

CUBE = np.array([0.4, 0.1, 0.02])


@pytest.mark.parametrize(("tool", "closed", "motion", "close"), [
    ((0.5, 0.0, 0.2), False, (-0.1, 0.1, -0.11), False),  # to above the cube
    ((0.4, 0.1, 0.09), False, (0.0, 0.0, -0.07), False),  # straight above: down
    ((0.5, 0.1, 0.03), False, (0.0, 0.0, 0.06), False),  # low beside the cube: up before anything else
    ((0.4, 0.115, 0.04), False, (0.0, -0.015, -0.02), False),  # between the fingers already: down
    ((0.4, 0.1, 0.022), False, (0.0, 0.0, -0.002), True),  # at depth: close
    ((0.4, 0.1, 0.022), True, (0.0, 0.0, 1.0), True),  # closed: lift
    ((0.4, 0.1, 0.12), True, (0.0, 0.0, -0.1), False),  # the cube slipped: down and open
])
def test_each_phase_follows_from_the_geometry(tool, closed, motion, close):
    found, closing = pick_motion(CUBE - np.array(tool), closed)
    np.testing.assert_allclose(found, motion, atol=1e-9)
    assert closing is close


def test_gym_hil_action_closes_step_by_step_and_lifts_when_closed():
    state = np.zeros(18)
    state[15:18] = CUBE
    for gripper, expected in ((0.0, [0, 0, 0, 0, 0, 0, 0.3]), (255.0, [0, 0, 1, 0, 0, 0, 0.3])):
        state[14] = gripper
        np.testing.assert_allclose(gym_hil_pick_cube({"agent_pos": state, "environment_state": CUBE}), expected)


def test_disturbance_is_reproducible_and_of_the_size_asked_for():
    quiet, loud, again = Disturbance(0.0, 1), Disturbance(0.2, 1), Disturbance(0.2, 1)
    np.testing.assert_array_equal(quiet(np.array([0.3, -4.0, 0.0])), [0.3, -1.0, 0.0])
    samples = np.array([loud(np.zeros(3)) for _ in range(2000)])
    np.testing.assert_array_equal(samples[:5], [again(np.zeros(3)) for _ in range(5)])
    assert samples.std() == pytest.approx(0.2, rel=0.05)
