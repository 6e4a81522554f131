# SPDX-License-Identifier: Apache-2.0
"""What becomes of a camera's picture: decoded exactly, cropped where it was asked to, averaged when it shrinks."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from rlpd_ros.arm.pictures import MAX_PIXELS, View, decode_compressed, decode_raw
from rlpd_ros.errors import DataError

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def padded(picture: np.ndarray, step: int) -> np.ndarray:
    """Return the bytes of a picture whose rows are ``step`` bytes long."""
    rows = np.full((picture.shape[0], step), 99, np.uint8)
    flat = picture.reshape(picture.shape[0], -1)
    rows[:, :flat.shape[1]] = flat
    return rows.ravel()


@pytest.mark.parametrize("padding", [0, 5])
def test_encodings_and_padding(padding):
    np.testing.assert_array_equal(decode_raw("rgb8", 5, 7, 21 + padding, padded(RGB, 21 + padding)), RGB)
    np.testing.assert_array_equal(decode_raw("bgr8", 5, 7, 21 + padding, padded(RGB[..., ::-1], 21 + padding)), RGB)
    grey = decode_raw("mono8", 5, 7, 7 + padding, padded(RGB[..., 0], 7 + padding))
    np.testing.assert_array_equal(grey, np.repeat(RGB[..., :1], 3, axis=2))


@pytest.mark.parametrize(("change", "said"), [
    ({"encoding": "32FC1"}, "encoding: expected one of rgb8, bgr8, mono8, found '32FC1'"),
    ({"step": 20}, "step: expected at least 21 bytes for 7 pixels in rgb8, found 20"),
    ({"data": np.zeros(104, np.uint8)}, "data: expected 105 bytes, found 104"),
    ({"height": 0}, "size: expected 1 to"),
    ({"width": 2**31, "height": 2**31}, "size: expected 1 to"),
])
def test_what_is_no_picture_is_refused(change, said):
    good = {"encoding": "rgb8", "height": 5, "width": 7, "step": 21, "data": padded(RGB, 21)}
    with pytest.raises(DataError) as refusal:
        decode_raw(**{**good, **change})
    assert said in str(refusal.value)


def packed(picture, kind, **options):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind, **options)
    return stream.getvalue()


def test_compressed_pictures():
    np.testing.assert_array_equal(decode_compressed(packed(RGB, "PNG")), RGB)
    np.testing.assert_array_equal(decode_compressed(packed(RGB[..., 0], "PNG")), np.repeat(RGB[..., :1], 3, axis=2))
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (1, 64, 3))
    smooth[..., 2] = 40  # red and blue must not change places
    found = decode_compressed(packed(smooth, "JPEG", quality=95)).astype(int)
    assert np.abs(found - smooth).mean() < 4
    assert found[-1, 32, 0] > 200
    assert found[-1, 32, 2] < 80


def huge_png() -> bytes:
    """Return the beginning of a PNG of a million by a million pixels."""
    head = struct.pack(">IIBBBBB", 10**6, 10**6, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(head)) + b"IHDR" + head
            + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", 0))


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", packed(RGB, "PNG")[:60], packed(RGB, "JPEG")[:-40],
                                  packed(RGB, "GIF"), huge_png(), bytes(1000)])
def test_what_cannot_be_decoded_is_refused_in_one_line(data):
    with pytest.raises(DataError) as refusal:
        decode_compressed(data)
    assert "\n" not in str(refusal.value)


def test_pictures_of_any_size_within_the_limit_are_taken():
    side = int(MAX_PIXELS**0.5)
    assert decode_compressed(packed(np.zeros((side, 8), np.uint8), "PNG")).shape == (side, 8, 3)


def test_a_view_is_the_crop_at_its_size():
    view = View(4, 3, crop=(2, 1, 4, 3)).of(RGB)
    np.testing.assert_array_equal(view, RGB[1:4, 2:6])
    view[:] = 0
    assert RGB[1:4, 2:6].any()  # a copy
    np.testing.assert_array_equal(View(7, 5).of(RGB), RGB)


def test_what_shrinks_is_averaged_and_stays_in_place():
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[60:, :, 0] = 200  # lower half red
    picture[:, ::2, 1] = 100  # narrow stripes
    small = View(16, 12).of(picture)
    assert small.shape == (12, 16, 3)
    assert small[:5, :, 0].max() < 10
    assert small[7:, :, 0].min() > 190
    assert np.abs(small[..., 1].astype(int) - 50).max() <= 6


def test_a_mirrored_view_of_memory_is_fine():
    np.testing.assert_array_equal(View(7, 5).of(RGB[..., ::-1]), RGB[..., ::-1])
    assert View(3, 3).of(np.broadcast_to(RGB[..., :1], RGB.shape)).shape == (3, 3, 3)


def test_a_crop_that_leaves_the_picture_is_refused():
    with pytest.raises(DataError, match=r"crop: expected an area within 7 x 5 pixels, found 4 x 3 at \(4, 0\)"):
        View(4, 3, crop=(4, 0, 4, 3)).of(RGB)
