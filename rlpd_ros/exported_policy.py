# SPDX-License-Identifier: Apache-2.0
"""A policy in a file, with the evidence that it travels with: enough to evaluate or to deploy it, nothing executable.

The file is one line of JSON (the fields of PolicySnapshot but for the arrays' bytes) and then the parameters' bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from rlpd_ros.errors import DataError
from rlpd_ros.types import Observation, PolicySnapshot
from rlpd_ros.untrusted import parse_json, printable

_NUMBERS = {"version": int, "gradient_step": int, "change": float, "stamp": int}
_TEXTS = ("session", "checksum", "network", "network_fingerprint", "space_fingerprint")
MAX_BYTES = 2**30


def save_policy(path: Path, snapshot: PolicySnapshot) -> None:
    """Write ``snapshot`` atomically: a crash leaves the earlier file valid. Raises DataError if it cannot."""
    header = {name: getattr(snapshot, name) for name in (*_TEXTS, *_NUMBERS)}
    header["probe_state"] = np.asarray(snapshot.probe.state, np.float64).tolist()
    header["probe_images"] = {
        name: {"shape": image.shape, "hex": image.tobytes().hex()} for name, image in snapshot.probe.images.items()}
    header["probe_action"] = np.asarray(snapshot.probe_action, np.float64).tolist()
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            file.write(json.dumps(header).encode() + b"\n" + snapshot.data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # it may not even be there
            partial.unlink()
        raise DataError(f"{path}: cannot write the policy: {error.strerror}") from error


def load_policy(path: Path) -> PolicySnapshot:
    """Read a policy; ``verify`` then proves it. Raises DataError naming the file and what is wrong with it."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: expected at most {MAX_BYTES} bytes, found {path.stat().st_size}")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot read the policy: {error.strerror}") from error
    head, _, data = content.partition(b"\n")
    try:
        header = parse_json(head)
        images = {
            name: np.frombuffer(bytes.fromhex(image["hex"]), np.uint8).reshape(image["shape"])
            for name, image in header["probe_images"].items()}
        values: dict[str, Any] = {name: str(header[name]) for name in _TEXTS}
        values |= {name: kind(header[name]) for name, kind in _NUMBERS.items()}
        return PolicySnapshot(
            **values,
            probe=Observation(np.asarray(header["probe_state"], np.float32), images),
            probe_action=np.asarray(header["probe_action"], np.float32), data=data)
    except (DataError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise DataError(f"{path}: not a policy file of this package, or damaged: {printable(error)}") from error
