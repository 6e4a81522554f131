#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Say in one line what the machine lacks to build this package. Usage: prerequisites.sh PYTHON
python=$1
fail() { echo "rlpd_ros: $*" >&2; exit 1; }

command -v "$python" >/dev/null || fail "no '$python' found: install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "'$python' does not run"
case $version in
  3.1[0-4]) ;;
  *) fail "'$python' is Python $version, expected 3.10 to 3.14: name another one with make PYTHON=/path/to/python3" ;;
esac

packages=
"$python" -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python$version-venv"
"$python" - <<'EOF' || packages="$packages python$version-dev"
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))
EOF
command -v "${CC:-cc}" >/dev/null || packages="$packages gcc"
command -v "${CXX:-c++}" >/dev/null || packages="$packages g++"
[ -z "$packages" ] || fail "missing$packages: sudo apt install$packages"

[ -z "$ROS_DISTRO" ] || [ -n "$AMENT_PREFIX_PATH" ] ||
  fail "ROS_DISTRO is '$ROS_DISTRO', but ROS 2 is not sourced: . /opt/ros/$ROS_DISTRO/setup.bash (or unset ROS_DISTRO)"
platform=$(uname -s)-$(uname -m)
[ -n "$ROS_DISTRO" ] || [ "$platform" = Linux-x86_64 ] ||
  fail "ROS 2 comes as wheels for Linux-x86_64 only, this is $platform: install ROS 2 and source it first"
