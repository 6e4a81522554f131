# SPDX-License-Identifier: Apache-2.0
"""``pip install .``: the CMake build of the package, wrapped into a wheel.

CMake generates and compiles the interfaces and installs all that a ROS 2 package consists of into a staging folder;
this file only takes it from there. Where no ROS 2 is sourced, ROS 2 comes from wheels.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from setuptools import Extension, find_packages, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
ROS_IS_SOURCED = "ROS_DISTRO" in os.environ
UNDERLAY = [] if ROS_IS_SOURCED else ["ros-jazzy"]


def requirements(*names: str) -> list[str]:
    """Return the requirements in ``requirements/<name>.txt``."""
    texts = [(ROOT / "requirements" / f"{name}.txt").read_text() for name in names]
    return [line for text in texts for line in text.splitlines() if line and not line.startswith("#")]


class Build(build):
    """Build in a folder of our own, from nothing: build/ is colcon's, and leftovers would end up in the wheel."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.build_base = "build/pip"

    def run(self) -> None:
        shutil.rmtree(self.build_base, ignore_errors=True)
        super().run()


class CMakeBuild(build_ext):
    """Let CMake install into a staging folder and sort what it installed into the wheel."""

    def run(self) -> None:
        staging = Path(self.build_temp).resolve() / "staging"
        build_folder = staging.with_name("cmake")
        environment = build_environment()
        for step in (
            ["cmake", "-S", str(ROOT), "-B", str(build_folder), "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_TESTING=OFF",
             f"-DCMAKE_INSTALL_PREFIX={staging}", f"-DPython3_EXECUTABLE={sys.executable}"],
            ["cmake", "--build", str(build_folder), "--parallel", str(os.cpu_count() or 1)],
            ["cmake", "--install", str(build_folder)],
        ):
            subprocess.run(step, env=environment, check=True)
        package = next(staging.rglob("rlpd_ros/msg/__init__.py")).parents[1]
        if not self.inplace:
            shutil.copytree(package, Path(self.build_lib).resolve() / "rlpd_ros", dirs_exist_ok=True)
        self.distribution.data_files = data_files(staging, package)

    def get_outputs(self) -> list[str]:
        return []


def build_environment() -> dict[str, str]:
    """Return the environment for CMake: without ROS 2 sourced, pip's isolated build environment is the underlay."""
    environment = dict(os.environ)
    if ROS_IS_SOURCED:  # pip hides PYTHONPATH, where its generators are, from an isolated build
        prefixes = [Path(prefix) for prefix in environment["AMENT_PREFIX_PATH"].split(os.pathsep)]
        folders = [str(folder) for prefix in prefixes for folder in prefix.glob("**/python3*/*-packages")]
        environment["PYTHONPATH"] = os.pathsep.join([environment.get("PYTHONPATH", ""), *folders])
    else:
        import ament_package

        prefix = str(Path(ament_package.__file__).parents[4])  # <prefix>/lib/python3.x/site-packages/ament_package/
        environment |= {"AMENT_PREFIX_PATH": prefix, "CMAKE_PREFIX_PATH": prefix,
                        "LD_LIBRARY_PATH": os.pathsep.join([f"{prefix}/lib", environment.get("LD_LIBRARY_PATH", "")])}
    return environment


def data_files(staging: Path, package: Path) -> list[tuple[str, list[str]]]:
    """Return folder in the prefix -> files: all that CMake installed, but for Python packages and ``bin``."""
    folders: dict[str, list[str]] = {}
    for path in sorted(staging.rglob("*")):
        folder = path.parent.relative_to(staging)
        if path.is_file() and package.parent not in path.parents and folder.parts[0] != "bin":
            folders.setdefault(str(folder), []).append(os.path.relpath(path, ROOT))
    return list(folders.items())


setup(
    version=ElementTree.parse(ROOT / "package.xml").findtext("version"),
    packages=find_packages(include=["rlpd_ros", "rlpd_ros.*"]),
    ext_modules=[Extension("rlpd_ros.interfaces", sources=[])],  # built by CMake: what it makes is for one platform
    cmdclass={"build": Build, "build_ext": CMakeBuild},
    setup_requires=requirements("build", *UNDERLAY) + [  # of the last two the headers
        r.replace("jax==", "jaxlib==") for r in requirements("base") if r.startswith(("numpy==", "jax=="))],
    install_requires=requirements("base", *UNDERLAY),
    extras_require={"gym_hil": requirements("gym-hil"), "test": requirements("test")},
)
