# SPDX-License-Identifier: Apache-2.0
"""A short form of each part of ``make chaos``, with real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = Path(__file__).parent / "chaos" / "suite.py"


@pytest.mark.slow
@pytest.mark.parametrize("part", ["kills", "network", "slow"])
def test_nothing_is_lost(part, tmp_path):
    without = {key: value for key, value in os.environ.items() if key != "ROS_DOMAIN_ID"}
    done = subprocess.run([sys.executable, str(SUITE), part, "--short"], cwd=tmp_path, capture_output=True, text=True,
                          check=False, env=without)
    report = tmp_path / "reports" / "chaos.json"
    assert report.exists(), done.stdout + done.stderr
    rows = json.loads(report.read_text())
    if any("skipped" in row["name"] for row in rows):
        pytest.skip(next(line for line in done.stdout.splitlines() if "skipped" in line))
    missed = [row for row in rows if row["ok"] is False and not row["unit"].startswith(("s", "periods", "1/s"))]
    assert not missed, done.stdout + done.stderr  # what is a matter of time is for a machine with nothing else to do


@pytest.mark.slow
def test_late_actors_have_the_newest_policy(tmp_path):
    done = subprocess.run([sys.executable, str(SUITE), "joins", "--short"], cwd=tmp_path, capture_output=True,
                          text=True, check=False)
    rows = {row["name"]: row for row in json.loads((tmp_path / "reports" / "chaos.json").read_text())}
    assert rows["joins: joins without the newest policy"]["ok"], done.stdout + done.stderr
    assert rows["joins: versions published meanwhile"]["ok"], done.stdout + done.stderr
