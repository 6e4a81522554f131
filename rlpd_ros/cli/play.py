# SPDX-License-Identifier: Apache-2.0
"""``rlpd play``: move an arm by the policy of a finished run, with the nodes and cameras that it was trained with."""

from __future__ import annotations

import argparse
import signal
import time

from rlpd_ros.cli.progress import ProgressDisplay
from rlpd_ros.cli.runner import Runner, ros_domain
from rlpd_ros.errors import ConfigError
from rlpd_ros.exported_policy import load_policy
from rlpd_ros.graph import play_graph
from rlpd_ros.ros.middleware import use_profile
from rlpd_ros.runs import RunDirectory

LOOK = 0.1  # s between looks at the processes


def main(options: argparse.Namespace) -> int:
    """Start arm driver and actor; they print what becomes of each episode. Ctrl-C ends it."""
    if options.episodes < 0:
        raise ConfigError(f"episodes: expected 0 or more, found {options.episodes}")
    run = RunDirectory.open(options.run)
    load_policy(run.policy)  # to know at once if there is none
    with ros_domain(local=not options.across_hosts) as domain:
        use_profile()
        display = ProgressDisplay()  # for its lines only: there is no progress
        display.echo("rlpd", f"policy of {run.path}, ROS_DOMAIN_ID={domain} (export it in another terminal to look in)")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        runner = Runner(play_graph(run.path, tuple(options.config), options.episodes, options.namespace), run.logs,
                        display.echo)
        try:
            while (status := runner.poll()) is None:
                time.sleep(LOOK)
            return status
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)  # the nodes are being stopped already
            runner.stop()
