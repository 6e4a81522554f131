# SPDX-License-Identifier: Apache-2.0
"""Play: ``ros2 launch rlpd_ros play.launch.py run:=runs/first``. An arm moves by a finished run's policy."""

from launch import LaunchDescription
from launch.actions import OpaqueFunction

from rlpd_ros.graph import play_graph
from rlpd_ros.launching import arguments_of, declared, prepared, split, to_action

ARGUMENTS = {
    "run": (None, "folder of the run, whose parameters and policy are used"),
    "params_file": ("", "ROS parameter files, separated by commas; they overrule the run's parameters"),
    "episodes": ("0", "to play; 0: until it is stopped"),
    "nodes": ("", "nodes to start here, separated by commas: arm_driver, actor; empty: both"),
    "namespace": ("", "of both nodes"),
    "log_level": ("info", "of both nodes"),
}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the nodes follow when their values are known."""
    return LaunchDescription([*declared(ARGUMENTS), OpaqueFunction(function=start)])


def start(context) -> list:
    """Return one action per process of the graph."""
    values = arguments_of(context, ARGUMENTS)
    nodes, namespace = split(values["nodes"]), values["namespace"]
    play = prepared({"episodes": values["episodes"], "namespace": namespace},
                    "--play=" + values["run"],  # also if it is empty: without it a training run would be prepared
                    "--config", *split(values["params_file"]), "--nodes", *nodes)
    processes = play_graph(values["run"], tuple(play["parameter_files"]), play["episodes"], nodes, namespace)
    return [to_action(process, values["log_level"]) for process in processes]
