# SPDX-License-Identifier: Apache-2.0
"""``rlpd train``: the whole system on one machine, or this machine's part of it."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rlpd_ros.cli.progress import ProgressDisplay
from rlpd_ros.cli.runner import Runner, ros_domain
from rlpd_ros.errors import ConfigError
from rlpd_ros.graph import train_graph
from rlpd_ros.preparation import prepare_run, resolve, resume_run
from rlpd_ros.runs import RunDirectory


def main(options: argparse.Namespace) -> int:
    """Prepare the run, start its processes, show their progress until the learner is done or Ctrl-C comes."""
    run, demos = _resume(options) if options.resume else _begin(options)
    processes = train_graph(run.path, (str(run.parameters),), demos, tuple(options.nodes), options.namespace)
    with ros_domain(local=not options.across_hosts) as domain, ProgressDisplay() as display:
        display.echo("rlpd", f"run {run.path}, ROS_DOMAIN_ID={domain} (export it in another terminal to look in)")
        status = _watch(Runner(processes, run.logs, display.echo), options.namespace, display)
        if status == 0 and run.summary.exists():
            display.echo("rlpd", run.read_summary().outcome)
        elif status == 130:
            display.echo("rlpd", f"stopped; go on with: rlpd train --resume {_short(run.path)}")
        if run.report.exists():
            display.echo("rlpd", f"report: {_short(run.report)}")
    return status


def _begin(options: argparse.Namespace) -> tuple[RunDirectory, tuple[str, ...]]:
    configurations = resolve(options.config, options.preset, options.overrides, options.seed)
    return prepare_run(options.runs, options.run, configurations, tuple(options.demos), tuple(options.nodes))


def _resume(options: argparse.Namespace) -> tuple[RunDirectory, tuple[str, ...]]:
    if options.config or options.preset or options.seed is not None:
        raise ConfigError("--resume goes on with the run's own parameters; expected no --config, --preset or --seed, "
                          "but single changes by --set")
    return resume_run(options.resume, tuple(options.demos), options.overrides)


def _watch(runner: Runner, namespace: str, display: ProgressDisplay) -> int:
    """Return the exit status of the graph; 130 after Ctrl-C."""
    from rlpd_ros.ros.watcher import StatusWatcher  # after the domain is set

    try:
        with StatusWatcher(namespace) as watcher:
            while (status := runner.poll()) is None:
                watcher.spin(0.1)
                if watcher.actor:
                    display.show_actor(watcher.actor)
                if watcher.learner:
                    display.show_learner(watcher.learner)
            return status
    except KeyboardInterrupt:
        return 130
    finally:
        began = time.monotonic()
        runner.stop()
        display.echo("rlpd", f"everything stopped within {time.monotonic() - began:.1f} s")


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
