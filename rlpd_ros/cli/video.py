# SPDX-License-Identifier: Apache-2.0
"""A video of greedy episodes for people: an animated GIF, as fast as the arm moves."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rlpd_ros.arm.driver import ArmDriver
from rlpd_ros.errors import ConfigError
from rlpd_ros.types import Observation

EPISODES = 10  # a longer film is watched by nobody, and kept in memory until it is written
_PAUSE = 1.0  # s on the last picture of an episode
_TEXT, _OUTLINE = "#ffffff", "#30363d"


class Video:
    """What an arm shows of itself by ``render``, or else what its cameras observe, side by side.

    Raises ConfigError, before anything has moved, for a file that cannot be written.
    """

    def __init__(self, path: Path, rate: float):
        if path.suffix.lower() != ".gif":
            raise ConfigError(f"video: expected a name that ends in .gif, found {path}")
        if path.exists():
            raise ConfigError(f"video: {path} exists and is not overwritten: choose another name")
        if not path.parent.is_dir():
            raise ConfigError(f"video: {path.parent} is no folder: make it first")
        self._path, self._period = path, 1.0 / rate
        self._frames: list[Image.Image] = []
        self._durations: list[float] = []  # s, one per frame
        self._font = ImageFont.load_default(size=16)

    def show(self, arm: ArmDriver, observation: Observation, text: str, last: bool = False) -> None:
        """Add one picture, with ``text`` in its corner. Raises ConfigError where there is none."""
        frame = Image.fromarray(_picture(arm, observation))
        ImageDraw.Draw(frame).text((8, 6), text, _TEXT, self._font, stroke_width=2, stroke_fill=_OUTLINE)
        # By this method, which is not the default, files are half as large and look the same.
        self._frames.append(frame.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))
        self._durations.append(_PAUSE if last else self._period)

    def write(self) -> None:
        """Write the file. Raises ConfigError if it cannot be, and leaves none then."""
        first, *others = self._frames
        film = io.BytesIO()
        first.save(film, "GIF", save_all=True, append_images=others, loop=0,
                   duration=[round(1000 * duration) for duration in self._durations])
        try:
            file = self._path.open("xb")
        except OSError as error:
            raise ConfigError(f"video: cannot write {self._path}: {error.strerror}") from error
        try:
            with file:
                file.write(film.getbuffer())
        except OSError as error:
            self._path.unlink()
            raise ConfigError(f"video: cannot write {self._path}: {error.strerror}") from error


def _picture(arm: ArmDriver, observation: Observation) -> np.ndarray:
    """Return uint8 (height, width, 3)."""
    render = getattr(arm, "render", None)  # an arm need not have it
    picture = render() if render is not None else None
    if picture is None:
        pictures = [image for image in observation.images.values() if image.shape[2] == 3]
        if not pictures:
            raise ConfigError(f"video: {arm.spec.robot} has neither cameras nor pictures for people: give its class a "
                              "method render, or a Gymnasium environment gym_env_kwargs "
                              '{"render_mode": "rgb_array"}')
        height = min(len(image) for image in pictures)
        picture = np.hstack([image[:height] for image in pictures])
    found = np.asarray(picture)
    if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != 3:
        raise ConfigError(f"video: {arm.spec.robot}: render: expected uint8 (height, width, 3), found {found.dtype} "
                          f"{found.shape}")
    return found
