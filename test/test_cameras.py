# SPDX-License-Identifier: Apache-2.0
"""Cameras that are topics: from real publishers through the arm driver to observations and to the doctor."""

from __future__ import annotations

import io
import random
import time
from array import array

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from PIL import Image
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.opengl import find_backend
from rlpd_ros.diagnosis import Level
from rlpd_ros.diagnosis.evidence import CameraSight
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.nodes.arm_driver import ArmDriverNode
from rlpd_ros.nodes.monitor import MonitorNode
from rlpd_ros.record import record_demonstrations
from rlpd_ros.ros import messages, qos
from rlpd_ros.ros.camera_status import CameraStatus, read_statuses
from rlpd_ros.ros.cameras import camera_inputs, see

FRONT, WRIST = qos.Topic("front/raw", "sensor_msgs/msg/Image", reliable=False), qos.Topic(
    "wrist/compressed", "sensor_msgs/msg/CompressedImage", reliable=False)
PARAMETERS = {"camera_topics": ["front=front/raw", "wrist=wrist/compressed"], "camera_crops": ["front=20,10,64,48"],
              "camera_sizes": ["front=32,24"], "image_width": 16, "image_height": 16}


def stamped(message, age: float):
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.time_ns() - int(age * 1e9), messages.SECOND)
    return message


class Publishers:
    """Two cameras: ``front`` shows a number in its red, 100 x 60 in bgr8 with padding, ``wrist`` the same as JPEG."""

    def __init__(self, graph):
        self._front, self._wrist = qos.publisher(graph.ears, FRONT), qos.publisher(graph.ears, WRIST)

    def show(self, number: int, front_age: float = 0.0, wrist_age: float = 0.0, encoding: str = "bgr8") -> None:
        rows = np.zeros((60, 310), np.uint8)
        rows[:, 2:300:3] = number  # red comes last
        rows[:, 300:] = 255  # what pads a row
        rows[:10] = 7  # beyond the crop
        self._front.publish(stamped(ImageMessage(height=60, width=100, encoding=encoding, step=310,
                                                 data=array("B", rows.tobytes())), front_age))
        stream = io.BytesIO()
        Image.new("RGB", (64, 64), (number, 0, 0)).save(stream, "JPEG", quality=95)
        self._wrist.publish(stamped(CompressedImage(format="jpeg", data=array("B", stream.getvalue())), wrist_age))


def until_observed(graph, driver, cameras, number):
    """Show a number until an observation has it; return that."""
    def seen():
        cameras.show(number)
        last = graph.last(qos.OBSERVATION)
        if last is None:
            return None
        images = messages.to_time_step(last, driver._driver.spec).observation.images
        return images if abs(int(images["front"][0, 0, 0]) - number) < 3 else None
    return graph.until(seen, f"an observation that shows {number}")


def test_images_of_topics_become_part_of_the_observation(graph):
    graph.listen(qos.OBSERVATION, qos.SPACE_SPEC)
    driver = graph.add(ArmDriverNode, **PARAMETERS, lockstep=False, control_rate=20.0)
    spec = messages.to_space_spec(graph.until(lambda: graph.last(qos.SPACE_SPEC)))
    assert [(f.name, f.shape) for f in spec.image_fields] == [("front", (24, 32, 3)), ("wrist", (16, 16, 3))]
    assert not graph.heard["observation"]
    cameras = Publishers(graph)
    for number in (40, 200):
        images = until_observed(graph, driver, cameras, number)
        assert np.abs(images["front"].astype(int) - (number, 0, 0)).max() == 0
        graph.until(lambda n=number: abs(int(until_observed(graph, driver, cameras, n)["wrist"][8, 8, 0]) - n) < 6)
    assert driver._cameras.inputs["front"].counts["missing"] > 0


