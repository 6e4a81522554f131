# SPDX-License-Identifier: Apache-2.0
"""What a person at a device asks of the arm: a joystick's axes and buttons, or keys, become actions. No ROS."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.settings import TeleopJoyConfig
from rlpd_ros.types import SpaceSpec
from rlpd_ros.untrusted import printable

OPEN, CLOSED = 1.0, -1.0  # of the gripper's element


def element_names(spec: SpaceSpec) -> list[str]:
    """Return what to call each element of the action: "ee_motion[0]", or the field's name where it is the only one."""
    return [f.name if f.size == 1 else f"{f.name}[{i}]" for f in spec.action for i in range(f.size)]


def gripper_of(spec: SpaceSpec) -> int | None:
    """Return which element of the action is the gripper's: the last one, if it is alone in a field of such a name."""
    last = spec.action[-1]
    return spec.action_size - 1 if last.size == 1 and "gripper" in last.name.lower() else None


class Teleoperator(ABC):
    """A person who moves an arm of ``spec``: what all devices share.

    The element ``gripper`` stays as the person has put it, at first at ``opening``; the others are ``moved``, and zero
    while nobody moves them. With ``always`` there is an action at any time, so that no policy acts in between.
    """

    def __init__(self, spec: SpaceSpec, gripper: int | None, always: bool, opening: float = OPEN) -> None:
        self.names = element_names(spec)
        self.gripper = gripper
        self.moved = [i for i in range(spec.action_size) if i != gripper]
        self.always = always
        self.opening = opening
        self._acted = False

    @abstractmethod
    def motion(self, now: float) -> np.ndarray | None:
        """Return what the person asks of the ``moved`` elements (n,) at ``now``, s; None if that is nothing."""

    def action(self, now: float) -> np.ndarray | None:
        """Return the action to send at ``now``, s, float32 (action_size,) in [-1, 1]; None to send nothing.

        When the person lets go one action without motion follows: the last one goes before the policy for a while yet
        (``intervention_timeout``), and the arm must not move on for so long.
        """
        return self._compose(self.motion(now))

    def stop(self) -> np.ndarray | None:
        """Return the last action to send before this program goes away; None if there is nothing to stop."""
        return self._compose(None)

    def _compose(self, motion: np.ndarray | None) -> np.ndarray | None:
        acts, acted = motion is not None, self._acted
        self._acted = acts
        if not (acts or acted or self.always):
            return None
        action = np.zeros(len(self.names), np.float32)
        if motion is not None:
            action[self.moved] = np.clip(motion, -1.0, 1.0)
        if self.gripper is not None:
            action[self.gripper] = self.opening
        return action


class JoyTeleoperator(Teleoperator):
    """A person with a joystick, a gamepad or a SpaceMouse. Call ``hear`` for every message, ``action`` at a fixed rate.

    ``now``, in s of any clock that does not jump, is when listening begins. Raises ConfigError naming a parameter that
    does not fit ``spec``.
    """

    def __init__(self, config: TeleopJoyConfig, spec: SpaceSpec, now: float) -> None:
        gripper = gripper_of(spec) if config.gripper < 0 else config.gripper
        super().__init__(spec, gripper, config.always, config.gripper_start)
        self._check(config)
        self._config = config
        self._scales = np.resize(config.scales, len(config.axes))
        self._motion = np.zeros(len(self.moved))
        self._enabled = False
        self._acts_until = -np.inf
        self._heard_at = now

    def _check(self, config: TeleopJoyConfig) -> None:
        names = ", ".join(printable(self.names[i]) for i in self.moved)
        if config.gripper >= len(self.names):
            raise ConfigError(f"parameter 'gripper': expected an element of the action, 0 to {len(self.names) - 1}, "
                              f"found {config.gripper}")
        if len(config.axes) > len(self.moved):
            raise ConfigError(f"parameter 'axes': expected at most {len(self.moved)}, for {names}, found "
                              f"{list(config.axes)}")
        if len(config.scales) not in (1, len(config.axes)):
            raise ConfigError(f"parameter 'scales': expected one number, or one for each of {len(config.axes)} axes, "
                              f"found {list(config.scales)}")
        buttons = [b for b in (config.close_button, config.open_button, config.enable_button) if b >= 0]
        if len(set(buttons)) < len(buttons):
            raise ConfigError("parameters 'close_button', 'open_button', 'enable_button': expected different buttons, "
                              f"found {buttons}")

    def hear(self, axes: Sequence[float], buttons: Sequence[int], now: float) -> None:
        """Take a message that came at ``now``, s: the device's axes in [-1, 1], its buttons not 0 while pressed.

        A button that the message lacks is not pressed: spacenav sends none until one is. Raises DataError if an axis
        that is used is missing or not finite; the message then counts as if it had not come.
        """
        config = self._config
        needed = max(config.axes, default=-1) + 1
        if len(axes) < needed:
            raise DataError(f"axes: expected at least {needed}, since parameter 'axes' is {list(config.axes)}, found "
                            f"{len(axes)}: is this the right device?")
        values = np.array([axes[axis] if axis >= 0 else 0.0 for axis in config.axes])
        if not np.isfinite(values).all():
            raise DataError(f"axes: expected finite numbers, found {printable(values)}")
        self._heard_at = now
        beyond = np.maximum(np.abs(values) - config.deadband, 0.0) / (1.0 - config.deadband)
        self._motion[:len(values)] = self._scales * np.sign(values) * beyond

        def pressed(button: int) -> bool:
            return 0 <= button < len(buttons) and bool(buttons[button])

        self._enabled = config.enable_button < 0 or pressed(config.enable_button)
        closes, opens = (self.gripper is not None and pressed(b) for b in (config.close_button, config.open_button))
        if self._enabled and (closes or opens):
            self.opening = CLOSED if closes else OPEN
        if closes or opens or self._motion.any():
            self._acts_until = now + config.linger

    def lost(self, now: float) -> bool:
        """Tell whether the device has been silent for so long that its cable seems to be out."""
        return now - self._heard_at > self._config.timeout

    def motion(self, now: float) -> np.ndarray | None:
        if self.lost(now) or not self._enabled:
            return None
        held = self._config.enable_button >= 0
        return self._motion if held or self._motion.any() or now <= self._acts_until else None

    def __str__(self) -> str:
        config = self._config
        wired = [(axis, self.names[i]) for axis, i in zip(config.axes, self.moved, strict=False) if axis >= 0]
        parts = [f"axis {axis} moves {name}" for axis, name in wired]
        if self.gripper is not None:
            parts += [f"button {button} {what} {self.names[self.gripper]}" for button, what in (
                (config.close_button, "closes"), (config.open_button, "opens")) if button >= 0]
        still = [self.names[i] for i in self.moved if self.names[i] not in {name for _, name in wired}]
        parts += [f"nothing moves {', '.join(still)}"] if still else []
        parts += [f"only while button {config.enable_button} is held"] if config.enable_button >= 0 else []
        return printable("; ".join(parts))


