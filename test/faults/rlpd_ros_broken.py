# SPDX-License-Identifier: Apache-2.0
"""A real node with one thing broken: ``rlpd_ros_broken.py NODE FAULT --ros-args ...``."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from importlib import import_module

import numpy as np

HEALTHY = 200  # calls for which what breaks later goes well


def for_ever() -> None:
    threading.Event().wait()


def learner_corrupt() -> None:
    """Change one byte of every policy on its way."""
    messages = import_module("rlpd_ros.ros.messages")
    make = messages.from_policy_snapshot

    def corrupt(snapshot):
        message = make(snapshot)
        message.data[len(message.data) // 2] ^= 1
        return message

    messages.from_policy_snapshot = corrupt


def learner_other_parameters() -> None:
    """Send the parameters of another network of the same kind, with a checksum that is right."""
    publications = import_module("rlpd_ros.publications")
    types = import_module("rlpd_ros.types")
    make = publications.make_snapshot

    def other(*arguments, **named):
        snapshot = make(*arguments, **named)
        data = np.frombuffer(snapshot.data, "<f4")[::-1].tobytes()
        return dataclasses.replace(snapshot, data=data, checksum=types.checksum(data))

    publications.make_snapshot = other


def learner_nan() -> None:
    """Put one NaN into the rewards of a batch, after a while."""
    _spoil_batches(lambda batch: batch.rewards.flat.__setitem__(0, np.nan))


def learner_diverges() -> None:
    """Value what comes next more than what comes now, after a while."""
    _spoil_batches(lambda batch: np.multiply(batch.masks, 1.2, out=batch.masks))


def _spoil_batches(spoil) -> None:
    learner = import_module("rlpd_ros.learner")
    sample, calls = learner.symmetric_batches, []

    def spoilt(*arguments):
        batch = sample(*arguments)
        calls.append(1)
        if len(calls) > HEALTHY:
            spoil(batch)
        return batch

    learner.symmetric_batches = spoilt


def learner_blocked() -> None:
    """Never return from a training step, after a while."""
    _stop_after("rlpd_ros.learner", "Learner", "train", for_ever)


def actor_blocked() -> None:
    _stop_after("rlpd_ros.actor", "Actor", "observe", for_ever)


def actor_raises() -> None:
    def fail() -> None:
        raise RuntimeError("a fault of this callback")

    _stop_after("rlpd_ros.actor", "Actor", "observe", fail, calls=20)


def actor_deaf() -> None:
    """Take no policy after the first."""
    _stop_after("rlpd_ros.actor", "Actor", "offer", None, calls=1)


def actor_drops() -> None:
    """Publish no transition, after a while."""
    _stop_after("rlpd_ros.nodes.actor", "ActorNode", "send", None)


def actor_idle() -> None:
    """Complete no step any more, after a while."""
    _stop_after("rlpd_ros.actor", "Actor", "_complete", None)


def actor_slow() -> None:
    """Take 35 ms for an action."""
    policy = import_module("rlpd_ros.rl.policy").Policy
    sample = policy.sample

    def slow(*arguments):
        time.sleep(0.035)
        return sample(*arguments)

    policy.sample = slow


def actor_extreme() -> None:
    """Drive every action to its bounds."""
    policy = import_module("rlpd_ros.rl.policy").Policy
    sample = policy.sample

    def extreme(*arguments):
        action, key = sample(*arguments)
        return np.where(action < 0, -1.0, 1.0).astype(np.float32), key

    policy.sample = extreme


def actor_clock() -> None:
    """Be a minute ahead."""
    main = import_module("rlpd_ros.ros.main")
    main.wall_ns = lambda: time.time_ns() + 60_000_000_000


def arm_driver_hangs() -> None:
    _stop_after("rlpd_ros.arm.mujoco_arm", "MujocoArm", "step", for_ever)


def arm_driver_unhurried() -> None:
    """Take 12 s for a reset."""
    arm = import_module("rlpd_ros.arm.mujoco_arm").MujocoArm
    reset = arm.reset

    def slow(*arguments, **named):
        time.sleep(12.0)
        return reset(*arguments, **named)

    arm.reset = slow


def arm_driver_unrewarded() -> None:
    """Give no reward, whatever happens."""
    arm = import_module("rlpd_ros.arm.mujoco_arm").MujocoArm
    step = arm.step
    arm.step = lambda self, action: dataclasses.replace(step(self, action), reward=0.0)


def arm_driver_swapped() -> None:
    """Exchange two observed fields of equal shape."""
    arm = import_module("rlpd_ros.arm.mujoco_arm").MujocoArm
    init = arm.__init__

    def swapped(self, *arguments, **named):
        init(self, *arguments, **named)
        fields = list(self.spec.observation)
        first, second = _of_equal_shape(fields)
        fields[first], fields[second] = fields[second], fields[first]
        self.spec = dataclasses.replace(self.spec, observation=tuple(fields))

    arm.__init__ = swapped


def demo_loader_loses() -> None:
    """Publish only the first transitions."""
    _stop_after("rlpd_ros.ros.messages", None, "from_transition", for_ever, calls=10)


def _of_equal_shape(fields) -> tuple[int, int]:
    pairs = [(i, j) for j in range(len(fields)) for i in range(j) if fields[i].shape == fields[j].shape]
    return pairs[0]


def _stop_after(module: str, owner: str | None, name: str, act, calls: int = HEALTHY) -> None:
    """Replace a function by one that does ``act``, or nothing, once it has been called so often."""
    place = import_module(module)
    place = getattr(place, owner) if owner else place
    original, count = getattr(place, name), [0]

    def stopped(*arguments, **named):
        count[0] += 1
        if count[0] <= calls:
            return original(*arguments, **named)
        if act is not None:
            act()
        return None

    setattr(place, name, stopped)


if __name__ == "__main__":
    node, fault = sys.argv[1:3]
    globals()[f"{node}_{fault}"]()
    del sys.argv[1:3]
    sys.exit(import_module(f"rlpd_ros.nodes.{node}").main())
