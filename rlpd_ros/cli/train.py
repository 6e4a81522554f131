# SPDX-License-Identifier: Apache-2.0
"""``rlpd train``: the whole system on one machine, or this machine's part of it."""

from __future__ import annotations

import argparse
import shlex
import signal
import time
from pathlib import Path

from rlpd_ros.cli.progress import ProgressDisplay
from rlpd_ros.cli.runner import Runner, ros_domain
from rlpd_ros.errors import INTERRUPTED, USER_ERROR, ConfigError
from rlpd_ros.graph import Process, train_graph
from rlpd_ros.preparation import namespace_options, prepare_run, resolve, resume_run
from rlpd_ros.ros.middleware import use_profile
from rlpd_ros.runs import RunDirectory, absolute, write_atomically
from rlpd_ros.status import LearnerState


def main(options: argparse.Namespace) -> int:
    """Prepare the run, start its processes, show their progress until the learner is done or Ctrl-C comes."""
    with ros_domain(local=not options.across_hosts) as domain:
        use_profile()
        earlier = _parameters_of(options.resume)
        run, demos = _resume(options) if options.resume is not None else _begin(options)
        processes = train_graph(run.path, (str(run.parameters),), demos, tuple(options.nodes), options.namespace,
                                tuple(options.arms))
        with ProgressDisplay() as display:
            display.echo("rlpd", f"run {run.path}, ROS_DOMAIN_ID={domain} (export it in another terminal to look in)")
            status = _watch(run, processes, options.namespace, display)
            _conclude(run, status, options, display)
    if status == USER_ERROR and earlier is not None:
        write_atomically(run.parameters, earlier)  # what does not work is not what the run goes on with
    return status


def _conclude(run: RunDirectory, status: int, options: argparse.Namespace, display: ProgressDisplay) -> None:
    if status == 0 and run.summary.exists():
        display.echo("rlpd", run.read_summary().outcome)
    elif status == INTERRUPTED:
        display.echo("rlpd", f"stopped; go on with: {_resuming(run, options)}")
    if run.report.exists():
        display.echo("rlpd", f"report: {_short(run.report)}")


def _resuming(run: RunDirectory, options: argparse.Namespace) -> str:
    """Return the command that goes on with the same nodes in the same namespaces."""
    nodes = ["--nodes", *options.nodes] if options.nodes else []
    across = ["--across-hosts"] if options.across_hosts else []
    return shlex.join(["rlpd", "train", "--resume", str(_short(run.path)), *nodes,
                       *namespace_options(options.namespace, options.arms), *across])


def _begin(options: argparse.Namespace) -> tuple[RunDirectory, tuple[str, ...]]:
    configurations = resolve(options.config, options.preset, options.overrides, options.seed)
    return prepare_run(options.runs, options.run, configurations, tuple(options.demos), tuple(options.nodes),
                       lambda text: print(text, flush=True), options.namespace, options.arms)


def _resume(options: argparse.Namespace) -> tuple[RunDirectory, tuple[str, ...]]:
    if options.config or options.preset or options.run or options.seed is not None:
        raise ConfigError("--resume goes on with the run's own name and parameters; expected no --run, --config, "
                          "--preset or --seed, but single changes by --set")
    return resume_run(options.resume, tuple(options.demos), options.overrides, lambda text: print(text, flush=True),
                      options.namespace, options.arms, tuple(options.nodes))


def _parameters_of(path: str | None) -> str | None:
    try:
        return RunDirectory(absolute(path)).parameters.read_text(encoding="utf-8") if path else None
    except (OSError, UnicodeDecodeError):
        return None  # whoever opens the run says what is wrong with it


def _watch(run: RunDirectory, processes: list[Process], namespace: str, display: ProgressDisplay) -> int:
    """Return the exit status of the graph, of a learner elsewhere too; INTERRUPTED after Ctrl-C or SIGTERM."""
    from rlpd_ros.ros.watcher import StatusWatcher  # after the domain is set

    interrupted = False

    def interrupt(*_: object) -> None:  # and nothing else: an exception could leave it half done
        nonlocal interrupted
        interrupted = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    runner = Runner(processes, run.logs, display.echo)
    saving: set[str] = set()
    here = any(process.name == "learner" for process in processes)
    try:
        with StatusWatcher(namespace) as watcher:
            while not interrupted and (status := runner.poll()) is None:
                watcher.spin(0.1)
                if watcher.actor:
                    display.show_actor(watcher.actor)
                if watcher.learner:
                    display.show_learner(watcher.learner)
                    if watcher.learner.gradient_step:
                        saving.add("learner")
                    if watcher.learner.state == LearnerState.FAILED and watcher.learner.run == str(run.path):
                        display.echo("rlpd", f"learning has failed: {watcher.learner.text}")
                        return 1
                    if watcher.learner.state == LearnerState.FINISHED and not here:
                        display.echo("rlpd", f"the learner, on {watcher.learner.host}, has finished")
                        return 0
        return INTERRUPTED if interrupted or status is None else status
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # also while the interpreter ends
        began = time.monotonic()
        runner.stop(saving)
        display.echo("rlpd", f"everything stopped within {time.monotonic() - began:.1f} s")


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
