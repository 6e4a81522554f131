# SPDX-License-Identifier: Apache-2.0
"""A few of the faults of ``make faults``, injected into a real system of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = Path(__file__).parent / "faults" / "suite.py"
SHORT = ("incompatible_qos_override", "corrupted_parameter_bytes", "healthy_training")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_the_doctor_names_the_fault_first(name, tmp_path):
    without = {key: value for key, value in os.environ.items() if key != "ROS_DOMAIN_ID"}
    done = subprocess.run([sys.executable, str(SUITE), name], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env=without)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "reports" / "faults.json").exists()
