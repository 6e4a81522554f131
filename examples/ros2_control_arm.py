# SPDX-License-Identifier: Apache-2.0
"""An arm that has a ROS 2 driver: joint states in, joint trajectories out. See docs/your_arm.md.

``ROS_DOMAIN_ID=0 PYTHONPATH=examples:$PYTHONPATH rlpd train --config examples/ros2_control_arm.yaml``
"""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Sequence
from threading import Condition, Thread

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from rlpd_ros.arm.config import DriverConfig
from rlpd_ros.arm.driver import Expert
from rlpd_ros.arm.safety import admit_action, clip, limit_joint_motion
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.types import Observation, SpaceField, SpaceSpec, StepResult

PATIENCE = 10.0  # s for the arm's driver to be found, and to be heard again
AT_HOME = 0.02  # rad that each joint may be from home when an episode begins
NOISE = 0.02  # rad that a joint may be measured elsewhere than it is
REACHED = 0.05  # rad that each joint may be from the goal
GOALS = 0.6  # part of the joints' range in which goals are


class Connection:
    """The topics of the arm's own driver, with a context and a thread of their own.

    The arm driver node spins nothing while it is busy with ``step``, and `rlpd record` and `rlpd eval` have no node at
    all. A context of its own works in each of them, and ``args=[]`` keeps from it the name and namespace that are meant
    for the arm driver node.
    """

    def __init__(self, joints: Sequence[str], state_topic: str, command_topic: str, max_state_age: float) -> None:
        self._joints, self._max_age = tuple(joints), max_state_age
        self._state_topic, self._command_topic = state_topic, command_topic
        self._position = np.empty(0)
        self._received = -math.inf  # s, by this machine's clock: stamps may be another's
        self._heard = Condition()
        self._context = Context()
        rclpy.init(args=[], context=self._context)
        self._node = rclpy.create_node("rlpd_arm_connection", context=self._context, enable_rosout=False)
        self._node.create_subscription(JointState, state_topic, self._on_state, qos_profile_sensor_data)
        self._commands = self._node.create_publisher(JointTrajectory, command_topic, 1)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def position(self) -> np.ndarray:
        """Return the joints' positions, rad (n,). Raises DataError if they are old or nobody takes commands."""
        if complaint := self._complaint():
            raise DataError(complaint)
        return self._position

    def next_position(self) -> np.ndarray:
        """Wait for positions that are heard from now on, and return them. Raises ConfigError, which ends everything."""
        called = time.monotonic()
        with self._heard:
            self._heard.wait_for(lambda: self._received > called and not self._complaint(), PATIENCE)
        try:
            return self.position()
        except DataError as error:
            raise ConfigError(str(error)) from None

    def command(self, position: np.ndarray, duration: float) -> None:
        """Let the controller move all joints to ``position``, rad (n,), within ``duration`` s, and keep them there."""
        point = JointTrajectoryPoint(positions=position.tolist(), time_from_start=Duration(seconds=duration).to_msg())
        self._commands.publish(JointTrajectory(joint_names=self._joints, points=[point]))

    def close(self) -> None:
        """End the thread."""
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _on_state(self, message: JointState) -> None:
        found = dict(zip(message.name, message.position, strict=False))  # in an order of the driver's own
        position = np.array([found.get(joint, math.nan) for joint in self._joints])
        if np.isfinite(position).all():  # otherwise of a gripper, say, that is published there too
            with self._heard:
                self._position, self._received = position, time.monotonic()
                self._heard.notify_all()

    def _complaint(self) -> str:
        """Return why the arm must not be moved now, or ""."""
        age = time.monotonic() - self._received
        where = f"on ROS_DOMAIN_ID {self._context.get_domain_id()}: export the arm's own, and see whether its"
        if age > self._max_age:
            found = "none" if age == math.inf else f"some {age:.1f} s old"
            return (f"{self._state_topic}: expected positions of {', '.join(self._joints)}, at most {self._max_age:g} "
                    f"s old, found {found} {where} driver runs and has these joints")
        if not self._commands.get_subscription_count():
            return f"{self._command_topic}: expected a controller, found none {where} driver has it loaded"
        return ""


