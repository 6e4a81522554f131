# SPDX-License-Identifier: Apache-2.0
"""The modules depend on each other in one direction only, ROS stays in its adapters, and every file has a licence."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ament_index_python.packages import get_packages_with_prefixes

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rlpd_ros"
LAYERS = (
    {"errors"},
    {"untrusted"},
    {"config", "types", "runs", "status", "installation", "enclaves"},
    {"rl", "data", "arm", "metrics", "tables"},
    {"settings", "exported_policy"},
    {"kept", "person", "publications", "tally"},
    {"actor", "learner", "driver", "teleoperation", "report", "diagnosis"},
    {"ros"},
    {"nodes", "record", "graph"},
    {"preparation"},
    {"bench", "security", "launching"},
    {"cli"},
)
"""A part knows the lines above its own, and nothing of its neighbours."""
ROS_PARTS = {"ros", "nodes", "graph", "bench", "security", "launching", "cli"}
ROS_PACKAGES = {"rclpy", "launch", "launch_ros", "std_msgs", "std_srvs", "sensor_msgs", "geometry_msgs"}
NOT_FOR = {"ros": {"actor", "learner", "driver", "teleoperation", "report"}}  # adapters convert: they know no logic
SOURCES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return the dotted names that a file imports anywhere, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide the layers"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part_of(path: Path) -> str:
    """Return which member of LAYERS a source file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rank(part: str) -> int:
    ranks = [i for i, layer in enumerate(LAYERS) if part in layer]
    assert ranks, f"rlpd_ros.{part} has no place in LAYERS yet"
    return ranks[0]


def test_there_is_something_to_check():
    assert {part_of(path) for path in SOURCES} >= {"types", "rl", "data", "arm", "ros", "nodes", "graph", "cli"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    part = part_of(path)
    if part == "__init__":
        assert imported(path) <= {"pkgutil.extend_path"}, "any of the package's modules must load alone"
        return
    for name in imported(path):
        package, _, rest = name.partition(".")
        other = rest.split(".")[0]
        if package == "rlpd_ros" and other not in (part, "msg", ""):
            assert rank(other) < rank(part), f"{part} imports {name}"
            assert other not in NOT_FOR.get(part, ()), f"{part} imports {name}"
        if part not in ROS_PARTS:
            assert package not in ROS_PACKAGES, f"{part} imports {name}"
            assert other != "msg", f"{part} imports {name}"


def test_launch_files_need_only_the_graph():
    files = [*(ROOT / "launch").glob("*.launch.py"), PACKAGE / "launching.py"]
    names = {name for path in files for name in imported(path) if name.startswith("rlpd_ros")}
    assert len(files) > 2
    assert {name.split(".")[1] for name in names} == {"errors", "graph", "launching", "untrusted"}


def test_ros_packages_that_are_imported_are_declared():
    imports = {name.partition(".")[0] for path in SOURCES for name in imported(path)}
    declared = {element.text for element in ElementTree.parse(ROOT / "package.xml").iter()
                if element.tag in ("depend", "exec_depend", "name")}
    found = imports & set(get_packages_with_prefixes())
    assert {"rclpy", "sensor_msgs"} < found
    assert found <= declared


def test_the_graph_loads_in_a_python_that_has_ros_but_not_the_libraries_of_the_nodes():
    code = "import sys, rlpd_ros.graph; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert not {"jax", "flax", "mujoco", "gymnasium", "rosbags", "rich", "matplotlib"} & set(run.stdout.split())


@pytest.mark.parametrize("folder", [ROOT, Path("/")], ids=["source", "elsewhere"])
def test_the_messages_are_found_from_any_folder(folder):
    subprocess.run([sys.executable, "-c", "import rlpd_ros.msg, rlpd_ros.types"], check=True, cwd=folder)


def test_every_source_has_its_licence():
    patterns = ("*.py", "test/*.py", "launch/*.py", "rlpd_ros/**/*.py", "scripts/*", "config/**/*.yaml",
                ".github/**/*.yaml", ".ci/run", "Makefile", "env.sh", "CMakeLists.txt", "pyproject.toml")
    files = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    assert len(files) > 20
    without = [str(path.relative_to(ROOT)) for path in sorted(files)
               if "# SPDX-License-Identifier: Apache-2.0" not in path.read_text().splitlines()[:2]]
    assert not without