MOTION_KEYS = ("ws", "ad", "rf", "12", "34", "56", "78", "90")  # forwards and back, for one moved element after another
ARROWS = {"A": "w", "B": "s", "D": "a", "C": "d"}  # last letter of what a terminal sends for up, down, left and right
HOLD = 0.5  # s for which a key counts: longer than keyboards wait before they repeat it
REPEATED_HOLD = 0.15  # s for which it counts once it repeats, some thirty times a second
LINGER = 0.5  # s that a person who pauses between two keys keeps the policy from acting
FASTER = 1.25  # factor of the speed
SLOWEST = 0.02


def split_keys(text: str) -> list[str]:
    """Return the keys in what a terminal has sent, arrows as the letters that mean the same."""
    keys = re.findall(r"\x1b[\[O][0-9;]*[~A-Za-z]|.", text, re.DOTALL)
    return [ARROWS.get(key[-1], key) if len(key) == 3 else key for key in keys]


class KeyTeleoperator(Teleoperator):
    """A person at a keyboard, of which a terminal tells only that keys are pressed. ``speed`` is of 1."""

    def __init__(self, spec: SpaceSpec, speed: float, always: bool = False) -> None:
        super().__init__(spec, gripper_of(spec), always)
        self.speed = speed
        self._keys = {key: (i, sign) for i, pair in enumerate(MOTION_KEYS[:len(self.moved)])
                      for key, sign in zip(pair, (1.0, -1.0), strict=True)}
        self._signs = np.zeros(len(self.moved))
        self._held_until = np.full(len(self.moved), -np.inf)
        self._acts_until = -np.inf

    def press(self, key: str, now: float) -> None:
        """Take a key at ``now``, s. One without a meaning stops all motion."""
        if key in self._keys:
            i, sign = self._keys[key]
            repeats = self._signs[i] == sign and now < self._held_until[i]
            self._held_until[i] = max(self._held_until[i], now + REPEATED_HOLD) if repeats else now + HOLD
            self._signs[i] = sign
            self._acts_until = self._held_until[i] + LINGER
        elif key == "g" and self.gripper is not None:
            self.opening = -self.opening
            self._acts_until = max(self._acts_until, now + LINGER)
        elif key in ("+", "=", "-"):
            self.speed = min(max(self.speed / FASTER if key == "-" else self.speed * FASTER, SLOWEST), 1.0)
        elif key == " ":
            self.always = not self.always
        else:
            self._held_until[:] = -np.inf

    def motion(self, now: float) -> np.ndarray | None:
        held = now < self._held_until
        return np.where(held, self._signs * self.speed, 0.0) if held.any() or now < self._acts_until else None

    def help(self) -> list[str]:
        """Return lines that tell which key does what."""
        arrows = ("or up, down", "or left, right")
        lines = [f"  {keys[0]} {keys[1]}  {arrows[i] if i < len(arrows) else '':<14}  {self.names[element]} +, -"
                 for i, (keys, element) in enumerate(zip(MOTION_KEYS, self.moved, strict=False))]
        if self.gripper is not None:
            lines.append(f"  g                    {self.names[self.gripper]}: close, open")
        rest = [self.names[i] for i in self.moved[len(MOTION_KEYS):]]
        lines += [f"  no keys are left for {', '.join(rest)}: use teleop_joy"] if rest else []
        return [printable(line) for line in lines] + [
            "  + -  speed     space  send always, or only while you act     q  end     any other key  stop"]
