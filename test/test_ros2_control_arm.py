# SPDX-License-Identifier: Apache-2.0
"""The example of an arm with a ROS 2 driver, on real middleware with a robot that is not there. See test_arm.py too."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fake_robot import FakeRobot

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.nodes.arm_driver import ArmDriverNode
from rlpd_ros.ros import qos

sys.path.append(str(Path(__file__).parents[1] / "examples"))

import ros2_control_arm

JOINTS, HOME = ("elbow", "wrist"), (0.5, -1.5)
RATE = 50.0  # Hz
CONFIG = ArmConfig(control_rate=RATE, max_episode_steps=100)
QUICK = {"moved": 2, "max_speed": 5.0, "home_speed": 5.0, "max_state_age": 1.0}


@pytest.fixture
def robot(domain):
    robot = FakeRobot(JOINTS, (0.4, -1.4))
    yield robot
    robot.close()


@pytest.fixture
def make(domain):
    made = []

    def make(config=CONFIG, **settings):
        made.append(ros2_control_arm.Ros2ControlArm(config, joints=JOINTS, home=HOME, **{**QUICK, **settings}))
        return made[-1]

    yield make
    for arm in made:
        arm.close()


def commanded(robot):
    """Return where the trajectories led, rad (commands, n)."""
    return np.array([message.points[-1].positions for message in robot.commands])


def wait(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def put(robot, arm, position):
    """Move the robot by hand, and wait until the arm has heard of it."""
    robot.position = np.array(position)
    wait(lambda: np.allclose(arm._connection._position, position, rtol=0.0))


def test_a_reset_goes_home_at_its_own_speed(robot, make):
    start = robot.position
    observation = make(home_speed=0.5).reset()
    way = np.diff(np.vstack([start, commanded(robot)]), axis=0)
    assert np.abs(way).max() <= 0.5 / RATE + 1e-9
    assert len(way) >= 10
    np.testing.assert_allclose(robot.position, HOME)
    np.testing.assert_allclose(observation.state[:2], HOME)


def test_a_reset_in_real_time_takes_its_time_too(robot, make):
    arm = make(ArmConfig(control_rate=10.0, lockstep=False), home_speed=0.2)
    arm.hold()
    began = time.monotonic()
    arm.reset()
    assert time.monotonic() - began >= 5 / 10.0
    wait(lambda: len(robot.commands) == 5)


def test_commands_stay_within_speed_and_range(robot, make):
    arm = make(joint_range=0.2, scale=0.1, max_speed=2.0)
    arm.reset()
    results = [arm.step(np.ones(2)) for _ in range(8)]
    assert np.abs(np.diff(commanded(robot), axis=0)).max() <= 2.0 / RATE + 1e-9
    np.testing.assert_allclose(robot.position, np.add(HOME, 0.2))
    np.testing.assert_allclose(results[0].executed_action, 0.4)  # of what was asked for
    np.testing.assert_allclose(results[-1].executed_action, 0.0, atol=1e-6)


def test_joints_that_are_not_moved_stay_at_home(robot, make):
    arm = make(moved=1)
    assert (arm.spec.action_size, arm.spec.state_size) == (1, 2)
    arm.reset()
    arm.step(np.ones(1))
    np.testing.assert_allclose(robot.position, np.add(HOME, [0.05, 0.0]))


def test_commands_do_not_run_away_from_an_arm_that_is_blocked(robot, make):
    arm = make(max_lead=0.12)
    arm.reset()
    robot.blocked = True
    results = [arm.step(np.ones(2)) for _ in range(6)]
    np.testing.assert_allclose(commanded(robot)[-1], np.add(HOME, 0.12))
    assert (results[-1].executed_action == 0.0).all()


def test_a_blocked_joint_that_is_measured_a_little_off_was_not_moved(robot, make):
    arm = make(max_lead=0.12)
    arm.reset()
    robot.blocked = True
    for _ in range(4):
        arm.step(np.ones(2))
    put(robot, arm, np.subtract(HOME, 0.01))
    arm.step(np.ones(2))
    np.testing.assert_allclose(commanded(robot)[-1], np.add(HOME, 0.11))


def test_a_joint_that_was_moved_by_hand_goes_on_from_there(robot, make):
    arm = make()
    arm.reset()
    put(robot, arm, np.add(HOME, [0.4, 0.1]))
    result = arm.step(np.zeros(2))
    np.testing.assert_allclose(robot.position, np.add(HOME, [0.4, 0.0]))  # 0.1 may be what something blocks
    assert (result.executed_action == 0.0).all()
    result = arm.step(np.ones(2))
    np.testing.assert_allclose(robot.position, np.add(HOME, [0.45, 0.05]))
    np.testing.assert_allclose(result.executed_action, 1.0)
    put(robot, arm, np.add(HOME, [0.7, 0.0]))  # beyond the range
    result = arm.step(np.zeros(2))
    np.testing.assert_allclose(robot.position, np.add(HOME, [0.65, 0.05]))
    np.testing.assert_allclose(result.executed_action, [-1.0, 0.0], atol=1e-6)


def test_an_arm_that_was_moved_or_freed_is_not_hurried(robot, make):
    arm = make(max_speed=2.0, home_speed=0.5, max_lead=0.12)
    arm.reset()
    assert max(robot.speeds) <= 0.5 * (1 + 1e-6)
    robot.blocked = True
    for _ in range(4):
        arm.step(np.ones(2))
    robot.blocked = False
    arm.step(np.zeros(2))
    np.testing.assert_allclose(robot.position, np.add(HOME, 0.12))
    for away in (-0.1, 0.4):
        put(robot, arm, robot.position + away)
        arm.step(-np.ones(2))
    assert max(robot.speeds) <= 2.0 * (1 + 1e-6)
    robot.blocked = True
    arm._home_timeout, count = 0.5, len(robot.speeds)
    with pytest.raises(ConfigError, match="reset: expected the joints at home"):
        arm.reset()
    assert len(robot.speeds) - count > 10
    assert max(robot.speeds[count:]) <= 0.5 * (1 + 1e-6)


def test_an_arm_that_is_not_heard_is_not_moved(robot, make, monkeypatch):
    arm = make(max_state_age=0.3)
    arm.reset()
    arm.step(np.zeros(2))
    robot.silent = True
    wait(arm._connection._complaint)
    count = len(robot.commands)
    with pytest.raises(DataError, match=r"^/joint_states: expected positions of elbow, wrist, at most 0.3 s old, found "
                                        r"some [\d.]+ s old on ROS_DOMAIN_ID \d+"):
        arm.step(np.ones(2))
    monkeypatch.setattr(ros2_control_arm, "PATIENCE", 0.05)
    with pytest.raises(ConfigError, match=r"^/joint_states: .* s old on ROS_DOMAIN_ID \d+"):
        arm.hold()
    assert len(robot.commands) == count
    robot.silent = False
    wait(lambda: not arm._connection._complaint())
    arm.step(np.ones(2))
    assert len(robot.commands) == count + 1


def test_what_is_not_there_is_named(robot, make, monkeypatch):
    monkeypatch.setattr(ros2_control_arm, "PATIENCE", 0.5)
    with pytest.raises(ConfigError, match=r"^/left/joint_states: .* found none on ROS_DOMAIN_ID"):
        make(state_topic="/left/joint_states").reset()
    arm = make(command_topic="/no/controller")
    wait(lambda: arm._connection._received > 0.0)
    with pytest.raises(ConfigError, match=r"^/no/controller: expected a controller, found none on ROS_DOMAIN_ID"):
        arm.reset()
    with pytest.raises(ConfigError, match=r"^home: expected 2 positions, as many as joints, found \[0.0\]"):
        ros2_control_arm.Ros2ControlArm(ArmConfig(), joints=JOINTS, home=[0.0])
    with pytest.raises(ConfigError, match=r"^home: expected 2 positions, as many as joints, found \[0.0, 'x'\]"):
        ros2_control_arm.Ros2ControlArm(ArmConfig(), joints=JOINTS, home=[0.0, "x"])
    for name in ("joint_range", "scale", "max_speed", "home_speed", "max_lead", "max_state_age"):
        for value in (0, -0.1, "fast"):
            with pytest.raises(ConfigError, match=f"^{name}: expected a number above 0, found {value!r}"):
                make(**{name: value})
    with pytest.raises(ConfigError, match=r"^moved: expected 1 to 2, the number of joints, found 3"):
        make(moved=3)


def test_a_reset_that_cannot_be_ends_everything(robot, make, monkeypatch):
    with pytest.raises(ConfigError, match=r"reset: expected all joints within 0.05 rad of home"):
        make(joint_range=0.05).reset()
    assert not robot.commands
    arm = make(joint_range=0.2)
    arm.hold()
    monkeypatch.setattr(ros2_control_arm, "PATIENCE", 0.5)
    robot.blocked = True
    arm._home_timeout = 0.2
    with pytest.raises(ConfigError, match=r"reset: expected the joints at home, \[0.5, -1.5\] rad, found \[0.4,"):
        arm.reset()
    with pytest.raises(DataError, match="reset"):
        arm.step(np.zeros(2))


def test_its_thread_ends_with_it(robot, make):
    threads = threading.active_count()
    arm = make()
    arm.reset()
    assert threading.active_count() == threads + 1
    arm.close()
    arm.close()
    assert threading.active_count() == threads
    forgotten = ros2_control_arm.Ros2ControlArm(ArmConfig())
    assert threading.active_count() == threads + 1
    del forgotten
    assert threading.active_count() == threads


def test_the_node_around_it_leaves_joint_states_to_the_robot(robot, graph):
    graph.listen(qos.OBSERVATION)
    driver = graph.add(ArmDriverNode, "rlpd", arm="ros2_control_arm:Ros2ControlArm",
                       arm_kwargs='{"joints": ["elbow", "wrist"], "home": [0.5, -1.5], "moved": 2}')
    published = {publisher.topic_name for publisher in driver.publishers}
    assert "/rlpd/observation" in published
    assert not published & {"/rlpd/joint_states", "/rlpd/ee_pose"}
    graph.until(lambda: [i.node_name for i in graph.ears.get_publishers_info_by_topic("/joint_states")]
                == ["fake_robot"])
