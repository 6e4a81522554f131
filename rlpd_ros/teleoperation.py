# SPDX-License-Identifier: Apache-2.0
"""What a person at a device asks of the arm: a joystick's axes and buttons, or keys, become actions. No ROS."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.settings import TeleopJoyConfig
from rlpd_ros.types import Command, Source, SpaceSpec
from rlpd_ros.untrusted import printable

OPEN, CLOSED, AS_IT_IS = 1.0, -1.0, np.nan  # of the gripper's element


def element_names(spec: SpaceSpec) -> list[str]:
    """Return what to call each element of the action: "ee_motion[0]", or the field's name where it is the only one."""
    return [f.name if f.size == 1 else f"{f.name}[{i}]" for f in spec.action for i in range(f.size)]


class Teleoperator(ABC):
    """A person who moves an arm of ``spec``: what all devices share.

    The element ``gripper`` stays as it is until the person puts it elsewhere, and then so until they let go; the others
    are ``moved``, and zero while nobody moves them. While the person pauses, and with ``always`` also when they have
    let go, the arm is held: no policy acts in between. Raises ConfigError for a space in which 0 is no standstill.
    """

    def __init__(self, spec: SpaceSpec, gripper: int | None, always: bool, opening: float = OPEN) -> None:
        self.names = element_names(spec)
        self.gripper = gripper
        self.moved = [i for i in range(spec.action_size) if i != gripper]
        self.always = always
        self.opening = self._untouched = AS_IT_IS if gripper == spec.gripper else opening
        self._sent = False
        self._verdict: bool | None = None
        bounds = [pair for f in spec.action for pair in zip(f.low, f.high, strict=True)]
        for i in self.moved:
            low, high = bounds[i]
            if not np.isclose(low, -high):
                raise ConfigError(f"{printable(self.names[i])}: expected bounds as far below 0 as above, so that an "
                                  f"action of 0 is no motion, found {low:g} to {high:g}: who moves another element "
                                  "would move this one too")

    @abstractmethod
    def motion(self, now: float) -> np.ndarray | None:
        """Return what the person asks of the ``moved`` elements (n,) at ``now``, s; None if that is nothing."""

    @abstractmethod
    def pauses(self, now: float) -> bool:
        """Tell whether the person, who does nothing at ``now``, s, has not let go either."""

    def command(self, now: float) -> Command | None:
        """Return what to send at ``now``, s; None to send nothing.

        When the person lets go the arm is held once more: a command goes before the policy for a while yet
        (``intervention_timeout``), and the arm must not move on for so long.
        """
        motion = self.motion(now)
        if motion is not None:
            return self._compose(motion, Source.INTERVENTION)
        return self._hold(self.always or self.pauses(now))

    def take_verdict(self) -> bool | None:
        """Return, once, whether the person has said that the episode is a success, or that it is over without."""
        verdict, self._verdict = self._verdict, None
        return verdict

    def stop(self) -> Command | None:
        """Return the last command before this program goes away; None if there is nothing to stop."""
        return self._hold(self.always)

    def _hold(self, goes_on: bool) -> Command | None:
        sent, self._sent = self._sent, goes_on
        if not goes_on and np.isnan(self._untouched):  # otherwise nobody would know what "as it is" means
            self.opening = self._untouched
        return self._compose(np.zeros(len(self.moved)), Source.HOLD) if goes_on or sent else None

    def _compose(self, motion: np.ndarray, source: Source) -> Command:
        self._sent = self._sent or source is Source.INTERVENTION
        action = np.zeros(len(self.names), np.float32)
        action[self.moved] = np.clip(motion, -1.0, 1.0)
        if self.gripper is not None:
            action[self.gripper] = self.opening
        return Command(action, source)


