# SPDX-License-Identifier: Apache-2.0
# Without ROS 2: everything lives in .venv, which is the ROS 2 underlay too. With ROS 2 sourced: colcon as usual.
