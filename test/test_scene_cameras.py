# SPDX-License-Identifier: Apache-2.0
"""What the simulated arm's cameras show, and that whoever sees need not be told where the cube is."""

import os
import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.factory import make_arm
from rlpd_ros.arm.opengl import find_backend
from rlpd_ros.errors import ConfigError
from rlpd_ros.record import STARTS, record_demonstrations
from rlpd_ros.ros.bags import read_demonstrations

needs_opengl = pytest.mark.skipif(not find_backend(), reason="nothing to draw with: neither EGL nor libosmesa6")
VIEWS = ("front", "wrist")
PIXELS = ArmConfig(cameras=VIEWS, observe_cube=False)
TABLE, DARK = (123, 101, 79), 60


@pytest.fixture
def make():
    made = []

    def make_one(**options):
        made.append(make_arm(ArmConfig(**options)))
        return made[-1]

    yield make_one
    for arm in made:
        arm.close()


def put_cube(arm, x, y, z=0.02):
    arm._cube[:] = x, y, z
    mujoco.mj_forward(arm._model, arm._data)
    return arm._observe().images


def cube_in(image):
    """Return how many pixels show the cube, and their mean row and column; rows count from the top."""
    red = image.astype(int)
    rows, columns = np.nonzero((red[..., 0] > 80) & (red[..., 1] < DARK) & (red[..., 2] < DARK))
    return len(rows), rows.mean() if len(rows) else -1.0, columns.mean() if len(rows) else -1.0


@needs_opengl
def test_space_names_the_cameras_and_leaves_the_cube_out(make):
    arm = make(cameras=VIEWS, observe_cube=False, image_width=64, image_height=48)
    assert [f.name for f in arm.spec.state_fields] == ["joint_position", "joint_velocity", "gripper_opening",
                                                       "ee_position"]
    assert [(f.name, f.shape) for f in arm.spec.image_fields] == [("front", (48, 64, 3)), ("wrist", (48, 64, 3))]
    observation = arm.reset(seed=0)
    assert observation.state.shape == (18,)
    assert [(name, image.shape, image.dtype.name) for name, image in observation.images.items()] == [
        (name, (48, 64, 3), "uint8") for name in VIEWS]


@needs_opengl
def test_both_cameras_see_the_cube_wherever_it_starts(make):
    arm = make(cameras=VIEWS)
    seen = np.array([[cube_in(image)[0] for image in arm.reset(seed).images.values()] for seed in range(100)])
    assert (seen > 80).all()


@needs_opengl
def test_pictures_are_the_right_way_up_and_round(make):
    arm = make(cameras=VIEWS)
    arm.reset(seed=0)
    _, low, middle = cube_in(put_cube(arm, 0.45, 0.0)["front"])
    assert abs(middle - 63.5) < 2.0
    assert cube_in(put_cube(arm, 0.45, 0.0, z=0.12)["front"])[1] < low - 10  # higher
    assert cube_in(put_cube(arm, 0.55, 0.0)["front"])[1] > low + 5  # nearer to the camera
    assert cube_in(put_cube(arm, 0.45, 0.1)["front"])[2] > middle + 10  # the arm's left is this camera's right
    image = put_cube(arm, 0.45, 0.1)["front"]
    assert tuple(image[-1, 64]) == TABLE
    assert image[0, 0].max() == 0  # behind the table's end there is nothing
    assert image[:40, 40:88].max() > 150  # the arm


@needs_opengl
def test_two_cameras_see_what_each_sees_alone(make):
    together = make(cameras=("wrist", "front")).reset(seed=3).images
    assert list(together) == ["wrist", "front"]
    for name in VIEWS:
        np.testing.assert_array_equal(together[name], make(cameras=(name,)).reset(seed=3).images[name])


@needs_opengl
def test_wrist_camera_goes_with_the_hand(make):
    arm = make(cameras=("wrist",))
    arm.reset(seed=0)
    put_cube(arm, 0.48, 0.0)
    before = arm.hold().observation.images["wrist"]
    for _ in range(4):
        after = arm.step([0.0, 0.0, -1.0, 1.0]).observation.images["wrist"]
    assert cube_in(after)[0] > 1.5 * cube_in(before)[0]  # nearer
    moved = arm._observe().images["wrist"]
    arm._data.cam_xpos[:] = 0.0  # what an earlier picture left there is of no use
    np.testing.assert_array_equal(arm._observe().images["wrist"], moved)


@needs_opengl
def test_fingers_are_seen_closing(make):
    arm = make(cameras=("wrist",))
    arm.reset(seed=0)
    put_cube(arm, 0.55, 0.15)
    dark = []
    for _ in range(9):
        image = arm.step([0.0, 0.0, 0.0, -1.0]).observation.images["wrist"]
        dark.append(np.ptp(np.nonzero((image.max(axis=2) < DARK).any(axis=0))[0]))
    assert dark[-1] < 0.6 * dark[0]


@needs_opengl
def test_pictures_are_the_callers_own_and_arms_do_not_disturb_each_other(make):
    first, second = make(cameras=VIEWS, image_width=32), make(cameras=VIEWS)
    kept = first.reset(seed=1)
    copies = {name: image.copy() for name, image in kept.images.items()}
    second.reset(seed=2)
    first.step([1.0, 1.0, -1.0, -1.0])
    second.close()
    for name in VIEWS:
        np.testing.assert_array_equal(kept.images[name], copies[name])
        np.testing.assert_array_equal(first.reset(seed=1).images[name], copies[name])


