# SPDX-License-Identifier: Apache-2.0
"""The simulated Panda: its kinematics, its limits, and whether the cube behaves like one."""

import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from rlpd_ros.arm.config import MujocoArmConfig
from rlpd_ros.arm.kinematics import ToolKinematics
from rlpd_ros.arm.mujoco_arm import MujocoArm
from rlpd_ros.errors import ConfigError

OPEN, CLOSED = 1.0, -1.0
TOOL, OFFSET, OPENING = slice(15, 18), slice(18, 21), 14

# Franka Emika's documentation: modified Denavit-Hartenberg parameters of joints 1 to 7 and the flange, and the limits.
DH = [(0, 0.333, 0), (0, 0, -np.pi / 2), (0, 0.316, np.pi / 2), (0.0825, 0, np.pi / 2), (-0.0825, 0.384, -np.pi / 2),
      (0, 0, np.pi / 2), (0.088, 0, np.pi / 2), (0, 0.107, 0)]  # a m, d m, alpha rad
LOWEST = [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973]  # rad
HIGHEST = [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973]
FASTEST = [2.175] * 4 + [2.61] * 3  # rad/s
STRONGEST = [87.0] * 4 + [12.0] * 3  # N m
HAND_TO_TOOL = 0.1034  # m


def make(**options):
    arm = MujocoArm(MujocoArmConfig(**options))
    arm.reset(seed=0)
    return arm


def cube_of(observation):
    return observation.state[TOOL] + observation.state[OFFSET]


def put_cube(arm, x, y, z=0.02):
    arm._cube[:] = x, y, z
    mujoco.mj_forward(arm._model, arm._data)


def run_expert(arm, seed=None, noise=0.0):
    """Return the results of one episode."""
    expert, observation, results = arm.expert(noise), arm.reset(seed), []
    while not results or not (results[-1].terminated or results[-1].truncated):
        results.append(arm.step(expert(observation)))
        observation = results[-1].observation
    return results


def lift_cube(**options):
    """Return an arm that holds the cube well above the table."""
    arm = make(lift_height=0.3, **options)
    expert, observation = arm.expert(), arm.reset(seed=0)
    for _ in range(18):
        observation = arm.step(expert(observation)).observation
    assert cube_of(observation)[2] > 0.1
    return arm


def dh_tool(joints):
    """Return the tool's pose (4, 4) by the published parameters; the hand is turned by -45 degrees on the flange."""
    pose = np.eye(4)
    for (a, d, alpha), theta in zip(DH, [*joints, -np.pi / 4], strict=True):
        ca, sa, ct, st = np.cos(alpha), np.sin(alpha), np.cos(theta), np.sin(theta)
        pose = pose @ np.array([[ct, -st, 0, a], [st * ca, ct * ca, -sa, -d * sa], [st * sa, ct * sa, ca, d * ca],
                                [0, 0, 0, 1]])
    pose[:3, 3] += HAND_TO_TOOL * pose[:3, 2]
    return pose


def test_kinematics_are_the_published_ones():
    arm = make()
    data = mujoco.MjData(arm._model)
    for joints in np.random.default_rng(0).uniform(LOWEST, HIGHEST, (20, 7)):
        data.qpos[:7] = joints
        mujoco.mj_kinematics(arm._model, data)
        expected = dh_tool(joints)
        np.testing.assert_allclose(data.site("tool").xpos, expected[:3, 3], atol=1e-6)
        np.testing.assert_allclose(data.site("tool").xmat.reshape(3, 3), expected[:3, :3], atol=1e-6)


def test_limits_are_the_published_ones():
    model = make()._model
    np.testing.assert_array_equal(model.jnt_range[:7].T, [LOWEST, HIGHEST])
    np.testing.assert_array_equal(model.actuator_actrange[:7].T, [LOWEST, HIGHEST])
    np.testing.assert_array_equal(model.actuator_ctrlrange[:7, 1], FASTEST)
    np.testing.assert_array_equal(model.actuator_forcerange[:7, 1], STRONGEST)
    np.testing.assert_array_equal(model.actuator_ctrlrange[7:, 1], 0.05)  # the hand: m/s per finger
    assert model.opt.timestep == 0.002


