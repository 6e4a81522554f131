# SPDX-License-Identifier: Apache-2.0
"""The teleoperation node on real middleware: a joystick's messages in, a person's actions out."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from sensor_msgs.msg import Joy

from rlpd_ros.errors import ConfigError
from rlpd_ros.msg import Action
from rlpd_ros.nodes.actor import ActorNode
from rlpd_ros.nodes.arm_driver import ArmDriverNode
from rlpd_ros.nodes.teleop_joy import TeleopJoyNode
from rlpd_ros.ros import messages, qos
from rlpd_ros.types import Source, SpaceField, SpaceSpec

SPEC = SpaceSpec("test", (SpaceField.box("state", [-1], [1]),),
                 (SpaceField.box("motion", [-1] * 3, [1] * 3), SpaceField.box("gripper", [0], [1])), 10.0, "base", 100)
KEEP = math.nan  # of the gripper
STILL = [0.0, 0.0, 0.0, KEEP]


class Device:
    """A joystick's node, which sends what it has, 50 times a second, until it is unplugged."""

    def __init__(self, graph, topic: str = "joy") -> None:
        self.axes, self.buttons, self.plugged = [0.0, 0.0, 0.0], [0, 0], True
        self._publisher = graph.ears.create_publisher(Joy, topic, 10)  # as joy_node and spacenav do
        graph.ears.create_timer(0.02, self._send)

    def _send(self) -> None:
        if self.plugged:
            self._publisher.publish(Joy(axes=self.axes, buttons=self.buttons))


@pytest.fixture
def publish_space(graph):
    """Be the arm's driver, as far as its space goes."""
    publisher = qos.publisher(graph.ears, qos.SPACE_SPEC)
    return lambda spec: publisher.publish(messages.from_space_spec(spec, 1))


@pytest.fixture
def device(graph, publish_space) -> Device:
    publish_space(SPEC)
    graph.listen(qos.INTERVENTION)
    return Device(graph)


def until_sent(graph, *action: float) -> Action:
    def sent():
        last = graph.last(qos.INTERVENTION)
        fits = last is not None and len(last.action) == len(action) and np.allclose(
            last.action, action, atol=1e-6, equal_nan=True)
        return last if fits else None

    return graph.until(sent, f"the action {action}")


def wait(graph, seconds: float) -> list[Action]:
    """Return what is sent from now on within some time."""
    heard, began = len(graph.heard["intervention"]), time.monotonic()
    graph.until(lambda: time.monotonic() - began > seconds)
    return graph.heard["intervention"][heard:]


def test_what_the_person_does_is_sent_as_an_action_and_else_nothing(graph, device):
    graph.add(TeleopJoyNode, deadband=0.0, linger=0.2)
    assert wait(graph, 0.5) == []
    device.axes = [0.5, -0.25, 0.0]
    sent = until_sent(graph, 0.5, -0.25, 0.0, KEEP)
    assert (sent.source, sent.episode, sent.step, sent.policy_version) == (Source.INTERVENTION, 0, 0, 0)
    assert sent.session.startswith("teleop_joy-")
    assert abs(messages.stamp_of(sent) - time.time_ns()) < 10e9
    device.buttons = [1, 0]
    until_sent(graph, 0.5, -0.25, 0.0, -1.0)
    device.axes, device.buttons = [0.0, 0.0, 0.0], [0, 0]
    assert until_sent(graph, *STILL).source == Source.HOLD
    graph.until(lambda: wait(graph, 0.5) == [], "silence, so that the policy may act")


def test_actions_come_at_a_fixed_rate_however_often_the_device_speaks(graph, device):
    graph.add(TeleopJoyNode, rate=10.0)
    device.axes = [1.0, 0.0, 0.0]
    until_sent(graph, 1.0, 0.0, 0.0, KEEP)
    assert 10 <= len(wait(graph, 2.0)) <= 21


def test_a_pulled_cable_stops_the_arm_and_is_told_and_so_is_its_return(graph, device, capfd):
    graph.add(TeleopJoyNode, timeout=0.3)
    device.axes = [1.0, 0.0, 0.0]
    until_sent(graph, 1.0, 0.0, 0.0, KEEP)
    device.plugged = False
    until_sent(graph, *STILL)
    assert {action.source for action in wait(graph, 0.5)} == {Source.HOLD}
    device.plugged = True
    until_sent(graph, 1.0, 0.0, 0.0, KEEP)
    told = "".join(capfd.readouterr())
    assert told.count("no message on /joy for 0.3 s: it was in use, so the arm is held until it is back. Is the") == 1
    assert told.count("/joy: the device is there") == 1


