# SPDX-License-Identifier: Apache-2.0
"""The spool of an actor node: where it is, and transitions in it as serialized messages."""

from __future__ import annotations

from pathlib import Path

from rclpy.serialization import deserialize_message, serialize_message

from rlpd_ros.data.spool import Spool
from rlpd_ros.data.spool_files import SpoolFolder
from rlpd_ros.errors import DataError
from rlpd_ros.ros import messages, qos
from rlpd_ros.runs import RunDirectory
from rlpd_ros.settings import ActorNodeConfig
from rlpd_ros.types import SpaceSpec, TransitionRecord


def open_folder(config: ActorNodeConfig, node: str) -> SpoolFolder | None:
    """Open the folder that ``node``, by its full name, keeps its spool in; None if it shall have none.

    Raises ConfigError if it cannot be written, or another actor uses it.
    """
    if not config.spool_folder and not config.run:
        return None
    parent = Path(config.spool_folder).expanduser() if config.spool_folder else RunDirectory(Path(config.run)).spool
    return SpoolFolder(parent.absolute() / node.strip("/").replace("/", "."), int(config.spool_limit * 1e6))


def open_spool(folder: SpoolFolder, session: str, spec: SpaceSpec) -> Spool:
    """Open the spool of one session, for transitions of ``spec``."""

    def encode(record: TransitionRecord) -> bytes:
        return serialize_message(messages.from_transition(record, spec))

    def decode(data: bytes) -> TransitionRecord:
        try:
            message = deserialize_message(data, qos.TRANSITIONS.type)
        except Exception as error:  # the middleware's are not documented
            raise DataError(f"expected a transition of this version, found something else: {error}") from error
        return messages.to_transition(message, spec)

    return Spool(folder.begin(session), encode, decode)
