# SPDX-License-Identifier: Apache-2.0
"""Malformed images on the camera topics of a working arm driver, as messages and as bytes that are none."""

from __future__ import annotations

import io
import random
import time
from array import array
from typing import Any

import numpy as np
import psutil
from conftest import Graph
from files import MIB, Tally
from mutations import damage, mutate
from PIL import Image
from rclpy.logging import LoggingSeverity, set_logger_level
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage

from rlpd_ros.cli.runner import ros_domain
from rlpd_ros.nodes.arm_driver import ArmDriverNode
from rlpd_ros.ros import messages, qos
from rlpd_ros.tables import Row, at_least, at_most, informative

SIZE = 16  # pixels; what is observed is neither cropped nor resized, so that it can be told by hand
TOPICS = {"raw": "cameras/raw", "jpeg": "cameras/jpeg/compressed", "png": "cameras/png/compressed"}
BYTES = {"rgb8": 3, "bgr8": 3, "mono8": 1}  # of a pixel


def shown(number: int, name: str) -> Any:
    """Return a good message that shows a number everywhere."""
    picture = np.full((SIZE, SIZE, 3), number, np.uint8)
    if name == "raw":
        rows = np.pad(picture.reshape(SIZE, -1), ((0, 0), (0, 4)))
        message = ImageMessage(height=SIZE, width=SIZE, encoding="bgr8", step=rows.shape[1],
                               data=array("B", rows.tobytes()))
    else:
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, name.upper())
        message = CompressedImage(format=name, data=array("B", stream.getvalue()))
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.time_ns(), messages.SECOND)
    return message


def told(raw: bytes, name: str) -> np.ndarray:
    """Return what a serialised message shows, worked out in another way than by the package."""
    message = deserialize_message(raw, ImageMessage if name == "raw" else CompressedImage)
    if name != "raw":
        with Image.open(io.BytesIO(bytes(message.data))) as image:
            return np.array(image.convert("RGB"))
    size, data = BYTES[message.encoding], bytes(message.data)
    assert len(data) == message.step * message.height
    rows = [data[i * message.step:i * message.step + size * message.width] for i in range(message.height)]
    pixels = np.array([list(row) for row in rows], np.uint8).reshape(message.height, message.width, size)
    return pixels[..., ::-1] if message.encoding == "bgr8" else np.repeat(pixels, 3 // size, axis=-1)


def attack(driver: ArmDriverNode, name: str, count: int, rng: random.Random, graph: Graph) -> list[Row]:
    """Let the driver look at ``count`` malformed images of one camera; the others are good."""
    cameras, tally = driver._cameras, Tally(TOPICS[name])
    callbacks = {s.topic_name.lstrip("/"): s.callback for s in driver.subscriptions}
    for i in range(count):
        good = {other: bytes(serialize_message(shown(100, other))) for other in TOPICS}
        if rng.random() < 0.5:
            raw = bytes(serialize_message(mutate(shown(rng.randrange(256), name), rng, ("mono8", "rgb8", "16UC1"))))
        else:
            raw = damage(good[name], rng)
        for other, data in good.items():
            callbacks[TOPICS[other]](raw if other == name else data)

        def read(raw: bytes = raw) -> bool:
            image = cameras.look(time.time_ns())[name]
            return image.dtype == np.uint8 and image.shape == (SIZE, SIZE, 3) and same(image, raw)

        def same(image: np.ndarray, raw: bytes) -> bool:
            picture = told(raw, name)  # of another size it is resized, and not looked at more closely
            return picture.shape != image.shape or bool((picture == image).all())

        tally.judge(read)
        if i % 500 == 0:
            graph.spin()
    return tally.rows()


def fuzz_cameras(count: int, seed: int) -> list[Row]:
    """Attack each camera with ``count`` images, then look whether the arm goes on."""
    rng, process, rows = random.Random(seed), psutil.Process(), []
    with ros_domain() as domain:
        graph = Graph(domain)
        try:
            graph.listen(qos.OBSERVATION)
            driver = graph.add(ArmDriverNode, lockstep=False, control_rate=20.0, camera_max_difference=5.0,
                               camera_topics=[f"{name}={topic}" for name, topic in TOPICS.items()],
                               image_width=SIZE, image_height=SIZE)
            set_logger_level("arm_driver", LoggingSeverity.FATAL)
            memory = process.memory_info().rss
            for name in TOPICS:
                rows += attack(driver, name, count, rng, graph)
            publishers = {name: qos.publisher(graph.ears, camera.topic)
                          for name, camera in driver._cameras.inputs.items()}
            heard = len(graph.heard["observation"])

            def goes_on() -> bool:
                for name, publisher in publishers.items():
                    publisher.publish(shown(200, name))
                return len(graph.heard["observation"]) >= heard + 5

            graph.until(goes_on, "observations with good images")
            images = messages.to_time_step(graph.heard["observation"][-1], driver._driver.spec).observation.images
            growth = (process.memory_info().rss - memory) / MIB
            return [informative("cameras: damaged images of each", count), *rows,
                    at_most("cameras: memory that the process grew by", growth, 100, "MiB"),
                    at_least("cameras: observed afterwards", sum(abs(int(i.mean()) - 200) < 3 for i in images.values()),
                             len(TOPICS))]
        finally:
            graph.close()