def test_with_always_the_arm_is_held_still_without_a_device_and_without_a_hand_on_it(graph, device):
    device.plugged = False
    graph.add(TeleopJoyNode, always=True, timeout=0.3)
    until_sent(graph, *STILL)
    device.plugged, device.axes = True, [0.0, 1.0, 0.0]
    until_sent(graph, 0.0, 1.0, 0.0, KEEP)
    device.plugged = False
    until_sent(graph, *STILL)
    assert len(wait(graph, 1.0)) > 5


def test_the_arm_stands_still_when_the_node_ends(graph, device):
    node = graph.add(TeleopJoyNode)
    device.axes = [1.0, 0.0, 0.0]
    until_sent(graph, 1.0, 0.0, 0.0, KEEP)
    graph.remove(node)
    graph.drain()
    assert until_sent(graph, *STILL).source == Source.HOLD


def test_a_button_ends_the_episode(graph, device):
    graph.listen(qos.OUTCOME)
    graph.add(TeleopJoyNode, success_button=2, failure_button=3)
    device.buttons = [0, 0, 1, 0]
    graph.until(lambda: graph.heard["outcome"], "the word")
    device.buttons = [0, 0, 0, 1]
    graph.until(lambda: len(graph.heard["outcome"]) > 1, "the next word")
    assert [said.success for said in graph.heard["outcome"]] == [True, False]
    assert abs(messages.stamp_of(graph.last(qos.OUTCOME)) - time.time_ns()) < 10e9


def test_messages_that_make_no_sense_are_refused_and_told(graph, device, capfd):
    graph.add(TeleopJoyNode, timeout=0.3)
    device.axes = [1.0, 0.0, 0.0]
    until_sent(graph, 1.0, 0.0, 0.0, KEEP)
    device.axes = [float("nan"), 0.0, 0.0]
    until_sent(graph, *STILL)
    device.axes = [1.0]
    assert {action.source for action in wait(graph, 0.3)} == {Source.HOLD}
    told = "".join(capfd.readouterr())
    assert "refused (refusal 1): joy: axes: expected finite numbers, found [nan  0.  0.]" in told
    device.axes = [1.0, 0.0, 0.0]
    until_sent(graph, 1.0, 0.0, 0.0, KEEP)


def test_another_topic_and_another_namespace(graph, capfd):
    graph.listen(replace(qos.INTERVENTION, name="/left/intervention"))
    space = replace(qos.SPACE_SPEC, name="/left/space_spec")
    qos.publisher(graph.ears, space).publish(messages.from_space_spec(SPEC, 1))
    device = Device(graph, "/spacenav/joy")

    class Remapped(TeleopJoyNode):
        def __init__(self, cli_args, **kwargs) -> None:
            super().__init__(cli_args=[*cli_args, "-r", "joy:=/spacenav/joy"], **kwargs)

    graph.add(Remapped, "left")
    device.axes = [1.0, 0.0, 0.0]
    graph.until(lambda: graph.heard["/left/intervention"])


def test_an_arm_that_the_parameters_do_not_fit_ends_the_node(graph, device):
    graph.add(TeleopJoyNode, axes=[0, 1, 2, 3])
    with pytest.raises(ConfigError, match=r"parameter 'axes': expected at most 3, for motion\[0\], motion\[1\]"):
        graph.until(lambda: False)


def test_another_arm_counts_if_the_parameters_fit_it(graph, device, publish_space, capfd):
    graph.add(TeleopJoyNode)
    device.axes = [1.0, 0.0, 0.0]
    until_sent(graph, 1.0, 0.0, 0.0, KEEP)
    publish_space(replace(SPEC, action=SPEC.action[1:]))
    graph.until(lambda: "refused (refusal 1): space_spec: parameter 'axes': expected at most 0" in "".join(
        capfd.readouterr()))
    until_sent(graph, 1.0, 0.0, 0.0, KEEP)
    publish_space(replace(SPEC, action=SPEC.action[:1]))
    until_sent(graph, 1.0, 0.0, 0.0)