@needs_opengl
def test_an_arm_that_nobody_closes_ends_in_silence(tmp_path):
    code = ("import tempfile; folder = tempfile.TemporaryDirectory()  # cleans up at the end too, and before it\n"
            "from rlpd_ros.arm.config import ArmConfig; from rlpd_ros.arm.factory import make_arm\n"
            "arm = make_arm(ArmConfig(cameras=('front',))); arm.reset()")
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=tmp_path, capture_output=True,
                          text=True)
    assert done.stderr == ""


@needs_opengl
def test_the_other_renderer_draws_the_same(make, tmp_path):
    other = {"egl": "osmesa", "osmesa": "egl"}[find_backend()]
    environment = {name: value for name, value in os.environ.items() if name != "PYOPENGL_PLATFORM"}
    code = ("import numpy as np; from rlpd_ros.arm.config import ArmConfig; from rlpd_ros.arm.factory import make_arm\n"
            "np.save('picture.npy', make_arm(ArmConfig(cameras=('front',))).reset(seed=0).images['front'])")
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60, cwd=tmp_path, capture_output=True,
                          text=True, env=environment | {"MUJOCO_GL": other})
    if "cannot draw" in done.stderr:
        pytest.skip(f"no {other} on this machine")
    theirs = np.load(tmp_path / "picture.npy").astype(int)
    ours = make(cameras=("front",)).reset(seed=0).images["front"].astype(int)
    assert (np.abs(ours - theirs).max(axis=2) > 3).mean() < 0.02


@needs_opengl
def test_a_picture_for_people_shows_the_cube_and_changes_nothing_that_is_observed(make):
    watched, alone = make(cameras=VIEWS), make(cameras=VIEWS)
    seen = [arm.reset(seed=5) for arm in (watched, alone)]
    for action in (np.zeros(4), np.array([1.0, -1.0, 0.5, -1.0])):
        picture = watched.render()
        assert (picture.shape, picture.dtype) == ((300, 400, 3), np.uint8)
        assert cube_in(picture)[0] > 50
        assert (picture[:20].astype(int) > 200).all()  # the sky
        seen = [arm.step(action).observation for arm in (watched, alone)]
        np.testing.assert_array_equal(seen[0].state, seen[1].state)
        for name in VIEWS:
            np.testing.assert_array_equal(seen[0].images[name], seen[1].images[name])


def test_an_opengl_that_is_not_there_is_said_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "rlpd_ros.arm.mujoco_arm", None)  # as where it cannot be imported
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(ConfigError, match=r"MuJoCo cannot draw by MUJOCO_GL=osmesa: .*install libosmesa6"):
        make_arm(ArmConfig())
    monkeypatch.delenv("MUJOCO_GL")
    with pytest.raises(ImportError):
        make_arm(ArmConfig())


@pytest.mark.parametrize(("backend", "options", "said"), [
    ("off", {}, "cameras: expected an OpenGL that draws without a display, found off: install libosmesa6, or choose"),
    ("", {"cameras": ("top",)}, "cameras: expected some of front, overview, wrist, found 'top'"),
    ("", {"cameras": ("front", "front")}, "cameras: expected different names, found front, front"),
])
def test_what_cannot_be_drawn_is_said_in_one_line(monkeypatch, backend, options, said):
    monkeypatch.setenv("MUJOCO_GL", backend)
    with pytest.raises(ConfigError) as refusal:
        make_arm(ArmConfig(**{"cameras": VIEWS, **options}))
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_without_the_cube_the_expert_knows_all_the_same(make):
    told, untold = make(), make(observe_cube=False)
    experts = [arm.expert(noise=0.2, seed=3) for arm in (told, untold)]
    observations, result = [arm.reset(seed=5) for arm in (told, untold)], None
    while result is None or not result.terminated:
        actions = [expert(o) for expert, o in zip(experts, observations, strict=True)]
        np.testing.assert_array_equal(*actions)
        result, other = (arm.step(action) for arm, action in zip((told, untold), actions, strict=True))
        np.testing.assert_array_equal(result.observation.state[:18], other.observation.state)
        observations = [result.observation, other.observation]
    assert result.success


@needs_opengl
def test_demonstrations_with_pictures_are_read_back_exactly(tmp_path: Path, make):
    count = record_demonstrations(PIXELS, tmp_path / "bag", episodes=2)
    size = sum(path.stat().st_size for path in (tmp_path / "bag").glob("*.mcap"))
    assert size < 0.1 * count * 2 * 128 * 128 * 3
    demonstrations = read_demonstrations([tmp_path / "bag"], make(cameras=VIEWS, observe_cube=False).spec)
    assert len(demonstrations.records) == count
    arm, steps = make(cameras=VIEWS, observe_cube=False, seed=STARTS), 0
    for record in demonstrations.records:  # do the same once more
        if record.step == 0:
            observation = arm.reset()
        np.testing.assert_array_equal(record.observation.state, observation.state)
        for name in VIEWS:
            np.testing.assert_array_equal(record.observation.images[name], observation.images[name])
        asked = record.action if record.asked_action is None else record.asked_action
        result, steps = arm.step(asked), steps + 1
        observation = result.observation
        if record.final_observation is not None:
            np.testing.assert_array_equal(record.final_observation.images["wrist"], observation.images["wrist"])
            assert result.success
    assert steps == count
