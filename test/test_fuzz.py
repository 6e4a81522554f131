# SPDX-License-Identifier: Apache-2.0
"""A little of ``make fuzz``: malformed messages at every callback, over DDS at real processes, and damaged files."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from rclpy.serialization import deserialize_message, serialize_message

from rlpd_ros.msg import SpaceSpec
from rlpd_ros.ros import messages, qos

FUZZ = Path(__file__).parent / "fuzz"


@pytest.mark.slow
@pytest.mark.parametrize(("parts", "scale"), [
    (("nodes",), 0.003), (("processes",), 0.02), (("cameras",), 0.002),
    (("bags", "policies", "parameters", "checkpoints"), 0.005)])
def test_nothing_dies_hangs_or_believes_it(parts, scale, tmp_path):
    without = {key: value for key, value in os.environ.items() if key != "ROS_DOMAIN_ID"}
    done = subprocess.run([sys.executable, str(FUZZ / "run.py"), *parts, "--scale", str(scale)], cwd=tmp_path,
                          capture_output=True, text=True, check=False, env=without)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    rows = {row["name"]: row for row in json.loads((tmp_path / "reports" / "fuzz.json").read_text())}
    assert all(row["ok"] is not False for row in rows.values())
    if "nodes" in parts:
        assert rows["topics"]["value"] == 15
        assert all(row["value"] > 0 for name, row in rows.items()
                   if ": refused of" in name and "diagnostics" not in name)


def test_what_the_fuzzer_changes_is_another_message(monkeypatch):
    """A fuzzer that sends what is right proves nothing."""
    monkeypatch.syspath_prepend(str(FUZZ))
    from mutations import damage, mutate
    from recordings import STATE

    rng = random.Random(0)
    good = messages.from_space_spec(STATE)
    changed = [mutate(deserialize_message(serialize_message(good), SpaceSpec), rng) for _ in range(300)]
    assert sum(message != good for message in changed) > 280
    assert {type(message) for message in changed} == {qos.SPACE_SPEC.type}
    data = bytes(serialize_message(good))
    assert sum(damage(data, rng) != data for _ in range(300)) > 250
