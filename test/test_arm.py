# SPDX-License-Identifier: Apache-2.0
"""What every arm driver must do, whatever it drives."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from fake_robot import FakeRobot
from gymnasium import spaces

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.factory import make_arm, make_arm_alone
from rlpd_ros.arm.opengl import find_backend
from rlpd_ros.errors import ConfigError, DataError


class Tray(gymnasium.Env):
    """A Dict observation with a nested entry and an image, drawn again in place; bounds that are not symmetric."""

    def __init__(self):
        self.observation_space = spaces.Dict({
            "pose": spaces.Dict({"position": spaces.Box(-2.0, 2.0, (2, 2), np.float64)}),
            "height": spaces.Box(0.0, 9.0, (), np.float32),
            "camera": spaces.Box(0, 255, (4, 6, 3), np.uint8),
        })
        self.picture = np.zeros((4, 6, 3), np.uint8)
        self.action_space = spaces.Box(np.array([0.0, -4.0]), np.array([2.0, 4.0]), dtype=np.float64)

    def _observe(self):
        self.picture[:] = 10 * self.height
        return {"pose": {"position": np.clip(self.position, -2, 2)}, "height": np.float32(self.height),
                "camera": self.picture}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.height = self.np_random.uniform(-1, 1, (2, 2)), 0
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.position = self.position + 0.01 * action
        self.height += 1
        return self._observe(), float(action[0]), False, False, {}


gymnasium.register("rlpd_test/Tray-v0", entry_point=Tray, max_episode_steps=9)

sys.path.append(str(Path(__file__).parents[1] / "examples"))

ARMS = {
    "mujoco": ArmConfig(max_episode_steps=6),
    "cameras": ArmConfig(max_episode_steps=6, cameras=("front", "wrist"), observe_cube=False, image_width=32,
                         image_height=32),
    "pendulum": ArmConfig(arm="gymnasium", gym_env_id="Pendulum-v1", max_episode_steps=6),
    "car": ArmConfig(arm="gymnasium", gym_env_id="MountainCarContinuous-v0", max_episode_steps=6),
    "own": ArmConfig(arm="reach:ReachArm", max_episode_steps=6),
    "own with a camera": ArmConfig(arm="reach_seen:SeenReachArm", max_episode_steps=6),
    "own with a driver in ROS": ArmConfig(
        arm="ros2_control_arm:Ros2ControlArm", control_rate=20.0, max_episode_steps=6,
        arm_kwargs='{"joints": ["elbow", "wrist"], "home": [0.5, -1.5], "moved": 2, "max_speed": 2, "home_speed": 2, '
                   '"max_state_age": 1}'),
    "dict": ArmConfig(arm="gymnasium", gym_env_id="rlpd_test/Tray-v0", max_episode_steps=6),
}


@pytest.fixture
def robot(domain):
    robot = FakeRobot(("elbow", "wrist"), (0.4, -1.6))
    yield robot
    robot.close()


@pytest.fixture(params=ARMS)
def config(request):
    if request.param == "cameras" and not find_backend():
        pytest.skip("nothing to draw with: neither EGL nor libosmesa6")
    if request.param == "own with a driver in ROS":
        request.getfixturevalue("robot")
    return ARMS[request.param]


@pytest.fixture
def arm(config):
    arm = make_arm(config)
    yield arm
    arm.close()


def check_observation(observation, spec):
    assert observation.state.shape == (spec.state_size,)
    assert observation.state.dtype == np.float32
    assert np.isfinite(observation.state).all()
    low, high = spec.state_bounds
    assert (low <= observation.state).all()
    assert (observation.state <= high).all()
    assert {name: (image.shape, image.dtype) for name, image in observation.images.items()} == {
        f.name: (f.shape, np.uint8) for f in spec.image_fields}


def seen(observation):
    """Return all that was observed as one array: the state, then the images."""
    return np.concatenate([observation.state, *(image.ravel() for image in observation.images.values())])


def rollout(arm, actions, seed=None):
    return [seen(arm.reset(seed)), *(seen(arm.step(action).observation) for action in actions)]


def random_actions(spec, count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, spec.action_size)).astype(np.float32)


def test_spec_describes_what_reset_and_step_return(arm):
    spec = arm.spec
    assert spec.max_episode_steps == 6
    for f in (*spec.observation, *spec.action):
        assert all(low < high for low, high in zip(f.low, f.high, strict=True)), f.name
    check_observation(arm.reset(seed=1), spec)
    for action in random_actions(spec, 5):
        result = arm.step(action)
        check_observation(result.observation, spec)
        assert result.executed_action.shape == (spec.action_size,)
        assert result.executed_action.dtype == np.float32
        assert (np.abs(result.executed_action) <= 1.0).all()
        assert type(result.reward) is float
        assert all(type(flag) is bool for flag in (result.terminated, result.truncated, result.success))


def test_spec_is_the_same_each_time(arm, config):
    assert make_arm(config).spec.fingerprint == arm.spec.fingerprint


def test_same_seed_and_actions_give_the_same_episode(arm, config):
    actions = random_actions(arm.spec, 5)
    first = rollout(arm, actions, seed=5)
    np.testing.assert_array_equal(first, rollout(arm, actions, seed=5))
    np.testing.assert_array_equal(first, rollout(make_arm(config), actions, seed=5))
    assert not np.array_equal(first[0], seen(arm.reset(seed=6)))


def test_episodes_without_a_seed_differ_and_follow_from_the_configured_seed(arm, config):
    starts = [seen(arm.reset()) for _ in range(3)]
    assert not np.array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[1], starts[2])
    again = make_arm(config)
    np.testing.assert_array_equal(starts, [seen(again.reset()) for _ in range(3)])


def test_actions_beyond_the_range_are_clipped(arm, config):
    actions = 5.0 * random_actions(arm.spec, 5)
    expected = rollout(make_arm(config), np.clip(actions, -1, 1), seed=2)
    np.testing.assert_array_equal(rollout(arm, actions, seed=2), expected)


def test_bad_actions_are_refused_and_change_nothing(arm, config):
    good = random_actions(arm.spec, 4)
    n = arm.spec.action_size
    arm.reset(seed=3)
    for bad in (np.zeros(n + 1), np.zeros((1, n)), np.full(n, np.nan), np.full(n, np.inf), None, "left", [[0], [0, 1]]):
        with pytest.raises(DataError, match="action"):
            arm.step(bad)
    states = [seen(arm.step(action).observation) for action in good]
    np.testing.assert_array_equal(states, rollout(make_arm(config), good, seed=3)[1:])


def test_what_was_executed_does_the_same_when_it_is_asked_for(arm):
    asked = np.sign(random_actions(arm.spec, 5))
    arm.reset(seed=4)
    first = [arm.step(action) for action in asked]
    executed = [r.executed_action for r in first]
    states = [found[:arm.spec.state_size] for found in rollout(arm, executed, seed=4)[1:]]
    np.testing.assert_allclose(states, [r.observation.state for r in first], atol=1e-5)


def test_time_limit_truncates_and_a_reset_begins_again(arm):
    arm.reset(seed=0)
    still = np.zeros(arm.spec.action_size)
    results = [arm.step(still) for _ in range(6)]
    assert [r.truncated for r in results] == [False] * 5 + [True]
    assert not any(r.terminated for r in results)
    with pytest.raises(DataError, match="reset"):
        arm.step(still)
    arm.reset()
    assert not arm.step(still).truncated


def test_step_before_the_first_reset_is_refused(arm):
    with pytest.raises(DataError, match="reset"):
        arm.step(np.zeros(arm.spec.action_size))


def test_change_from_step_to_step_is_limited(config):
    arm = make_arm(replace(config, max_action_change=0.25))
    arm.reset(seed=0)
    previous = arm.hold().executed_action
    for asked in (-1.0, 1.0, -1.0):
        executed = arm.step(np.full(arm.spec.action_size, asked)).executed_action
        np.testing.assert_allclose(executed, np.clip(asked, previous - 0.25, previous + 0.25), atol=1e-5)
        previous = executed


def test_holding_is_no_step(arm):
    arm.hold()  # before the first reset too
    arm.reset(seed=0)
    for _ in range(10):
        result = arm.hold()
        check_observation(result.observation, arm.spec)
        assert (result.reward, result.terminated, result.truncated, result.success) == (0.0, False, False, False)
    results = [arm.step(np.zeros(arm.spec.action_size)) for _ in range(6)]
    assert [r.truncated for r in results] == [False] * 5 + [True]
    arm.hold()


def test_results_are_the_callers_own(arm):
    arm.reset(seed=0)
    first = arm.step(np.full(arm.spec.action_size, 0.5))
    kept = seen(first.observation).copy(), first.executed_action.copy()
    arm.step(np.full(arm.spec.action_size, -0.5))
    np.testing.assert_array_equal(seen(first.observation), kept[0])
    np.testing.assert_array_equal(first.executed_action, kept[1])


def test_closing_twice_is_harmless(arm):
    arm.reset()
    arm.close()
    arm.close()


@pytest.mark.parametrize(("arm", "says"), [("ur5", "MODULE:CLASS"), ("no_such_module:Arm", "no_such_module"),
                                           ("reach:NoArm", "NoArm"), (":Arm", "MODULE:CLASS"),
                                           ("reach:", "MODULE:CLASS"), (".reach:ReachArm", "MODULE:CLASS")])
def test_an_arm_that_is_not_there_is_named(arm, says):
    with pytest.raises(ConfigError, match=says):
        make_arm(ArmConfig(arm=arm))


@pytest.mark.parametrize(("arm", "says"), [
    ("json:dumps", "expected a class of an arm, found dumps, which makes none: .*ArmConfig is not JSON serializable"),
    ("pathlib:Path", "expected a class of an arm, found Path, which makes none: "),
    ("builtins:max", "max cannot be made with"),
    ("builtins:repr", "expected an arm with spec, reset, step, found 'str' without spec, reset, step; see docs/")])
def test_what_makes_no_arm_is_refused_in_one_line(arm, says):
    with pytest.raises(ConfigError, match=says) as caught:
        make_arm(ArmConfig(arm=arm))
    assert "\n" not in str(caught.value)


class Broken:
    """An arm, but for a fault in it."""

    def __init__(self, config):
        self.speed = config.speed

    def reset(self, seed=None):
        return seed


def refuse(config):
    raise ConfigError("robot_ip: expected an address")


@pytest.mark.parametrize(("name", "error"), [("Broken", AttributeError), ("refuse", ConfigError)])
def test_what_goes_wrong_in_somebodys_arm_is_left_as_it_is(name, error):
    with pytest.raises(error, match=r"^('ArmConfig' object has no attribute 'speed'|robot_ip: expected an address)$"):
        make_arm(ArmConfig(arm=f"{__name__}:{name}"))


def test_a_renderer_that_mujoco_does_not_know_is_said_in_one_line(tmp_path):
    code = ("from rlpd_ros.arm.factory import *\n"
            "try: make_arm(ArmConfig())\n"
            "except ConfigError as error: print(error)")
    said = subprocess.check_output([sys.executable, "-c", code], env=os.environ | {"MUJOCO_GL": "foo"}, cwd=tmp_path,
                                   text=True)
    assert said.startswith("MuJoCo cannot draw by MUJOCO_GL=foo: ")
    assert said.count("\n") == 1


def test_an_arm_that_nobody_ticks_keeps_the_time_itself(robot):
    config = replace(ARMS["own with a driver in ROS"], lockstep=False)
    arm = make_arm_alone(config)
    assert arm.spec.lockstep
    arm.reset()
    began = time.monotonic()
    for _ in range(6):
        arm.step(np.zeros(2))
    assert time.monotonic() - began >= 6 / config.control_rate
    arm.close()


def test_an_arm_of_ones_own_is_told_what_only_it_knows():
    near, far = (make_arm(ArmConfig(arm="reach:ReachArm", arm_kwargs=f'{{"reached": {m}}}')) for m in (1e-6, 10.0))
    for arm, success in ((near, False), (far, True)):
        arm.reset(seed=1)
        assert arm.step(np.zeros(2, np.float32)).success is success
    with pytest.raises(ConfigError, match=r"arm_kwargs: ReachArm cannot be made with .*'robot_ip'"):
        make_arm(ArmConfig(arm="reach:ReachArm", arm_kwargs='{"robot_ip": "192.168.1.2"}'))
    with pytest.raises(ConfigError, match="arm_kwargs: expected a JSON object, found 'robot_ip'"):
        make_arm(ArmConfig(arm="reach:ReachArm", arm_kwargs="robot_ip"))