class JoyTeleoperator(Teleoperator):
    """A person with a joystick, a gamepad or a SpaceMouse. Call ``hear`` for every message, ``action`` at a fixed rate.

    ``now``, in s of any clock that does not jump, is when listening begins. Raises ConfigError naming a parameter that
    does not fit ``spec``.
    """

    def __init__(self, config: TeleopJoyConfig, spec: SpaceSpec, now: float) -> None:
        gripper = spec.gripper if config.gripper < 0 else config.gripper
        super().__init__(spec, gripper, config.always, config.gripper_start)
        self._check(config)
        self._config = config
        self._scales = np.resize(config.scales, len(config.axes))
        self._motion = np.zeros(len(self.moved))
        self._enabled = False
        self._grips_until = self._pauses_until = -np.inf
        self._heard_at = now
        self._pressed: set[int] = set()

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
        buttons = [b for b in (config.close_button, config.open_button, config.enable_button, config.stop_button,
                               config.success_button, config.failure_button) if b >= 0]
        if len(set(buttons)) < len(buttons):
            raise ConfigError("parameters 'close_button', 'open_button', 'enable_button', 'stop_button', "
                              f"'success_button', 'failure_button': expected different buttons, found {buttons}")

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
            self._grips_until = now + config.linger
        if closes or opens or self._motion.any():
            self._pauses_until = now + config.linger
        before, self._pressed = self._pressed, {b for b in range(len(buttons)) if buttons[b]}
        new = self._pressed - before
        if config.stop_button in new:
            self.always = not self.always
        if new & {config.success_button, config.failure_button}:
            self._verdict = config.success_button in new

    def go_on_from(self, before: JoyTeleoperator) -> None:
        """Take over what the person had stopped, and the buttons that are still pressed, when the space is another."""
        self.always, self._pressed = before.always, before._pressed

    def lost(self, now: float) -> bool:
        """Tell whether the device has been silent for so long that its cable seems to be out."""
        return now - self._heard_at > self._config.timeout

    def motion(self, now: float) -> np.ndarray | None:
        acts = self._motion.any() or now <= self._grips_until
        return self._motion if acts and self._enabled and not self.lost(now) else None

    def pauses(self, now: float) -> bool:
        holds_button = self._config.enable_button >= 0
        if self.lost(now):  # in the midst of a motion: then nobody has let go, and no policy goes on with it
            return self._enabled and (holds_button or bool(self._motion.any()))
        return self._enabled and (holds_button or now <= self._pauses_until)

    def __str__(self) -> str:
        config = self._config
        wired = [(axis, self.names[i]) for axis, i in zip(config.axes, self.moved, strict=False) if axis >= 0]
        parts = [f"axis {axis} moves {name}" for axis, name in wired]
        if self.gripper is not None:
            parts += [f"button {button} {what} {self.names[self.gripper]}" for button, what in (
                (config.close_button, "closes"), (config.open_button, "opens")) if button >= 0]
        still = [self.names[i] for i in self.moved if self.names[i] not in {name for _, name in wired}]
        parts += [f"nothing moves {', '.join(still)}"] if still else []
        parts += [f"button {button} {what}" for button, what in (
            (config.stop_button, "stops the policy, and lets it act again"),
            (config.success_button, "ends the episode in success"),
            (config.failure_button, "ends it without")) if button >= 0]
        parts += [f"only while button {config.enable_button} is held"] if config.enable_button >= 0 else []
        return printable("; ".join(parts))


MOTION_KEYS = ("ws", "ad", "rf", "12", "34", "56", "78", "90")  # forwards and back, for one moved element after another
ARROWS = {"A": "w", "B": "s", "D": "a", "C": "d"}  # last letter of what a terminal sends for up, down, left and right
VERDICTS = {"y": True, "n": False}  # keys that end an episode, in success or without
REPEATED = 0.7  # s after which a key that comes again has been pressed again: no keyboard waits longer to repeat one
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
        super().__init__(spec, spec.gripper, always)
        self.speed = speed
        self._keys = {key: (i, sign) for i, pair in enumerate(MOTION_KEYS[:len(self.moved)])
                      for key, sign in zip(pair, (1.0, -1.0), strict=True)}
        self._signs = np.zeros(len(self.moved))
        self._held_until = np.full(len(self.moved), -np.inf)
        self._closed = False  # what the key for it has last asked of the gripper
        self._grips_until = self._pauses_until = -np.inf
        self._last, self._last_at = "", -np.inf  # key

    def press(self, key: str, now: float) -> None:
        """Take a key at ``now``, s. One without a meaning stops all motion, of the policy too.

        What is done once, and not for as long as a key is held, is done once however often a held key repeats.
        """
        held = key == self._last and now - self._last_at < REPEATED
        self._last, self._last_at = key, now
        if key in self._keys:
            i, sign = self._keys[key]
            goes_on = self._signs[i] == sign and now < self._held_until[i]
            self._held_until[i] = max(self._held_until[i], now + REPEATED_HOLD) if goes_on else now + HOLD
            self._signs[i] = sign
            self._pauses_until = self._held_until[i] + LINGER
        elif key == "g" and self.gripper is not None:
            self._closed ^= not held
            self.opening = CLOSED if self._closed else OPEN
            self._grips_until = now + LINGER
            self._pauses_until = max(self._pauses_until, now + LINGER)
        elif key in ("+", "=", "-"):
            self.speed = min(max(self.speed / FASTER if key == "-" else self.speed * FASTER, SLOWEST), 1.0)
        elif key == " ":
            self.always = held or not self.always  # who leans on it in a fright stops the policy, come what may
        elif key in VERDICTS:
            self._verdict = self._verdict if held else VERDICTS[key]
        else:
            self._held_until[:] = self._grips_until = -np.inf
            self.always = True

    def motion(self, now: float) -> np.ndarray | None:
        held = now < self._held_until
        return np.where(held, self._signs * self.speed, 0.0) if held.any() or now < self._grips_until else None

    def pauses(self, now: float) -> bool:
        return now < self._pauses_until

    def help(self) -> list[str]:
        """Return lines that tell which key does what."""
        arrows = ("or up, down", "or left, right")
        lines = [f"  {keys[0]} {keys[1]}  {arrows[i] if i < len(arrows) else '':<14}  {self.names[element]} +, -"
                 for i, (keys, element) in enumerate(zip(MOTION_KEYS, self.moved, strict=False))]
        if self.gripper is not None:
            lines.append(f"  g                    {self.names[self.gripper]}: close, open, close ...")
        rest = [self.names[i] for i in self.moved[len(MOTION_KEYS):]]
        lines += [f"  no keys are left for {', '.join(rest)}: use teleop_joy"] if rest else []
        return [printable(line) for line in lines] + [
            "  y    the episode is a success and ends     n  it ends without     + -  speed     q  leave",
            "  space  stop the policy, or let it act      any other key  stop all motion, and the policy"]