def test_without_a_fresh_image_the_arm_holds_still_and_the_doctor_names_the_camera(graph):
    graph.listen(qos.OBSERVATION, qos.DIAGNOSTICS)
    driver = graph.add(ArmDriverNode, **PARAMETERS, lockstep=False, control_rate=20.0)
    monitor = graph.add(MonitorNode, period=0.2)
    cameras = Publishers(graph)

    def told(name="rlpd: cameras"):
        found = [s for d in graph.heard[qos.DIAGNOSTICS.name] for s in d.status if s.name == name]
        return found[-1] if found else None

    fault = graph.until(lambda: (s := told()) and s.level == bytes([Level.ERROR]) and s, "that there are no images")
    assert fault.message == "front: front/raw: no image received yet"
    until_observed(graph, driver, cameras, 90)

    def healthy():
        cameras.show(90)
        status = told()
        return status.level == bytes([Level.OK]) and status.message

    assert graph.until(healthy, "that all is well") == "images from front, wrist"
    before = driver._cameras.inputs["wrist"].counts["stale"]
    heard = len(graph.heard["observation"])

    def stale():
        cameras.show(91, wrist_age=3.0)
        status = told()
        return status.level == bytes([Level.ERROR]) and status.message.startswith("wrist: ") and status.message

    text = graph.until(stale, "that the wrist's images are old")
    assert "s older than the state, expected at most camera_max_difference, 0.1 s" in text
    assert driver._cameras.inputs["wrist"].counts["stale"] > before
    assert len(graph.heard["observation"]) <= heard + 5  # those with the last good image
    own = told("rlpd: camera wrist")
    assert int({v.key: v.value for v in own.values}["stale"]) > 0
    assert monitor._watcher.look().cameras["wrist"].blind


def test_a_camera_that_is_often_late_is_told_of():
    inputs = camera_inputs(ArmConfig(camera_topics=("front=/raw",)))
    status = CameraStatus("/left", inputs)

    def told(**counts):
        inputs["front"].counts.update(counts)
        message = DiagnosticArray(status=status.messages())
        assert set(read_statuses(message, "/", 5.0)) == {"left/front"}
        assert not read_statuses(message, "/le", 5.0)
        return read_statuses(message, "/left", 5.0)["front"]

    assert told(used=19, stale=1) == CameraSight(5.0, False, False, "19 images used")
    assert told(used=7, stale=2, missing=1) == CameraSight(
        5.0, True, False, "3 of the last 10 observations waited for /raw: 1 missing, 2 stale")
    assert not told(used=20).faulty  # what is over is over
    inputs["front"].fault = "/raw: no image received yet"
    assert told().blind


def test_images_that_cannot_be_used_are_named(graph):
    driver = graph.add(ArmDriverNode, **{**PARAMETERS, "camera_crops": ["front=50,10,64,48"]})
    cameras, inputs = Publishers(graph), driver._cameras.inputs

    def fault(**options):
        cameras.show(50, **options)
        return inputs["front"].fault

    graph.until(lambda: "front/raw: crop: expected an area within 100 x 60 pixels" in fault())
    graph.until(lambda: "front/raw: encoding: expected one of rgb8, bgr8, mono8, found '16UC1'" in fault(
        encoding="16UC1"))
    assert inputs["front"].counts["refused"] > 1
    missing = inputs["front"].counts["missing"]
    for _ in range(3):  # until another one comes, that is what is wrong
        with pytest.raises(DataError, match="front/raw: encoding: expected one of"):
            driver._cameras.look(time.time_ns())
    assert inputs["front"].counts["missing"] == missing


@pytest.mark.parametrize("name", ["front", "wrist"])
def test_nothing_that_a_topic_brings_does_more_than_be_refused(name):
    camera = camera_inputs(ArmConfig(camera_topics=("front=/raw", "wrist=/wrist/compressed")))[name]
    stream = io.BytesIO()
    Image.new("RGB", (6, 5), (9, 8, 7)).save(stream, "PNG")
    good = bytes(serialize_message({
        "front": ImageMessage(height=5, width=6, encoding="rgb8", step=18, data=array("B", bytes(90))),
        "wrist": CompressedImage(format="png", data=array("B", stream.getvalue()))}[name]))
    assert see(camera, good)[0].shape == (128, 128, 3)
    rng, refused = random.Random(0), []
    for _ in range(2000):
        raw = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            raw[rng.randrange(len(raw))] = rng.choice((0, 1, 127, 255, rng.randrange(256)))
        if rng.random() < 0.5:
            del raw[rng.randrange(len(raw)):]
        try:
            image, _ = see(camera, bytes(raw))
        except DataError as error:
            refused.append(str(error))
        else:
            assert image.shape == (128, 128, 3)
    assert len(refused) > 500
    assert not any("\n" in text for text in refused)


