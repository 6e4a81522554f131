# SPDX-License-Identifier: Apache-2.0
"""A video of an arm: what is on it, how fast it is, and what it refuses."""

from __future__ import annotations

import resource
from types import SimpleNamespace
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from PIL import Image

from rlpd_ros.arm.config import GymnasiumArmConfig
from rlpd_ros.arm.gymnasium_arm import GymnasiumArm
from rlpd_ros.cli.video import Video
from rlpd_ros.errors import ConfigError
from rlpd_ros.types import Observation

UNSEEN = Observation(np.zeros(2, np.float32))
SHOTS = {"left": np.full((40, 60, 3), 50, np.uint8), "right": np.full((50, 80, 3), 200, np.uint8)}


def plain(grey: int) -> np.ndarray:
    return np.full((40, 160, 3), grey, np.uint8)


def arm_with(**attributes):
    return SimpleNamespace(spec=SimpleNamespace(robot="lamp"), **attributes)


def frames(path) -> list[tuple[int, int, tuple[int, int]]]:
    """Return of each frame its grey in the lower right corner, its duration in ms and its size."""
    found = []
    with Image.open(path) as film:
        for i in range(film.n_frames):
            film.seek(i)
            width, height = film.size
            found.append((film.convert("RGB").getpixel((width - 1, height - 1))[0], film.info["duration"], film.size))
    return found


def test_each_picture_lasts_a_control_period_and_the_last_of_an_episode_a_second(tmp_path):
    video = Video(tmp_path / "x.gif", rate=20.0)
    for grey in (0, 64, 128, 255):
        video.show(arm_with(render=lambda grey=grey: plain(grey)), UNSEEN, f"step {grey}", last=grey == 255)
    video.write()
    found, durations, sizes = zip(*frames(tmp_path / "x.gif"), strict=True)
    assert found == pytest.approx((0, 64, 128, 255), abs=2)  # a GIF has 256 colours
    assert durations == (50, 50, 50, 1000)
    assert set(sizes) == {(160, 40)}


def test_the_text_can_be_read_on_dark_and_bright(tmp_path):
    video = Video(tmp_path / "x.gif", rate=10.0)
    for grey in (0, 255):
        video.show(arm_with(render=lambda grey=grey: plain(grey)), UNSEEN, "episode 1: success")
    video.write()
    with Image.open(tmp_path / "x.gif") as film:
        for i, grey in enumerate((0, 255)):
            film.seek(i)
            picture = np.asarray(film.convert("RGB")).astype(int)[..., 0]
            assert 0.03 < (abs(picture - grey) > 150).mean() < 0.5


@pytest.mark.parametrize("arm", [arm_with(), arm_with(render=lambda: None)], ids=["no render", "nothing to render"])
def test_an_arm_without_a_picture_is_filmed_by_its_cameras(tmp_path, arm):
    video = Video(tmp_path / "x.gif", rate=10.0)
    video.show(arm, Observation(np.zeros(2, np.float32), SHOTS), "")
    video.write()
    with Image.open(tmp_path / "x.gif") as film:
        assert film.size == (140, 40)
        assert [film.convert("RGB").getpixel((x, 39))[0] for x in (0, 59, 60, 139)] == [50, 50, 200, 200]


@pytest.mark.parametrize(("arm", "observation", "says"), [
    (arm_with(), UNSEEN, "lamp has neither cameras nor pictures for people: give its class a method render"),
    (arm_with(), Observation(UNSEEN.state, {"depth": np.zeros((4, 4, 1), np.uint8)}), "lamp has neither cameras"),
    (arm_with(render=lambda: plain(0) / 255), UNSEEN, "render: expected uint8 (height, width, 3), found float64 (40, "),
    (arm_with(render=lambda: [plain(0)]), UNSEEN, "found uint8 (1, 40, 160, 3)"),
])
def test_what_is_no_picture_is_refused(tmp_path, arm, observation, says):
    video = Video(tmp_path / "x.gif", rate=10.0)
    with pytest.raises(ConfigError) as refusal:
        video.show(arm, observation, "")
    assert says in str(refusal.value)


def test_a_disk_without_room_leaves_no_file(tmp_path):
    video = Video(tmp_path / "x.gif", rate=10.0)
    video.show(arm_with(render=lambda: plain(0)), UNSEEN, "episode 1")
    unlimited, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, most))
    try:
        with pytest.raises(ConfigError, match=r"video: cannot write .*x\.gif: File too large"):
            video.write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, most))
    assert list(tmp_path.iterdir()) == []


class Lamp(gymnasium.Env):
    metadata: ClassVar = {"render_modes": ["rgb_array", "human"]}
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def render(self):
        return plain(7)


@pytest.mark.parametrize(("kwargs", "shown"), [("{}", False), ('{"render_mode": "rgb_array"}', True),
                                               ('{"render_mode": "human"}', False)])
def test_a_gymnasium_environment_draws_if_it_was_made_so(kwargs, shown):
    gymnasium.register("Lamp-v0", entry_point=Lamp)
    try:
        arm = GymnasiumArm(GymnasiumArmConfig(gym_env_id="Lamp-v0", gym_env_kwargs=kwargs, max_episode_steps=5))
    finally:
        del gymnasium.registry["Lamp-v0"]
    arm.reset()
    picture = arm.render()
    assert (picture is not None) is shown
    if shown:
        np.testing.assert_array_equal(picture, plain(7))