def test_that_nobody_listens_is_told(graph, publish_space, capfd):
    publish_space(SPEC)
    graph.add(TeleopJoyNode, always=True)
    graph.until(lambda: "nobody listens on intervention: is the actor running" in "".join(capfd.readouterr()))


@pytest.mark.parametrize(("parameters", "says"), [
    ({"deadzone": "0.1"}, "unknown parameter 'deadzone'; did you mean 'deadband'?"),
    ({"rate": "0.0"}, "parameter 'rate': expected a value from 1.0 to 1000.0, found 0.0"),
])
def test_wrong_parameters_end_the_node_with_one_line_and_status_2(domain, parameters, says, start_node):
    process = start_node("teleop_joy", **parameters)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 2
    assert says in printed
    assert printed.count("\n") == 1


def test_the_arm_does_what_the_person_does_before_there_is_any_policy(graph):
    graph.listen(qos.ACTION, qos.OBSERVATION, qos.ACTOR_STATUS)
    driver = graph.add(ArmDriverNode, lockstep=False, control_rate=20.0)
    graph.add(ActorNode, hidden_dims=[8])
    device = Device(graph)
    teleop = graph.add(TeleopJoyNode, deadband=0.0, linger=0.0)
    graph.until(lambda: (s := graph.last(qos.ACTOR_STATUS)) and "no policy received yet" in s.text)
    assert graph.heard["action"] == []
    start = graph.last(qos.OBSERVATION).state
    device.axes, device.buttons = [0.0, 0.0, -0.5], [1, 0]
    graph.until(lambda: (s := graph.last(qos.ACTOR_STATUS)) and s.intervention_actions >= 10, "the arm moves")
    assert {action.source for action in graph.heard["action"]} == {Source.INTERVENTION}
    moved = [o for o in graph.heard["observation"] if o.step and o.executed_action[2] < 0]  # else it held still: late
    assert len(moved) >= 5
    assert {o.source for o in moved} == {Source.INTERVENTION}
    np.testing.assert_allclose([o.executed_action for o in moved], [[0.0, 0.0, -0.5, -1.0]] * len(moved), atol=0.2)
    fields = driver._driver.spec.state_fields
    height = sum(f.size for f in fields[:[f.name for f in fields].index("ee_position")]) + 2
    assert moved[-1].state[height] < start[height] - 0.02
    assert teleop.goes_first  # as driver and actor do: this arm does not wait
    device.axes, device.buttons = [0.0, 0.0, 0.0], [0, 0]
    graph.until(lambda: "no policy received yet" in graph.last(qos.ACTOR_STATUS).text, "the policy's turn again")


def test_a_person_shows_a_task_and_says_when_it_is_done(graph):
    graph.listen(qos.OBSERVATION, qos.TRANSITIONS, qos.EPISODE, qos.ACTOR_STATUS)
    graph.add(ArmDriverNode, lockstep=False, control_rate=20.0)
    graph.add(ActorNode, hidden_dims=[8], policy_acts=False)
    device = Device(graph)
    graph.add(TeleopJoyNode, deadband=0.0, success_button=2)
    graph.until(lambda: (s := graph.last(qos.ACTOR_STATUS)) and "until a person acts" in s.text)
    device.axes = [0.0, 0.0, -0.5]
    graph.until(lambda: (s := graph.last(qos.ACTOR_STATUS)) and s.intervention_actions >= 5, "the arm moves")
    device.axes = [0.0, 0.0, 0.0]
    graph.until(lambda: "a person keeps" in graph.last(qos.ACTOR_STATUS).text)
    graph.until(lambda: "until a person acts" in graph.last(qos.ACTOR_STATUS).text)
    made = len({m.sequence for m in graph.heard["transitions"]})
    device.buttons = [0, 0, 1]
    episode = graph.until(lambda: graph.last(qos.EPISODE))
    assert (episode.success, episode.terminated, episode.episode_return) == (True, True, 1.0)
    graph.until(lambda: graph.last(qos.OBSERVATION).episode == 2, "the reset")
    last = max(graph.heard["transitions"], key=lambda m: m.sequence)
    assert (last.sequence, last.success, last.terminated, last.reward) == (made + 1, True, True, 1.0)
    assert {m.source for m in graph.heard["transitions"]} == {Source.INTERVENTION}
    np.testing.assert_allclose(last.action, [0.0, 0.0, 0.0, 1.0], atol=1e-6)
