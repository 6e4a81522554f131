# SPDX-License-Identifier: Apache-2.0
"""Which DDS security enclave a process runs in, if security is switched on."""

from __future__ import annotations

import os

ROOT = "/rlpd"
WATCH = "watch"  # of `rlpd train` itself, `rlpd doctor` and other tools that only listen
TELEOP = "teleop"  # of teleop_joy and `rlpd teleop`


def enclave(name: str, namespace: str = "") -> str:
    """Return the enclave of a node, e.g. "/rlpd/left/learner"."""
    return "/".join([ROOT, *(part for part in namespace.split("/") if part), name])


def enclave_arguments(name: str, namespace: str = "") -> list[str]:
    """Return the ROS arguments that put a process into its enclave; [] unless ROS_SECURITY_ENABLE is "true"."""
    return ["--enclave", enclave(name, namespace)] if os.environ.get("ROS_SECURITY_ENABLE") == "true" else []
