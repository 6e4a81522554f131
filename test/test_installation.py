# SPDX-License-Identifier: Apache-2.0
"""The installed package is complete, and finds itself without any environment variable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlpd_ros.installation import prefix, share
from rlpd_ros.settings import NODES, TOOLS

ROOT = Path(__file__).parents[1]


def test_it_holds_what_ros_tools_look_for():
    for name in ("package.xml", "launch/train.launch.py", "msg/PolicyVersion.msg", "local_setup.bash"):
        assert (share() / name).is_file(), name
    assert (prefix() / "share/ament_index/resource_index/packages/rlpd_ros").is_file()


def test_it_holds_every_file_of_the_source():
    sources = {path.relative_to(ROOT) for folder in ("launch", "config", "msg") for path in (ROOT / folder).rglob("*.*")
               if "__pycache__" not in path.parts}
    assert len(sources) > 12
    assert not [path for path in sources if not (share() / path).is_file()]


@pytest.mark.parametrize("node", [*NODES, *TOOLS])
def test_every_node_has_an_executable(node):
    executable = prefix() / "lib" / "rlpd_ros" / node
    assert os.access(executable, os.X_OK)
    assert f"from rlpd_ros.nodes.{node} import main" in executable.read_text()


@pytest.mark.parametrize("folder", [ROOT, Path("/")], ids=["source", "elsewhere"])
@pytest.mark.parametrize("others", [None, "/opt/other"])
def test_it_is_found_without_a_ros_environment(folder, others):
    environment = {name: value for name, value in os.environ.items() if name != "AMENT_PREFIX_PATH"}
    if others:
        environment["AMENT_PREFIX_PATH"] = others
    code = ("from rlpd_ros.installation import make_known; make_known(); make_known(); "
            "from ament_index_python.packages import get_package_share_directory as share; "
            "import os; print(share('rlpd_ros'), os.environ['AMENT_PREFIX_PATH'])")
    run = subprocess.run([sys.executable, "-c", code], env=environment, cwd=folder, capture_output=True, text=True,
                         check=True)
    assert run.stdout.split() == [str(share()), os.pathsep.join([str(prefix()), *filter(None, [others])])]


def prerequisites(python: str, **changes: str) -> str:
    """Return the one line that says what is missing; "" if nothing is."""
    environment = dict(os.environ) | changes
    run = subprocess.run([str(ROOT / "scripts" / "prerequisites.sh"), python], env=environment, capture_output=True,
                         text=True, check=False)
    assert (run.returncode != 0) == bool(run.stderr)
    assert run.stderr.count("\n") <= 1
    return run.stderr


def test_this_machine_has_the_prerequisites():
    assert not prerequisites(sys.executable)


def test_missing_prerequisites_are_named_with_the_remedy(tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho 3.9\n")
    old.chmod(0o755)
    assert "Python 3.9, expected 3.10" in prerequisites(str(old))
    assert "no '/nowhere/python3' found" in prerequisites("/nowhere/python3")
    assert "sudo apt install g++" in prerequisites(sys.executable, CXX="no-such-compiler")
    assert "is not sourced" in prerequisites(sys.executable, ROS_DISTRO="jazzy", AMENT_PREFIX_PATH="")
