# SPDX-License-Identifier: Apache-2.0
# Source this, in bash or zsh, for a shell in which `rlpd` and everything that it needs is found.
# With --underlay: only ROS 2 and the tools, not this package (for building it).

_rlpd_env() {
  if [ ! -f "$1/.venv/bin/activate" ] || { [ "$2" != --underlay ] && [ ! -f "$1/install/setup.sh" ]; }; then
    echo "rlpd_ros: $1 is not built yet: run 'make build' there first" >&2
    return 1
  fi
  . "$1/.venv/bin/activate"
  if [ -z "$ROS_DISTRO" ]; then  # the environment is the ROS 2 installation
    export AMENT_PREFIX_PATH="$VIRTUAL_ENV" CMAKE_PREFIX_PATH="$VIRTUAL_ENV"
    # What another environment left behind: it would keep this one's libraries from being found, or become part of it.
    unset _ROS_WHEELS_BOOTSTRAP_COMPLETE COLCON_PREFIX_PATH
  fi
  [ "$2" = --underlay ] || . "$1/install/setup.${ZSH_VERSION:+z}${BASH_VERSION:+ba}sh"
}

if [ -z "$BASH_VERSION$ZSH_VERSION" ]; then
  echo "rlpd_ros: env.sh needs bash or zsh" >&2
  return 1
elif [ -n "$ZSH_VERSION" ]; then
  _rlpd_env "${${(%):-%x}:A:h}" "$1"
else
  _rlpd_env "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)" "$1"
fi
