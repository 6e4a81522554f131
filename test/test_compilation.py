# SPDX-License-Identifier: Apache-2.0
"""What a process tells JAX before it computes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

NAME = "XLA_PYTHON_CLIENT_PREALLOCATE"
CODE = f"import os; from rlpd_ros.rl.compilation import keep_compiled; keep_compiled(); print(os.environ['{NAME}'])"


@pytest.mark.parametrize(("chosen", "expected"), [({}, "false"), ({NAME: "true"}, "true")])
def test_a_process_leaves_a_gpu_to_others_unless_the_user_says_otherwise(chosen, expected):
    environment = {name: value for name, value in os.environ.items() if name != NAME} | chosen
    assert subprocess.check_output([sys.executable, "-c", CODE], env=environment, text=True) == f"{expected}\n"
