# SPDX-License-Identifier: Apache-2.0
"""Train: ``ros2 launch rlpd_ros train.launch.py``. The same graph as ``rlpd train``, turned into launch actions.

On several machines, start it on each with the nodes that shall run there: ``ros2 launch rlpd_ros train.launch.py
nodes:=learner,demo_loader,monitor`` on one, ``nodes:=arm_driver,actor`` on the other.
"""

from launch import LaunchDescription
from launch.actions import LogInfo, OpaqueFunction

from rlpd_ros.graph import train_graph
from rlpd_ros.launching import arguments_of, declared, prepared, split, to_action

ARGUMENTS = {
    "params_file": ("", "ROS parameter files, separated by commas; the last one wins"),
    "preset": ("", "published settings: the name of a file in config/presets"),
    "seed": ("", "of everything that is random"),
    "runs": ("runs", "folder in which runs are kept"),
    "run": ("", "name of the run; empty: the time"),
    "resume": ("", "folder of an earlier run to go on with"),
    "demos": ("", "rosbag2 bags of demonstrations, or folders of bags, separated by commas; none: train without; "
                  "empty: record 20 with the arm's scripted expert"),
    "nodes": ("", "nodes to start here, separated by commas: arm_driver, demo_loader, learner, actor, monitor; "
                  "empty: all"),
    "namespace": ("", "of all nodes"),
    "arms": ("", "several arms that feed the one learner, separated by commas: a namespace for each"),
    "log_level": ("info", "of all nodes"),
}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the nodes follow when their values are known."""
    return LaunchDescription([*declared(ARGUMENTS), OpaqueFunction(function=start)])


def start(context) -> list:
    """Prepare the run and return one action per process of the graph."""
    values = arguments_of(context, ARGUMENTS)
    nodes, arms = split(values["nodes"]), split(values["arms"])
    run = prepared({name: values[name] for name in ("runs", "run", "resume", "preset", "seed", "namespace")},
                   "--config", *split(values["params_file"]), "--demos", *split(values["demos"]), "--nodes", *nodes,
                   "--arms", *arms)
    processes = train_graph(run["run"], tuple(run["parameter_files"]), tuple(run["demos"]), nodes, values["namespace"],
                            arms)
    return [*(LogInfo(msg=text) for text in run["said"]),
            *(to_action(process, values["log_level"]) for process in processes)]
