# SPDX-License-Identifier: Apache-2.0
"""``rlpd play``: move an arm by the policy of a finished run, with the nodes and cameras that it was trained with."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import time

from rlpd_ros.cli.prepare import expect_episodes
from rlpd_ros.cli.progress import ProgressDisplay
from rlpd_ros.cli.runner import Runner, ros_domain
from rlpd_ros.graph import play_graph
from rlpd_ros.preparation import prepare_play
from rlpd_ros.ros.middleware import use_profile
from rlpd_ros.runs import RunDirectory

LOOK = 0.1  # s between looks at the processes


def main(options: argparse.Namespace) -> int:
    """Start arm driver and actor; they print what becomes of each episode. Ctrl-C ends it."""
    expect_episodes(options.episodes)
    run = prepare_play(options.run, options.config, tuple(options.nodes), options.namespace)
    try:
        with contextlib.suppress(OSError):  # without a place for logs its lines are on the terminal
            run.logs.mkdir(exist_ok=True)  # what is copied to another machine has none
        return _play(run, options)
    finally:
        if run.scratch is not None:
            shutil.rmtree(run.scratch)


def _play(run: RunDirectory, options: argparse.Namespace) -> int:
    with ros_domain(local=not options.across_hosts) as domain:
        use_profile()
        display = ProgressDisplay()  # for its lines only: there is no progress
        display.echo("rlpd", f"policy of {run.path}, ROS_DOMAIN_ID={domain} (export it in another terminal to look in)")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        processes = play_graph(run.path, (str(run.play_parameters),), options.episodes, tuple(options.nodes),
                               options.namespace)
        runner = Runner(processes, run.logs, display.echo)
        try:
            while (status := runner.poll()) is None:
                time.sleep(LOOK)
            return status
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)  # the nodes are being stopped already
            runner.stop()