class Ros2ControlArm:
    """Move joints of a ros2_control arm to a goal that is elsewhere in each episode. Implements ``ArmDriver``.

    Action (m): the motions of the first ``moved`` joints in units of ``scale``. Observation (2m): their positions and
    the way from there to the goal, rad. Reward 1 and termination when each of them is within REACHED of the goal.
    """

    def __init__(
            self, config: DriverConfig, *,
            joints: Sequence[str] = ("shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint", "wrist_1_joint",
                                     "wrist_2_joint", "wrist_3_joint"),  # all that the controller has
            moved: int = 3,  # how many of them, from the first, the policy moves; the others stay at home
            home: Sequence[float] = (0.0, -1.57, 1.57, -1.57, -1.57, 0.0),  # where episodes begin, rad
            joint_range: float = 0.5,  # rad that each joint may go from home, to either side
            scale: float = 0.05,  # rad per control period, for an action of 1
            max_speed: float = 0.6,  # rad/s
            home_speed: float = 0.2,  # rad/s, on the way home
            max_lead: float = 0.15,  # rad that commands may run ahead of a joint that something blocks
            max_state_age: float = 0.2,  # s; positions that were heard earlier do not count
            state_topic: str = "/joint_states",
            command_topic: str = "/joint_trajectory_controller/joint_trajectory") -> None:
        for name, value in (("joint_range", joint_range), ("scale", scale), ("max_speed", max_speed),
                            ("home_speed", home_speed), ("max_lead", max_lead), ("max_state_age", max_state_age)):
            if not (isinstance(value, int | float) and value > 0):
                raise ConfigError(f"{name}: expected a number above 0, found {value!r}")
        n, m = len(joints), moved
        if len(home) != n or not all(isinstance(position, int | float) for position in home):
            raise ConfigError(f"home: expected {n} positions, as many as joints, found {list(home)}")
        if not 1 <= m <= n:
            raise ConfigError(f"moved: expected 1 to {n}, the number of joints, found {m}")
        self._config, self._home, self._moved = config, np.array(home, np.float64), m
        self._range, self._scale, self._max_lead = joint_range, scale, max_lead
        self._max_speed, self._home_speed = max_speed, home_speed
        self._low, self._high = self._home - joint_range, self._home + joint_range
        self._period = 1.0 / config.control_rate
        self._max_motion = np.full(n, min(scale, max_speed * self._period))
        self._home_motion, self._home_timeout = home_speed * self._period, 2 * joint_range / home_speed + PATIENCE
        self._rng = np.random.default_rng(config.seed)
        self.spec = SpaceSpec(
            robot="ros2_control", frame_id="base_link", control_rate=config.control_rate, lockstep=config.lockstep,
            max_episode_steps=config.max_episode_steps or 40,
            observation=(SpaceField.box("joint_position", self._low[:m], self._high[:m], "rad"),
                         SpaceField.box("goal_offset", [-2 * joint_range] * m, [2 * joint_range] * m, "rad")),
            action=(SpaceField.box("joint_motion", [-scale] * m, [scale] * m, "rad"),))
        self._goal, self._commanded = self._home[:m], self._home
        self._executed = np.zeros(m, np.float32)
        self._steps, self._over = 0, True
        self._connection = Connection(joints, state_topic, command_topic, max_state_age)
        self._close = weakref.finalize(self, self._connection.close)  # by ``close``, or when this is garbage

    def reset(self, seed: int | None = None) -> Observation:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._over = True
        position = self._go_home()
        farthest = GOALS * self._range
        self._goal = self._home[:self._moved] + self._rng.uniform(-farthest, farthest, self._moved)
        self._executed = np.zeros_like(self._executed)
        self._steps, self._over = 0, False
        return self._observe(position)

    def step(self, action: np.ndarray) -> StepResult:
        if self._over:
            raise DataError("step: the episode is over; reset the arm first")
        admitted = admit_action(action, self._moved, self._executed, self._config.max_action_change)
        asked = np.zeros_like(self._home)
        asked[:self._moved] = self._scale * admitted
        motion = self._move(asked, self._connection.position(), self._max_speed)[:self._moved]
        time.sleep(self._period if self._config.lockstep else 0.5 * self._period)  # see docs/your_arm.md
        self._executed = (motion / self._scale).astype(np.float32).clip(-1.0, 1.0)
        position = self._connection.next_position()  # no DataError from here on: the arm has moved
        self._steps += 1
        success = bool((np.abs(self._goal - position[:self._moved]) < REACHED).all())
        truncated = not success and self._steps >= self.spec.max_episode_steps
        self._over = success or truncated
        return StepResult(self._observe(position), float(success), success, truncated, success, self._executed.copy())

    def hold(self) -> StepResult:
        if self._config.lockstep:
            time.sleep(self._period)  # and no command: the controller keeps the arm where its trajectory ended
        self._executed = np.zeros_like(self._executed)
        observation = self._observe(self._connection.next_position())
        return StepResult(observation, 0.0, False, False, False, self._executed.copy())

    def telemetry(self) -> None:
        return None  # the arm's own driver publishes joint_states

    def expert(self, noise: float = 0.0, seed: int = 0) -> Expert:
        rng, m = np.random.default_rng(seed), self._moved

        def act(observation: Observation) -> np.ndarray:
            motion = observation.state[m:] / self._scale + noise * rng.standard_normal(m)
            return np.clip(motion, -1.0, 1.0).astype(np.float32)

        return act

    def close(self) -> None:
        self._over = True
        self._close()  # a finalizer does its work once

    def _observe(self, position: np.ndarray) -> Observation:
        moved = position[:self._moved]
        state = np.concatenate([moved, self._goal - moved]).astype(np.float32)
        return Observation(clip(state, *self.spec.state_bounds))  # a joint at a limit is measured beyond it at times

    def _move(self, motion: np.ndarray, position: np.ndarray, speed: float) -> np.ndarray:
        """Command what the limits leave of a ``motion`` of joints at ``position``, and return it. All in rad (n,).

        A motion begins where the last command ended, not where the joints are: else the arm would sag. Only a joint
        further from there than commands run ahead was moved by something else, a hand say: its motion begins where it
        is. No joint is asked for more than ``speed``, rad/s, also where the arm is behind its commands.
        """
        moved = np.abs(self._commanded - position) > self._max_lead + NOISE
        begin = np.where(moved, position, self._commanded)
        led = clip(begin + motion, position - self._max_lead, position + self._max_lead) - begin
        admitted = limit_joint_motion(begin, led, self._low, self._high, self._max_motion)
        admitted = clip(admitted, -self._max_motion, self._max_motion)  # from beyond the range the way back is long
        self._commanded = begin + admitted
        farthest = np.abs(self._commanded - position).max()
        self._connection.command(self._commanded, max(self._period, farthest / speed))
        return admitted

    def _go_home(self) -> np.ndarray:
        """Move home, by small commands so that the arm stops if they do; return the joints' positions, rad (n,)."""
        position, deadline = self._connection.next_position(), time.monotonic() + self._home_timeout
        far = np.abs(position - self._home) > self._range + AT_HOME
        if far.any():
            raise ConfigError(f"reset: expected all joints within {self._range:g} rad of home, {self._home.tolist()}, "
                              f"found {position.round(2).tolist()}: move the arm there by other means first")
        self._commanded = clip(position, self._low, self._high)
        while not (np.allclose(self._commanded, self._home) and np.allclose(position, self._home, atol=AT_HOME)):
            if time.monotonic() > deadline:
                raise ConfigError(f"reset: expected the joints at home, {self._home.tolist()} rad, found "
                                  f"{position.round(2).tolist()}: is the controller active, and the way free?")
            way = clip(self._home - self._commanded, -self._home_motion, self._home_motion)
            self._move(way, position, self._home_speed)
            time.sleep(self._period)  # in real time too: a reset may take as long as it likes
            position = self._connection.next_position()
        return position