def test_a_busy_driver_still_has_the_newest_image(graph):
    """What arrives while the arm moves is seen after the motion, though no callback ran in between."""
    driver = graph.add(ArmDriverNode, **{**PARAMETERS, "camera_topics": ["front=front/raw"], "lockstep": False,
                                         "control_rate": 20.0})
    graph.listen(qos.OBSERVATION)
    cameras = Publishers(graph)
    until_observed(graph, driver, cameras, 30)
    deadline = time.monotonic() + 60
    while True:  # nobody spins here
        cameras.show(120)
        image = driver._cameras.look(time.time_ns())["front"]
        if image[0, 0, 0] == 120:
            break
        assert time.monotonic() < deadline


@pytest.mark.skipif(not find_backend(), reason="nothing to draw with: neither EGL nor libosmesa6")
def test_what_the_policy_sees_can_be_looked_at(graph):
    graph.listen(qos.OBSERVATION)
    driver = graph.add(ArmDriverNode, cameras=["front", "wrist"], image_width=40, image_height=30)
    graph.until(lambda: graph.last(qos.OBSERVATION))
    graph.listen(qos.camera("front"))
    picture = graph.until(lambda: graph.last(qos.camera("front")), "the picture")
    assert (picture.height, picture.width, picture.encoding, picture.step) == (30, 40, "rgb8", 120)
    assert picture.header.frame_id == "front"
    observed = messages.to_time_step(graph.last(qos.OBSERVATION), driver._driver.spec)
    np.testing.assert_array_equal(np.asarray(picture.data), observed.observation.images["front"].ravel())
    assert driver.count_publishers("/camera/wrist/image_raw") == 1


@pytest.mark.parametrize(("options", "said"), [
    ({"camera_topics": ("front",)}, "camera_topics: expected NAME=TOPIC with each name once, found 'front'"),
    ({"camera_topics": ("a=/x", "a=/y")}, "camera_topics: expected NAME=TOPIC with each name once, found 'a=/y'"),
    ({"camera_topics": ("my cam=/x",)}, "camera_topics: expected a name of letters, digits and _, found 'my cam'"),
    ({"camera_topics": ("a=/x",), "camera_crops": ("b=0,0,4,4",)},
     "camera_crops: expected a name of camera_topics (a), found 'b'"),
    ({"camera_topics": ("a=/x",), "camera_crops": ("a=0,0,4",)},
     "camera_crops: a: expected X,Y,WIDTH,HEIGHT in pixels, found '0,0,4'"),
    ({"camera_topics": ("a=/x",), "camera_crops": ("a=0,0,4,0",)}, "camera_crops: a: expected X,Y,WIDTH,HEIGHT"),
    ({"camera_topics": ("a=/x",), "camera_sizes": ("a=-4,4",)}, "camera_sizes: a: expected WIDTH,HEIGHT in pixels"),
])
def test_descriptions_that_make_no_sense_are_refused(options, said):
    with pytest.raises(ConfigError) as refusal:
        camera_inputs(ArmConfig(**options))
    assert said in str(refusal.value)


def test_names_that_are_taken_are_refused(graph):
    with pytest.raises(ConfigError, match="the arm observes ee_position itself"):
        graph.add(ArmDriverNode, camera_topics=["ee_position=/x"])
    with pytest.raises(ConfigError, match="on /camera/front/image_raw the arm driver itself publishes what is"):
        graph.add(ArmDriverNode, camera_topics=["front=camera/front/image_raw"])


def test_without_the_node_there_are_no_images_from_topics(tmp_path):
    with pytest.raises(ConfigError, match="camera_topics: only the arm driver node gets images from topics"):
        record_demonstrations(ArmConfig(camera_topics=("front=/x",)), tmp_path / "bag")