def test_observation_has_the_named_parts():
    arm = make()
    spec = arm.spec
    assert [(f.name, f.size, f.unit) for f in spec.observation] == [
        ("joint_position", 7, "rad"), ("joint_velocity", 7, "rad/s"), ("gripper_opening", 1, "m"),
        ("ee_position", 3, "m"), ("cube_offset", 3, "m")]
    result = arm.step([0.4, -0.3, 0.2, OPEN])
    state, data = result.observation.state, arm._data
    np.testing.assert_allclose(state[:7], data.qpos[:7], atol=1e-6)
    np.testing.assert_allclose(state[7:14], data.qvel[:7], atol=1e-6)
    assert np.abs(state[7:14]).max() > 0.1  # it moves
    assert state[OPENING] == pytest.approx(data.joint("panda_finger_joint1").qpos[0] * 2, abs=1e-3)
    np.testing.assert_allclose(state[TOOL], dh_tool(data.qpos[:7])[:3, 3], atol=1e-6)
    np.testing.assert_allclose(state[TOOL] + state[OFFSET], data.body("cube").xpos, atol=1e-4)


def test_cube_starts_all_over_its_square():
    arm = make(cube_center=(0.45, 0.02), cube_range=0.2)
    starts = np.array([cube_of(arm.reset()) for _ in range(300)])
    np.testing.assert_allclose(starts.min(axis=0), [0.35, -0.08, 0.02], atol=5e-3)
    np.testing.assert_allclose(starts.max(axis=0), [0.55, 0.12, 0.02], atol=5e-3)
    np.testing.assert_allclose(arm.reset().state[TOOL], [0.45, 0.0, 0.2], atol=1e-3)


def test_tool_goes_where_actions_send_it():
    arm = make(workspace_low=(0.3, -0.3, 0.05), workspace_high=(0.6, 0.3, 0.4), max_episode_steps=1000)
    put_cube(arm, 0.31, 0.29)
    rng, position, tilt = np.random.default_rng(1), arm._tool.copy(), 0.0
    for _ in range(100):
        heading = np.array([0.45, 0.0, 0.2]) - position
        action = np.append(np.clip(rng.uniform(-1, 1, 3) + 5.0 * heading, -1, 1), OPEN)
        result = arm.step(action)
        np.testing.assert_allclose(result.executed_action, action, atol=1e-6)
        position += 0.025 * action[:3]
        np.testing.assert_allclose(result.observation.state[TOOL], position, atol=3e-3)
        tilt = max(tilt, np.arccos(np.clip(-arm._data.site("tool").xmat[8], -1, 1)))
    assert tilt < np.radians(2.0)
    for _ in range(5):
        arm.hold()
    np.testing.assert_allclose(arm._tool, position, atol=2e-4)
    np.testing.assert_allclose(arm._velocities[:7], 0.0, atol=0.01)


@pytest.mark.parametrize(("axis", "sign", "wall"), [
    (0, 1, 0.6), (0, -1, 0.3), (1, 1, 0.15), (1, -1, -0.15), (2, 1, 0.35), (2, -1, 0.05)])
def test_workspace_shortens_what_is_executed(axis, sign, wall):
    arm = make(workspace_low=(0.3, -0.15, 0.05))
    put_cube(arm, 0.35 if axis == 1 else 0.45, 0.1)
    start, moved = arm._tool[axis], 0.0
    action = np.array([0.0, 0.0, 0.0, OPEN])
    action[axis] = sign
    for _ in range(20):
        result = arm.step(action)
        moved += 0.025 * result.executed_action[axis]
    assert result.executed_action[axis] == pytest.approx(0.0, abs=1e-6)
    assert start + moved == pytest.approx(wall, abs=1e-3)
    assert result.observation.state[15 + axis] == pytest.approx(wall, abs=1e-3)


def test_joints_are_never_asked_to_go_faster_than_they_can():
    arm = make(translation_scale=(0.2, 0.2, 0.2), max_lead=0.3)
    result = arm.step([1.0, 1.0, 0.0, OPEN])
    assert 0.1 < result.executed_action[0] < 0.99
    assert (np.abs(arm._arm_speed) <= np.array(FASTEST) + 1e-9).all()
    assert np.abs(arm._arm_speed / FASTEST).max() == pytest.approx(1.0)
    np.testing.assert_allclose(result.observation.state[TOOL], arm._target, atol=0.02)


def test_joints_stop_at_their_limits():
    arm = make(workspace_low=(0.3, -0.15, 0.05), workspace_high=(1.0, 0.15, 1.0), max_episode_steps=200)
    for _ in range(100):  # far beyond the reach of an arm of 0.85 m
        result = arm.step([1.0, 0.0, 1.0, OPEN])
        position = result.observation.state[:7]
        assert (position >= np.array(LOWEST) - 1e-3).all()
        assert (position <= np.array(HIGHEST) + 1e-3).all()
    assert np.abs(result.executed_action[:3]).max() < 0.5
    assert np.isfinite(arm._data.qacc).all()


