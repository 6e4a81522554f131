# SPDX-License-Identifier: Apache-2.0
"""What keys become, of which a terminal tells only that they are pressed: motions, stops, words on an episode."""

from __future__ import annotations

import numpy as np
import pytest
from teleop_world import KEEP, PANDA, TURNING, box, holds, moves, space

from rlpd_ros.teleoperation import (
    FASTER,
    HOLD,
    LINGER,
    REPEATED_HOLD,
    SLOWEST,
    KeyTeleoperator,
    split_keys,
)
from rlpd_ros.types import Source


def test_what_a_terminal_sends_is_taken_apart():
    assert split_keys("w+ \x1b[A\x1bOB\x1b[C\x1b[Dq") == ["w", "+", " ", "w", "s", "d", "a", "q"]
    assert split_keys("\x1b[1;5A\x1b[3~a") == ["\x1b[1;5A", "\x1b[3~", "a"]
    assert split_keys("\x1b[") == ["\x1b", "["]
    assert split_keys("") == []


def test_keys_move_the_elements_forwards_and_back():
    for key, expected in {"w": [0.3, 0, 0], "s": [-0.3, 0, 0], "a": [0, 0.3, 0], "d": [0, -0.3, 0], "r": [0, 0, 0.3],
                          "f": [0, 0, -0.3]}.items():
        person = KeyTeleoperator(PANDA, 0.3)
        assert person.command(0.0) is None
        person.press(key, 0.0)
        moves(person, 0.1, *expected, KEEP)


def test_a_key_counts_until_it_repeats_and_shortly_once_it_does():
    person = KeyTeleoperator(PANDA, 1.0)
    person.press("w", 0.0)
    moves(person, HOLD - 0.01, 1.0, 0.0, 0.0, KEEP)
    for i in range(10):  # a keyboard waits some 0.4 s, then repeats
        person.press("w", 0.4 + 0.033 * i)
    released = 0.4 + 0.033 * 9
    moves(person, released + REPEATED_HOLD - 0.01, 1.0, 0.0, 0.0, KEEP)
    holds(person, released + REPEATED_HOLD + 0.01)
    holds(person, released + REPEATED_HOLD + LINGER - 0.01)
    holds(person, released + REPEATED_HOLD + LINGER + 0.01)  # the end is told once
    assert person.command(released + REPEATED_HOLD + LINGER + 0.02) is None


def test_two_keys_move_two_elements_and_the_opposite_one_turns_round():
    person = KeyTeleoperator(PANDA, 1.0)
    person.press("w", 0.0)
    person.press("f", 0.1)
    moves(person, 0.2, 1.0, 0.0, -1.0, KEEP)
    person.press("s", 0.3)
    moves(person, 0.3, -1.0, 0.0, -1.0, KEEP)


def test_any_other_key_stops_all_motion_at_once_and_the_policy_until_space():
    person = KeyTeleoperator(PANDA, 1.0)
    person.press("w", 0.0)
    moves(person, 0.0, 1.0, 0.0, 0.0, KEEP)
    person.press("x", 0.1)
    for t in (0.1, 0.2, 99.0):
        holds(person, t)
    person.press("w", 100.0)
    moves(person, 100.0, 1.0, 0.0, 0.0, KEEP)
    holds(person, 200.0)
    person.press(" ", 201.0)
    holds(person, 201.0)
    assert person.command(202.0) is None


def test_the_gripper_closes_and_opens():
    person = KeyTeleoperator(PANDA, 1.0)
    person.press("g", 0.0)
    moves(person, 0.1, 0.0, 0.0, 0.0, -1.0)
    person.press("w", 0.3)
    moves(person, 0.6, 1.0, 0.0, 0.0, -1.0)
    person.press("g", 0.7)
    moves(person, 0.7, 1.0, 0.0, 0.0, 1.0)
    holds(person, 9.0)
    assert person.command(9.1) is None
    person.press("w", 9.2)
    moves(person, 9.2, 1.0, 0.0, 0.0, KEEP)


def test_speed_stays_within_its_bounds():
    person = KeyTeleoperator(PANDA, 0.5)
    person.press("+", 0.0)
    assert person.speed == pytest.approx(0.5 * FASTER)
    person.press("-", 0.0)
    assert person.speed == pytest.approx(0.5)
    for _ in range(50):
        person.press("=", 0.0)
    assert person.speed == 1.0
    for _ in range(50):
        person.press("-", 0.0)
    assert person.speed == SLOWEST
    assert person.command(0.0) is None  # nobody moves the arm by that


def test_space_turns_always_on_and_off():
    person = KeyTeleoperator(PANDA, 0.5)
    person.press(" ", 0.0)
    holds(person, 0.0)
    holds(person, 100.0)
    person.press(" ", 101.0)
    holds(person, 101.0)
    assert person.command(102.0) is None


def held_down(person: KeyTeleoperator, key: str, since: float, until: float) -> None:
    """Press a key as a keyboard does that repeats it after 0.66 s, 25 times a second."""
    person.press(key, since)
    for now in np.arange(since + 0.66, until, 0.04):
        person.press(key, now)


def test_a_space_that_is_held_down_stops_the_policy_for_however_long():
    for until in np.arange(1.0, 3.0, 0.04):
        person = KeyTeleoperator(PANDA, 0.5)
        held_down(person, " ", 0.0, until)
        holds(person, 9.0)
        person.press(" ", 10.0)
        holds(person, 10.0)
        assert person.command(11.0) is None
        held_down(person, " ", 20.0, 20.0 + until)  # stops
        held_down(person, " ", 30.0, 30.0 + until)  # would let it act, but who holds it down does not want that
        holds(person, 40.0)


def test_a_gripper_key_that_is_held_down_counts_once():
    person = KeyTeleoperator(PANDA, 0.5)
    for at, opening in ((0.0, -1.0), (10.0, 1.0), (20.0, -1.0)):
        held_down(person, "g", at, at + 2.0)
        moves(person, at + 2.1, 0.0, 0.0, 0.0, opening)


def test_a_word_is_taken_once_however_long_its_key_is_held_down():
    person = KeyTeleoperator(PANDA, 0.5)
    taken = []
    for key, now in zip("yyyynnywy", (0.0, 0.66, 0.7, 1.3, 1.4, 1.5, 5.0, 5.1, 5.2), strict=True):
        person.press(key, now)
        taken.append(person.take_verdict())
    assert taken == [True, None, None, None, False, None, True, None, True]


def test_every_arm_can_be_moved_or_it_is_said_what_cannot():
    person = KeyTeleoperator(space(box("torque", 1)), 1.0)
    for key in "sagr":  # of which only the first means something here
        person.press(key, 0.0)
    holds(person, 0.0)
    person.press("s", 0.1)
    moves(person, 0.1, -1.0)
    person = KeyTeleoperator(TURNING, 1.0)
    person.press("2", 0.0)
    person.press("9", 0.0)
    moves(person, 0.0, 0, 0, 0, -1, 0, 0, 0, 1, 0, 0, 0, 0, KEEP)
    assert "  9 0                  tool[7] +, -" in person.help()
    assert "  no keys are left for tool[8], tool[9], tool[10], tool[11]: use teleop_joy" in person.help()
    assert not any("no keys are left" in line for line in KeyTeleoperator(PANDA, 1.0).help())


def test_the_end_is_told_only_where_something_is_under_way():
    person = KeyTeleoperator(PANDA, 1.0)
    assert person.stop() is None
    person.press("w", 0.0)
    moves(person, 0.0, 1.0, 0.0, 0.0, KEEP)
    assert person.stop().source is Source.HOLD
    assert person.stop() is None
