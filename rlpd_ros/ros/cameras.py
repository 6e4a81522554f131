# SPDX-License-Identifier: Apache-2.0
"""The cameras of a real arm: the newest image of each topic, as it is observed, or why there is none."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription

from rlpd_ros.arm.config import CameraConfig
from rlpd_ros.arm.pictures import View, decode_compressed, decode_raw
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.ros import qos
from rlpd_ros.ros.messages import stamp_of
from rlpd_ros.types import SpaceField
from rlpd_ros.untrusted import printable

COMPRESSED = "/compressed"  # how the names of topics with sensor_msgs/CompressedImage end
NAME = re.compile(r"[A-Za-z]\w*")


@dataclass
class CameraInput:
    """One camera: where its images come from, what of them is used, and how that goes.

    ``counts``: "received" messages; "used" images; of observations that had to wait, why: "missing", "stale" or
    "refused". ``fault``: what is wrong now, in words; "" if nothing.
    """

    name: str
    topic: qos.Topic
    view: View
    counts: Counter[str] = field(default_factory=Counter)
    fault: str = ""
    raw: bytes | None = None  # the newest message, not decoded yet
    image: np.ndarray | None = None  # of the newest message that was decoded
    stamp: int = 0  # ns, of that
    refusal: str = ""  # why the newest message could not be decoded


class CameraTopics:
    """Subscribe ``node`` to the cameras of ``config``; images are decoded only when they are looked at.

    ``inputs`` has them by name. Raises ConfigError for a camera that is described in a wrong way.
    """

    def __init__(self, node: Node, config: CameraConfig) -> None:
        self._max_difference = config.camera_max_difference
        self.inputs = camera_inputs(config)
        self._subscriptions: dict[str, Subscription] = {}
        for name, camera in self.inputs.items():
            resolved = node.resolve_topic_name(camera.topic.name)
            if resolved == node.resolve_topic_name(qos.camera(name).name):
                raise ConfigError(f"camera_topics: {name}: on {resolved} the arm driver itself publishes what is "
                                  "observed; remap the camera's topic, or give the camera another name here")
            self._subscriptions[name] = qos.subscription(node, camera.topic, partial(_take, camera), raw=True)

    @property
    def fields(self) -> tuple[SpaceField, ...]:
        """Return the images as fields of the observation."""
        return tuple(SpaceField.image(c.name, c.view.height, c.view.width) for c in self.inputs.values())

    def look(self, now: int) -> dict[str, np.ndarray]:
        """Return the images, by name, that belong to a state of the time ``now``, ns.

        Raises DataError naming the cameras of which there is none, and why; it is counted.
        """
        for name, camera in self.inputs.items():
            self._take_waiting(camera, self._subscriptions[name])
            camera.fault = self._judge(camera, now)
        faults = [f"camera {name}: {camera.fault}" for name, camera in self.inputs.items() if camera.fault]
        if faults:
            raise DataError("; ".join(faults))
        images = {}
        for name, camera in self.inputs.items():
            assert camera.image is not None
            camera.counts["used"] += 1
            images[name] = camera.image
        return images

    def _judge(self, camera: CameraInput, now: int) -> str:
        """Bring a camera's image up to date; return what is wrong with it."""
        where = camera.topic.name
        try:
            if camera.raw is not None:
                raw, camera.raw = camera.raw, None
                camera.image, camera.stamp, camera.refusal = None, 0, ""
                camera.image, camera.stamp = see(camera, raw)
        except DataError as error:
            camera.refusal = str(error)
        if camera.refusal:  # until another image comes
            camera.counts["refused"] += 1
            return f"{where}: {camera.refusal}"
        if camera.image is None:
            camera.counts["missing"] += 1
            return f"{where}: no image received yet"
        difference = (now - camera.stamp) * 1e-9
        if abs(difference) > self._max_difference:
            camera.counts["stale"] += 1
            side = "older" if difference > 0 else "newer"
            return (f"{where}: the newest image is {abs(difference):.3g} s {side} than the state, expected at most "
                    f"camera_max_difference, {self._max_difference:g} s")
        return ""

    @staticmethod
    def _take_waiting(camera: CameraInput, subscription: Subscription) -> None:
        """Take what came while the node was busy with moving the arm."""
        while True:
            with subscription.handle:
                message = subscription.handle.take_message(subscription.msg_type, True)
            if message is None:
                return
            _take(camera, message[0])


def _take(camera: CameraInput, raw: bytes) -> None:
    camera.raw = raw
    camera.counts["received"] += 1


def see(camera: CameraInput, raw: bytes) -> tuple[np.ndarray, int]:
    """Return what is observed of a serialized message, and its stamp in ns. Raises DataError."""
    try:
        message: Any = deserialize_message(raw, camera.topic.type)
    except (RuntimeError, ValueError, MemoryError) as error:  # raw bytes: the middleware has not looked at them
        raise DataError(f"expected a {camera.topic.type_name}, found {len(raw)} bytes that are none: "
                        f"{printable(error)}") from error
    data = np.frombuffer(message.data, np.uint8)
    if camera.topic.name.endswith(COMPRESSED):
        picture = decode_compressed(data.tobytes())
    else:
        picture = decode_raw(message.encoding, message.height, message.width, message.step, data)
    return camera.view.of(picture), stamp_of(message)


def camera_inputs(config: CameraConfig) -> dict[str, CameraInput]:
    """Return the cameras of ``config`` by name. Raises ConfigError naming the parameter."""
    topics = _by_name("camera_topics", config.camera_topics, "TOPIC")
    crops = _numbers("camera_crops", config.camera_crops, ("X", "Y", "WIDTH", "HEIGHT"), topics)
    sizes = _numbers("camera_sizes", config.camera_sizes, ("WIDTH", "HEIGHT"), topics)
    inputs = {}
    for name, topic in topics.items():
        if not NAME.fullmatch(name):
            raise ConfigError(f"camera_topics: expected a name of letters, digits and _, found {name!r}")
        kind = "CompressedImage" if topic.endswith(COMPRESSED) else "Image"
        width, height = sizes.get(name, (config.image_width, config.image_height))
        inputs[name] = CameraInput(name, qos.Topic(topic, f"sensor_msgs/msg/{kind}", reliable=False),
                                   View(width, height, crops.get(name)))  # type: ignore[arg-type]
    return inputs


def _by_name(parameter: str, entries: tuple[str, ...], what: str) -> dict[str, str]:
    found = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals or not name or not value or name in found:
            raise ConfigError(f"{parameter}: expected NAME={what} with each name once, found {entry!r}")
        found[name] = value
    return found


def _numbers(parameter: str, entries: tuple[str, ...], what: tuple[str, ...],
             topics: dict[str, str]) -> dict[str, tuple[int, ...]]:
    found = {}
    for name, value in _by_name(parameter, entries, ",".join(what)).items():
        if name not in topics:
            raise ConfigError(f"{parameter}: expected a name of camera_topics ({', '.join(topics) or 'none'}), found "
                              f"{name!r}")
        parts = value.split(",")
        numbers = tuple(int(part) if re.fullmatch(r"\s*\d{1,5}\s*", part) else -1 for part in parts)
        least = [0 if part in ("X", "Y") else 1 for part in what]
        if len(numbers) != len(what) or any(n < low for n, low in zip(numbers, least, strict=True)):
            raise ConfigError(f"{parameter}: {name}: expected {','.join(what)} in pixels, found {value!r}")
        found[name] = numbers
    return found
