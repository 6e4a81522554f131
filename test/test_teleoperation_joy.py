# SPDX-License-Identifier: Apache-2.0
"""What joysticks become: actions of the right size, within their bounds, and none when nobody acts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from teleop_world import KEEP, PANDA, PLAIN, TURNING, box, holds, moves, space

from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.settings import TeleopJoyConfig
from rlpd_ros.teleoperation import (
    JoyTeleoperator,
    KeyTeleoperator,
    element_names,
)
from rlpd_ros.types import SpaceField, SpaceSpec


def joy(spec: SpaceSpec = PANDA, **parameters) -> JoyTeleoperator:
    return JoyTeleoperator(TeleopJoyConfig(**{"deadband": 0.0, **parameters}), spec, now=0.0)


# Spaces


def test_elements_have_names_and_a_gripper_is_known_by_its_own():
    assert element_names(PANDA) == ["ee_motion[0]", "ee_motion[1]", "ee_motion[2]", "gripper_opening"]
    assert [spec.gripper for spec in (PANDA, PLAIN, TURNING)] == [3, None, 12]
    assert space(box("Gripper", 1), box("motion", 3)).gripper is None
    assert space(box("gripper_and_wrist", 2)).gripper is None


# Joysticks


def test_axes_become_motion_by_their_order_sign_and_scale():
    person = joy(axes=(1, 0, 4), scales=(1.0, -0.5, 1.0))
    person.hear([0.4, 0.8, 0.0, 0.0, -0.2], [], 0.0)
    moves(person, 0.0, 0.8, -0.2, -0.2, KEEP)
    person = joy(axes=(2, -1), scales=(2.0,))
    person.hear([0.0, 0.0, 0.3], [], 0.0)
    moves(person, 0.0, 0.6, 0.0, 0.0, KEEP)


def test_motion_begins_softly_at_the_edge_of_the_deadband():
    person = joy(deadband=0.2)
    for value, expected in ((0.3, 0.125), (-0.6, -0.5), (1.0, 1.0)):
        person.hear([value, 0.0, 0.0], [], 0.0)
        np.testing.assert_allclose(person.motion(0.0)[0], expected, atol=1e-9)
    person = joy(deadband=0.2)
    person.hear([0.2, -0.1, 0.0], [], 0.0)
    assert person.command(0.0) is None


def test_who_pauses_keeps_the_policy_away_for_a_while_and_then_lets_it_act():
    person = joy(linger=0.3, timeout=10.0)
    assert person.command(0.0) is None
    person.hear([1.0, 0.0, 0.0], [], 1.0)
    moves(person, 5.0, 1.0, 0.0, 0.0, KEEP)  # held, by a device that tells only changes
    person.hear([1.0, 0.0, 0.0], [], 6.0)
    person.hear([0.0, 0.0, 0.0], [], 6.1)
    holds(person, 6.3)
    holds(person, 6.4)  # the end is told once
    assert person.command(6.5) is None


def test_the_gripper_stays_as_it_is_until_a_button_moves_it_and_then_so_until_the_person_lets_go():
    person = joy(linger=0.2, close_button=2, open_button=0)
    person.hear([0.5, 0.0, 0.0], [0, 0, 0], 0.0)
    moves(person, 0.0, 0.5, 0.0, 0.0, KEEP)
    person.hear([0.0, 0.0, 0.0], [0, 0, 1], 0.1)
    moves(person, 0.1, 0.0, 0.0, 0.0, -1.0)
    person.hear([0.0, 0.0, 0.0], [], 0.2)  # spacenav's messages have no buttons but while one is pressed
    moves(person, 0.25, 0.0, 0.0, 0.0, -1.0)  # it needs steps to close
    person.hear([0.5, 0.0, 0.0], [0, 0, 0], 0.4)
    moves(person, 0.4, 0.5, 0.0, 0.0, -1.0)
    person.hear([0.0, 0.0, 0.0], [1], 0.5)
    moves(person, 0.5, 0.0, 0.0, 0.0, 1.0)
    person.hear([0.0, 0.0, 0.0], [], 0.9)
    holds(person, 0.9)
    assert person.command(1.0) is None
    person.hear([0.5, 0.0, 0.0], [], 2.0)
    moves(person, 2.0, 0.5, 0.0, 0.0, KEEP)


def test_the_gripper_is_any_element_that_the_parameter_names():
    person = joy(PLAIN, gripper=1, gripper_start=-0.5, axes=(0, 1, 2))
    person.hear([0.1, 0.2, 0.3], [], 0.0)
    moves(person, 0.0, 0.1, -0.5, 0.2, 0.3)
    person.hear([0.0, 0.0, 0.0], [1], 1.0)
    moves(person, 1.0, 0.0, -1.0, 0.0, 0.0)
    person.hear([0.0, 0.0, 0.0], [], 1.1)
    holds(person, 2.0)
    assert person.command(9.0) is None
    person.hear([0.1, 0.2, 0.3], [], 10.0)
    moves(person, 10.0, 0.1, -1.0, 0.2, 0.3)  # what the hand holds is not dropped: there is no "as it is" for this one
    assert joy(PLAIN, gripper=0, always=True).command(0.0).action.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_without_a_gripper_its_buttons_mean_nothing():
    person = joy(PLAIN)
    person.hear([0.0, 0.0, 0.0], [1, 1], 0.0)
    assert person.command(0.0) is None


def test_only_while_the_enable_button_is_held_anything_happens():
    person = joy(enable_button=4)
    person.hear([1.0, 0.0, 0.0], [1, 0, 0, 0, 0], 0.0)
    assert person.command(0.0) is None
    person.hear([1.0, 0.0, 0.0], [0, 0, 0, 0, 1], 0.1)
    moves(person, 0.1, 1.0, 0.0, 0.0, KEEP)  # the gripper was not closed meanwhile
    person.hear([0.0, 0.0, 0.0], [0, 0, 0, 0, 1], 0.2)
    holds(person, 0.6)
    person.hear([1.0, 0.0, 0.0], [0, 0, 0, 0, 0], 0.7)
    holds(person, 0.7)  # let go: stand still at once
    assert person.command(0.8) is None


@pytest.mark.parametrize("always", [False, True])
def test_a_device_that_falls_silent_stops_the_arm(always):
    person = joy(timeout=0.5, always=always)
    person.hear([1.0, 1.0, 0.0], [1], 1.0)
    moves(person, 1.5, 1.0, 1.0, 0.0, -1.0)
    assert not person.lost(1.5)
    assert person.lost(1.6)
    holds(person, 1.6)
    for now in (1.7, 2.9, 99.0):  # nobody has let go
        holds(person, now, -1.0)
    person.hear([0.5, 0.0, 0.0], [], 100.0)
    assert not person.lost(100.0)
    moves(person, 100.0, 0.5, 0.0, 0.0, -1.0)


@pytest.mark.parametrize(("parameters", "buttons", "held"), [
    ({}, [], False), ({"enable_button": 4}, [], False), ({"enable_button": 4}, [0, 0, 0, 0, 1], True)])
def test_a_device_that_falls_silent_while_nobody_moves_it_lets_the_policy_act(parameters, buttons, held):
    person = joy(timeout=0.5, linger=0.1, **parameters)
    person.hear([0.0, 0.0, 0.0], buttons, 1.0)
    assert person.lost(2.0)
    assert [person.command(now) is not None for now in (2.0, 2.1, 9.0)] == [held] * 3


def test_another_space_forgets_neither_a_stop_nor_a_button_that_is_pressed():
    parameters = {"stop_button": 3, "success_button": 4}
    before, after = (joy(spec, **parameters) for spec in (PANDA, TURNING))
    before.hear([0.0, 0.0, 0.0], [0, 0, 0, 1, 1], 1.0)
    assert before.take_verdict() is True
    holds(before, 1.0)
    after.go_on_from(before)
    after.hear([0.0, 0.0, 0.0], [0, 0, 0, 1, 1], 1.1)
    assert after.take_verdict() is None
    holds(after, 9.0)
    after.hear([0.0, 0.0, 0.0], [], 9.1)
    after.hear([0.0, 0.0, 0.0], [0, 0, 0, 1], 9.2)
    holds(after, 9.2)
    assert after.command(9.3) is None


def test_with_always_the_arm_is_held_before_and_between():
    person = joy(always=True, linger=0.0)
    holds(person, 0.0, KEEP)
    person.hear([0.0, -1.0, 0.0], [], 0.1)
    moves(person, 0.1, 0.0, -1.0, 0.0, KEEP)
    person.hear([0.0, 0.0, 0.0], [], 0.2)
    for t in (0.3, 0.4, 9.0):
        holds(person, t, KEEP)


def test_a_button_stops_the_policy_until_it_is_pressed_again():
    person = joy(stop_button=3, timeout=100.0)
    for t, pressed in ((0.0, 1), (0.1, 1), (0.2, 0)):  # one press, told more than once
        person.hear([0.0, 0.0, 0.0], [0, 0, 0, pressed], t)
        holds(person, t)
    person.hear([0.0, 0.0, 0.0], [0, 0, 0, 1], 0.3)
    holds(person, 0.3)
    assert person.command(0.4) is None


def test_a_button_ends_the_episode_once():
    person = joy(success_button=2, failure_button=3)
    assert person.take_verdict() is None
    person.hear([0.0, 0.0, 0.0], [0, 0, 1], 0.0)
    assert person.take_verdict() is True
    person.hear([0.0, 0.0, 0.0], [0, 0, 1], 0.1)
    assert person.take_verdict() is None
    person.hear([0.0, 0.0, 0.0], [0, 0, 0, 1], 0.2)
    assert person.take_verdict() is False
    assert person.command(0.2) is None


def test_a_space_in_which_0_is_motion_is_refused():
    lifting = space(SpaceField.box("motion", [-0.02, -0.005], [0.02, 0.02], "m"))
    with pytest.raises(ConfigError, match=r"^motion\[1\]: expected bounds as far below 0 as above, .* -0.005 to 0.02"):
        KeyTeleoperator(lifting, 1.0)
    assert KeyTeleoperator(space(box("motion", 1), SpaceField.box("gripper", [0], [0.08])), 1.0).gripper == 1


@pytest.mark.parametrize(("axes", "says"), [
    ([0.0, 0.0], r"axes: expected at least 3, since parameter 'axes' is \[0, 1, 2\], found 2: is this the right"),
    ([], "axes: expected at least 3"),
    ([0.0, math.nan, 0.0], "axes: expected finite numbers, found"),
    ([math.inf, 0.0, 0.0], "axes: expected finite numbers, found"),
])
def test_a_message_that_makes_no_sense_changes_nothing(axes, says):
    person = joy(timeout=0.5)
    person.hear([0.5, 0.0, 0.0], [], 0.0)
    with pytest.raises(DataError, match=says):
        person.hear(axes, [1], 0.4)
    moves(person, 0.4, 0.5, 0.0, 0.0, KEEP)
    assert person.lost(0.6)  # it does not count as a sign of life either


anything = st.lists(st.floats(width=32), max_size=8)


@given(st.lists(st.tuples(anything, st.lists(st.integers(-9, 9), max_size=4), st.floats(0.0, 1.0)), max_size=20))
def test_whatever_a_device_sends_the_action_is_one(messages):
    person, now = joy(scales=(-10.0, 10.0, 10.0), deadband=0.9, always=True), 0.0
    for axes, buttons, pause in messages:
        now += pause
        try:
            person.hear(axes, buttons, now)
        except DataError:
            assert len(axes) < 3 or not np.isfinite(axes[:3]).all()
        action = person.command(now).action
        assert action.shape == (4,)
        assert np.all(np.abs(action[:3]) <= 1.0)  # which NaN is not
        assert action[3] in (-1.0, 1.0) or np.isnan(action[3])


@pytest.mark.parametrize(("parameters", "says"), [
    ({"axes": (0, 1, 2, 3)}, r"parameter 'axes': expected at most 3, for ee_motion\[0\], ee_motion\[1\], "
                             r"ee_motion\[2\], found \[0, 1, 2, 3\]"),
    ({"scales": (1.0, 2.0)}, r"parameter 'scales': expected one number, or one for each of 3 axes, found \[1.0, 2.0\]"),
    ({"scales": ()}, "parameter 'scales': expected one number"),
    ({"gripper": 4}, "parameter 'gripper': expected an element of the action, 0 to 3, found 4"),
    ({"close_button": 1}, r"'success_button', 'failure_button': expected different .*, found \[1, 1\]"),
    ({"enable_button": 0}, r"expected different buttons, found \[0, 1, 0\]"),
])
def test_parameters_that_do_not_fit_the_arm_are_named(parameters, says):
    with pytest.raises(ConfigError, match=says):
        joy(**parameters)


def test_it_says_what_moves_what():
    assert str(joy(axes=(1, -1), enable_button=5)) == (
        "axis 1 moves ee_motion[0]; button 0 closes gripper_opening; button 1 opens gripper_opening; "
        "nothing moves ee_motion[1], ee_motion[2]; only while button 5 is held")