def test_command_does_not_run_away_from_a_blocked_tool():
    arm, shortened = make(max_lead=0.03), []
    put_cube(arm, 0.45, 0.0)
    for _ in range(15):
        before = arm._tool.copy()
        result = arm.step([0.0, 0.0, -1.0, CLOSED])  # onto the cube, which the table holds up
        assert np.abs(arm._target - before).max() <= 0.03 + 1e-9
        shortened.append(result.executed_action[2])
        if result.terminated:
            break
    assert max(shortened[6:]) > -0.9


def test_fingers_take_their_time():
    arm = make()
    openings = [arm.step([0.0, 0.0, 0.0, CLOSED]).observation.state[OPENING] for _ in range(9)]
    closing = -np.diff([0.08, *openings])
    assert closing.min() > -1e-6
    assert closing.max() < 0.0105
    assert openings[3] == pytest.approx(0.04, abs=0.005)
    assert openings[-1] < 0.001
    half = make()
    for _ in range(10):
        result = half.step([0.0, 0.0, 0.0, 0.0])
    assert result.observation.state[OPENING] == pytest.approx(0.04, abs=1e-3)


def test_expert_always_picks_the_cube_up():
    arm = make()
    episodes = [run_expert(arm, seed) for seed in range(60)]
    for results in episodes:
        last = results[-1]
        assert (last.success, last.reward, last.terminated, last.truncated) == (True, 1.0, True, False)
        assert 10 <= len(results) <= 30
        assert not any(r.reward or r.success for r in results[:-1])
        assert cube_of(last.observation)[2] >= 0.02 + 0.1 - 1e-3


def test_expert_with_noise_differs_and_still_succeeds():
    arm = make()
    episodes = [run_expert(arm, seed=1, noise=noise) for noise in (0.0, 0.2)]
    assert not np.allclose(episodes[0][3].executed_action, episodes[1][3].executed_action, atol=0.02)
    assert np.mean([run_expert(arm, seed, noise=0.2)[-1].success for seed in range(30)]) == 1.0


def test_cube_is_held_by_friction_alone():
    arm = make()
    arm._model.pair_friction[:] = 0.01
    results = run_expert(arm, seed=1)
    assert not results[-1].success
    assert max(cube_of(r.observation)[2] for r in results) < 0.04


def test_fingers_do_not_sink_into_the_cube_they_hold():
    arm = lift_cube()
    for _ in range(50):
        offset = arm._cube - arm._tool
        result = arm.hold()
        np.testing.assert_allclose(arm._cube - arm._tool, offset, atol=5e-4)
    assert 0.039 < result.observation.state[OPENING] < 0.0402
    assert np.linalg.norm(arm._cube - arm._tool) < 5e-3


def test_cube_falls_when_it_is_let_go():
    arm = lift_cube()
    for _ in range(8):
        result = arm.step([0.0, 0.0, 0.0, OPEN])
    assert cube_of(result.observation)[2] == pytest.approx(0.02, abs=2e-3)


def test_cube_at_rest_stays_and_moves_when_pushed():
    arm = make()
    put_cube(arm, 0.45, 0.03)
    for _ in range(10):
        arm.hold()
    np.testing.assert_allclose(arm._cube, [0.45, 0.03, 0.02], atol=5e-4)
    for _ in range(7):
        arm.step([0.0, -1.0, -1.0, CLOSED])
    for _ in range(8):
        result = arm.step([0.0, 1.0, 0.0, CLOSED])
        if result.terminated:
            break
    assert cube_of(result.observation)[1] > 0.05
    assert cube_of(result.observation)[2] < 0.03


def test_flying_cube_is_no_success_and_a_lost_one_ends_the_episode():
    arm = make()
    put_cube(arm, 0.4, 0.1, z=0.3)
    result = arm.step([0.0, 0.0, 0.0, OPEN])
    assert cube_of(result.observation)[2] > 0.15
    assert (result.success, result.terminated) == (False, False)
    put_cube(arm, 0.45, 0.16)
    result = arm.step([0.0, 0.0, 0.0, OPEN])
    assert (result.success, result.terminated, result.truncated, result.reward) == (False, True, False, 0.0)


