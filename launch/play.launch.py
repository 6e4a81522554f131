# SPDX-License-Identifier: Apache-2.0
"""Play: ``ros2 launch rlpd_ros play.launch.py run:=runs/first``. An arm moves by a finished run's policy."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration

from rlpd_ros.graph import play_graph
from rlpd_ros.launching import prepared, split, to_action

ARGUMENTS = {
    "run": (None, "folder of the run, whose parameters and policy are used"),
    "params_file": ("", "ROS parameter files, separated by commas; they overrule the run's parameters"),
    "episodes": ("0", "to play; 0: until it is stopped"),
    "nodes": ("", "nodes to start here, separated by commas: arm_driver, actor; empty: both"),
    "namespace": ("", "of both nodes"),
    "log_level": ("info", "of both nodes: debug, info, warn, error"),
}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the nodes follow when their values are known."""
    arguments = [DeclareLaunchArgument(name, default_value=default, description=text)
                 for name, (default, text) in ARGUMENTS.items()]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])


def start(context) -> list:
    """Return one action per process of the graph."""
    values = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    files = prepared({"play": values["run"]}, "--config", *split(values["params_file"]))["parameter_files"]
    processes = play_graph(values["run"], tuple(files), int(values["episodes"]), split(values["nodes"]),
                           values["namespace"])
    return [to_action(process, values["log_level"]) for process in processes]
