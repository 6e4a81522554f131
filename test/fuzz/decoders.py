# SPDX-License-Identifier: Apache-2.0
"""A coverage-guided fuzzer (Atheris: libFuzzer for Python) on what decodes bytes: ``decoders.py SECONDS SEED``."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

with atheris.instrument_imports(include=["rlpd_ros", "rosbags.serde", "yaml"]):
    from rclpy.serialization import serialize_message
    from recordings import STATE, make_records, serialize, write_log
    from test_exported_policy import make

    from rlpd_ros.data.episodes import validate
    from rlpd_ros.errors import RlpdError
    from rlpd_ros.exported_policy import load_policy, save_policy
    from rlpd_ros.ros import definitions, messages
    from rlpd_ros.ros.bag_files import McapFile
    from rlpd_ros.ros.bag_reader import Bag
    from rlpd_ros.ros.parameters import load_parameter_file

FILE = Path(f"/proc/self/fd/{os.memfd_create('input')}")  # spares the disk
TYPES = ("Transition", "SpaceSpec", "LearnerStatus", "ActorStatus", "DemoManifest", "EpisodeStats")


def write(data: bytes) -> Path:
    FILE.write_bytes(data)
    return FILE


def decode_message(kind: str, data: bytes) -> None:
    message = definitions.decode(f"rlpd_ros/msg/{kind}", data)
    if kind == "Transition":
        validate(messages.to_transition(message, STATE), STATE)
    elif kind == "SpaceSpec":
        messages.to_space_spec(message)


def read_log(data: bytes) -> None:
    for partial in (True, False):
        for raw in McapFile(write(data), partial).messages(lambda topic, type_name: type_name.endswith("Transition")):
            decode_message("Transition", raw.data)


def decode_one(data: bytes) -> None:
    """Decode ``data`` as its first byte says. What it raises but for the package's own errors is a finding."""
    if not data:
        return
    which, rest = data[0] % 10, bytes(data[1:])
    try:
        if which < len(TYPES):
            decode_message(TYPES[which], rest)
        elif which == 6:
            read_log(rest)
        elif which == 7:
            load_policy(write(rest))
        elif which == 8:
            load_parameter_file(write(rest))
        else:
            folder = Path(FOLDER.name)
            (folder / "metadata.yaml").write_bytes(rest)
            Bag(folder)._metadata()
    except RlpdError:
        pass


def seeds(folder: Path) -> Path:
    """Write one valid input of each kind, from which the fuzzer begins."""
    corpus = folder / "corpus"
    corpus.mkdir()
    records = make_records(STATE, 3)
    bag = write_log(folder / "bag", STATE, records)
    save_policy(folder / "policy", make())
    inputs = {0: serialize(records[0], STATE), 1: bytes(serialize_message(messages.from_space_spec(STATE))),
              6: (bag / "bag_0.mcap").read_bytes(),
              7: (folder / "policy").read_bytes(), 8: b"/**:\n  ros__parameters: {seed: 3, hidden_dims: [8]}\n",
              9: (bag / "metadata.yaml").read_bytes()}
    for which, data in inputs.items():
        (corpus / str(which)).write_bytes(bytes([which]) + data)
    return corpus


FOLDER = tempfile.TemporaryDirectory()

if __name__ == "__main__":
    corpus = seeds(Path(FOLDER.name))
    atheris.Setup([sys.argv[0], str(corpus), f"-max_total_time={sys.argv[1]}", "-timeout=10", "-rss_limit_mb=2048",
                   "-max_len=20000", f"-seed={sys.argv[2]}", "-print_final_stats=1",
                   f"-artifact_prefix={FOLDER.name}/"], decode_one)
    atheris.Fuzz()
