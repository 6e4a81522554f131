# SPDX-License-Identifier: Apache-2.0
"""From what a camera delivers to what is observed: decoded, cropped and resized pictures. No ROS.

A driver that reads its cameras itself uses the same: ``View(128, 128, crop=(80, 0, 480, 480)).of(picture)``.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from rlpd_ros.errors import DataError
from rlpd_ros.untrusted import printable

MAX_PIXELS = 2**25  # of one picture, before it is cropped
CHANNELS = {"rgb8": 3, "bgr8": 3, "mono8": 1}
FORMATS = ("JPEG", "PNG")


@dataclass(frozen=True)
class View:
    """What of a picture is observed: a ``crop`` (x, y, width, height in pixels; None: all of it), resized."""

    width: int
    height: int
    crop: tuple[int, int, int, int] | None = None

    def of(self, picture: np.ndarray) -> np.ndarray:
        """Return a new array, uint8 (height, width, 3), of a ``picture``, uint8 (any, any, 3).

        What becomes smaller is averaged. Raises DataError if the crop leaves the picture.
        """
        rows, columns = picture.shape[:2]
        x, y, width, height = self.crop or (0, 0, columns, rows)
        if x + width > columns or y + height > rows:
            raise DataError(f"crop: expected an area within {columns} x {rows} pixels, found {width} x {height} at "
                            f"({x}, {y})")
        part = picture[y:y + height, x:x + width]
        if (width, height) == (self.width, self.height):
            return part.copy()
        resized = Image.fromarray(np.ascontiguousarray(part)).resize(
            (self.width, self.height), Image.Resampling.BILINEAR)
        return np.array(resized)


def decode_raw(encoding: str, height: int, width: int, step: int, data: np.ndarray) -> np.ndarray:
    """Return the picture in the bytes of a sensor_msgs/Image, uint8 (height, width, 3), perhaps a view of them.

    ``step`` is the length of a row in bytes, with what pads it. Raises DataError naming the field.
    """
    channels = CHANNELS.get(encoding)
    if channels is None:
        raise DataError(f"encoding: expected one of {', '.join(CHANNELS)}, found '{printable(encoding)}'")
    if not 0 < height * width <= MAX_PIXELS:
        raise DataError(f"size: expected 1 to {MAX_PIXELS} pixels, found {width} x {height}")
    if step < width * channels:
        raise DataError(f"step: expected at least {width * channels} bytes for {width} pixels in {encoding}, found "
                        f"{step}")
    if data.size != step * height:
        raise DataError(f"data: expected {step * height} bytes, found {data.size}")
    picture = data.reshape(height, step)[:, :width * channels].reshape(height, width, channels)
    if encoding == "bgr8":
        return picture[..., ::-1]
    return np.broadcast_to(picture, (height, width, 3)) if channels == 1 else picture


def decode_compressed(data: bytes) -> np.ndarray:
    """Return the picture in a JPEG or PNG file, uint8 (height, width, 3). Raises DataError."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            warnings.simplefilter("error")  # a size that Pillow only warns of is too large here too
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"size: expected at most {MAX_PIXELS} pixels, found {image.width} x {image.height}")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, Warning, Image.DecompressionBombError) as error:
        raise DataError(f"data: expected a picture in {' or '.join(FORMATS)}, found something else: "
                        f"{printable(error)}") from error