def test_rough_handling_stays_physical():
    arm, rng = make(), np.random.default_rng(0)
    for seed in range(12):
        observation, over = arm.reset(seed), False
        while not over:
            toward = np.clip(observation.state[OFFSET] / 0.025, -1, 1)
            action = np.append(toward + rng.normal(0, 0.5, 3), rng.choice([OPEN, CLOSED]))
            result = arm.step(action)
            observation, over = result.observation, result.terminated or result.truncated
            assert np.isfinite(observation.state).all()
            assert arm._data.contact.dist.min(initial=0.0) > -0.004
            assert np.abs(arm._data.joint("cube").qvel[:3]).max() < 3.0
            assert (np.abs(arm._velocities[:7]) < 1.5 * np.array(FASTEST)).all()
    assert not any(arm._data.warning.number)


def test_telemetry_agrees_with_the_observation():
    arm = make()
    state = arm.step([0.5, 0.5, -0.5, CLOSED]).observation.state
    telemetry = arm.telemetry()
    assert telemetry.joint_names == (*(f"panda_joint{i}" for i in range(1, 8)), "panda_finger_joint1",
                                     "panda_finger_joint2")
    np.testing.assert_allclose(telemetry.position[:7], state[:7], atol=1e-6)
    np.testing.assert_allclose(telemetry.velocity[:7], state[7:14], atol=1e-6)
    np.testing.assert_allclose(telemetry.ee_position, state[TOOL], atol=1e-6)
    np.testing.assert_allclose(np.abs(telemetry.ee_orientation), [1, 0, 0, 0], atol=0.02)  # x y z w: half a turn
    assert telemetry.position.shape == telemetry.velocity.shape == telemetry.effort.shape == (9,)


def test_inverse_kinematics_finds_postures():
    model = make()._model
    kinematics = ToolKinematics(model, 7, "tool")
    start = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
    for target in ((0.3, -0.3, 0.05), (0.6, 0.3, 0.4), (0.5, 0.0, 0.1)):
        pose = dh_tool(kinematics.posture(np.array(target), start))
        np.testing.assert_allclose(pose[:3, 3], target, atol=1e-4)
        np.testing.assert_allclose(pose[:3, :3], np.diag([1, -1, -1]), atol=2e-3)


def test_posture_does_not_wander_off():
    arm = make(max_episode_steps=1000)
    put_cube(arm, 0.31, 0.14)
    home = arm._positions[:7].copy()
    for angle in np.linspace(0.0, 6 * np.pi, 120, endpoint=False):  # three rounds, 9 cm to each side
        arm.step([0.5 * np.cos(angle), 0.6 * np.cos(angle), 0.3 * np.sin(angle), OPEN])
    for _ in range(60):
        arm.hold()
    np.testing.assert_allclose(arm._tool, [0.45, 0.0, 0.2], atol=2e-3)
    np.testing.assert_allclose(arm._positions[:7], home, atol=0.01)


def test_control_rate_sets_the_physics_steps():
    arm = make(control_rate=50.0)
    before = arm._data.time
    arm.step([0.0, 0.0, 0.0, OPEN])
    assert arm._data.time - before == pytest.approx(0.02)
    assert arm.spec.control_rate == 50.0


@pytest.mark.parametrize(("options", "said"), [
    ({"control_rate": 300.0}, "control_rate: expected a divisor of the physics rate, 500 Hz, found 300 Hz"),
    ({"translation_scale": (0.02,)}, "translation_scale: expected 3 numbers, found [0.02]"),
    ({"workspace_low": (0.6, 0.0, 0.0)}, "workspace_high: expected more than workspace_low"),
    ({"home_position": (0.2, 0.0, 0.2)}, "home_position: expected positions within the workspace"),
    ({"cube_range": 0.5}, "cube_center, cube_range: expected positions within the workspace"),
    ({"translation_scale": (0.05, 0.02, 0.02)}, "max_lead: expected at least translation_scale, 0.05 m"),
    ({"home_position": (0.9, 0.0, 0.9), "workspace_high": (1.0, 0.2, 1.0)}, "the arm cannot reach [0.9, 0.0, 0.9] m"),
])
def test_impossible_configurations_are_refused(options, said):
    with pytest.raises(ConfigError) as refusal:
        MujocoArm(MujocoArmConfig(**options))
    assert said in str(refusal.value)


def test_neither_graphics_nor_gymnasium_are_loaded(tmp_path):
    code = ("import sys; from rlpd_ros.arm.config import ArmConfig; from rlpd_ros.arm.factory import make_arm\n"
            "make_arm(ArmConfig()).reset(); print({'OpenGL', 'gymnasium', 'jax'} & set(sys.modules))")
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=tmp_path, env=environment,
                          capture_output=True, text=True)
    assert done.stdout == "set()\n"
