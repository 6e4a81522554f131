# SPDX-License-Identifier: Apache-2.0
"""``rlpd doctor``: what is wrong with a running graph, or with what one left behind, the most likely cause first."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rlpd_ros.diagnosis import LANGUAGES, Evidence, Finding, Level, diagnose, faults
from rlpd_ros.diagnosis.evidence import PATIENCE
from rlpd_ros.diagnosis.local import processes
from rlpd_ros.enclaves import WATCH, enclave_arguments
from rlpd_ros.errors import DataError

HEALTHY, FAULTS, NOTHING = 0, 1, 2
LISTEN = 3.0  # s
LISTEN_LONG = 3.7  # s, where discovery takes long
WORDS = {
    "en": {Level.OK: "OK", Level.WARN: "WARN", Level.ERROR: "ERROR", Level.STALE: "-", "check": "check",
           "found": "found", "remedy": "what to do", "verdict": "most likely cause", "healthy": "no fault found"},
    "zh": {Level.OK: "正常", Level.WARN: "警告", Level.ERROR: "错误", Level.STALE: "-", "check": "检查",
           "found": "结果", "remedy": "处理", "verdict": "最可能的原因", "healthy": "未发现故障"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line, for ``rlpd doctor`` and ``ros2 run rlpd_ros doctor``."""
    parser.add_argument("source", nargs="?", metavar="RUN|BAG",
                        help="a run's folder, or a bag of the status topics (default: the running graph)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--lang", choices=LANGUAGES, default="en", help="language (default: %(default)s)")
    parser.add_argument("--namespace", default="", help="of the nodes to examine")
    parser.add_argument("--patience", type=int, default=PATIENCE, metavar="STEPS",
                        help="environment steps without success that are no fault yet (default: %(default)s)")


def main(options: argparse.Namespace) -> int:
    """Examine, print, and return 0 if healthy, 1 if there are faults, 2 if there is nothing to examine."""
    from rlpd_ros.graph import check_namespace

    notes: list[str] = []
    check_namespace("--namespace", options.namespace)
    if options.source:
        evidence = _left_behind(Path(options.source), options.patience)
    else:
        with _quiet():
            evidence = _running(options.namespace, options.patience, notes)
    if evidence.empty:
        notes.append("nothing to examine: no node was heard" + _elsewhere())
    findings = [] if evidence.empty else diagnose(evidence)
    found = faults(findings)
    status = NOTHING if evidence.empty else FAULTS if found else HEALTHY
    if options.json:
        print(json.dumps(_plain(findings, notes, status, options.lang), ensure_ascii=False))
    else:
        _print(findings, notes, options.lang)
    return status


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Send what the middleware prints to where errors go: it must not stand amid the answer."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _left_behind(path: Path, patience: int) -> Evidence:
    from rlpd_ros.diagnosis.from_run import evidence_of_run

    if (path / "metrics").is_dir():
        return evidence_of_run(path, patience)
    if path.exists():
        from rlpd_ros.ros.status_bag import evidence_of_bag

        return evidence_of_bag(path, patience)
    raise DataError(f"{path}: expected the folder of a run or a bag, found nothing")


def _running(namespace: str, patience: int, notes: list[str]) -> Evidence:
    """Join the graph of the domain that is set; if none is set, that of the run on this machine."""
    from rlpd_ros.cli.runner import given_domain
    from rlpd_ros.ros.middleware import use_profile

    given = given_domain()
    here = processes()
    domain = given or 0
    if given is None and here and domain not in {p.domain for p in here}:
        (domain, _), = Counter(p.domain for p in here).most_common(1)
        notes.append(f"a run is on domain {domain}: examining that (ROS_DOMAIN_ID is not set here)")
    ours = [p for p in here if p.domain == domain]
    if not namespace and ours and "/" not in {p.namespace for p in ours}:
        (namespace, _), = Counter(p.namespace for p in ours).most_common(1)
        notes.append(f"the nodes are in namespace {namespace}: examining that")
    if ours and all(p.discovery in ("LOCALHOST", "OFF") for p in ours):
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    use_profile()  # shared memory that a killed node left half made would keep this one waiting for ever
    return _listen(domain, namespace, patience)


def _listen(domain: int, namespace: str, patience: int) -> Evidence:
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from rlpd_ros.ros.graph_watcher import GraphWatcher

    context = Context()
    rclpy.init(args=["--ros-args", *enclave_arguments(WATCH, namespace)], context=context, domain_id=domain,
               signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("rlpd_doctor", namespace=namespace, context=context, use_global_arguments=False,
                             start_parameter_services=False, enable_rosout=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        watcher = GraphWatcher(node, patience, domain)
        watcher.heed_monitor()
        began, looked_at = time.monotonic(), 0.0
        while (now := time.monotonic()) < began + LISTEN or (now < began + LISTEN_LONG and not watcher.heard_enough):
            executor.spin_once(timeout_sec=0.05)
            if now - looked_at > 0.4:  # when each node was first seen tells how far discovery has come
                looked_at = now
                watcher.look()
        return watcher.look()
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def _elsewhere() -> str:
    others: dict[tuple[int, str], set[str]] = {}
    for p in processes():
        others.setdefault((p.domain, p.namespace), set()).add(p.node)
    return "".join(f"; {', '.join(sorted(nodes))} running on domain {domain}, namespace {namespace}"
                   for (domain, namespace), nodes in sorted(others.items()))


def _plain(findings: list[Finding], notes: list[str], status: int, lang: str) -> dict:
    found = faults(findings)
    return {
        "status": status, "verdict": found[0].check.name if found else None, "notes": notes,
        "checks": [{"name": f.check.name, "level": f.level.name, "summary": f.summary.in_language(lang),
                    "remedy": f.remedy.in_language(lang), "values": f.values} for f in findings]}


def _print(findings: list[Finding], notes: list[str], lang: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    class Output(Console):
        def on_broken_pipe(self) -> None:  # Rich's would say by its status that there are faults
            raise BrokenPipeError

    words, terminal = WORDS[lang], sys.stdout.isatty()
    console = Output(width=None if terminal else 200, highlight=False)
    for note in notes:
        console.print(Text(note))
    if not findings:
        return
    table = Table(box=None, pad_edge=False)
    for column in (words["check"], "", words["found"], words["remedy"]):
        table.add_column(column)
    style = {Level.OK: "green", Level.WARN: "yellow", Level.ERROR: "bold red", Level.STALE: "dim"}
    for f in findings:
        table.add_row(f.check.title.in_language(lang), Text(words[f.level], style[f.level]),
                      Text(f.summary.in_language(lang)), Text(f.remedy.in_language(lang)))
    console.print(table)
    found = faults(findings)
    if found:
        first = found[0]
        console.print(Text(f"\n{words['verdict']}: {first.check.name}: {first.summary.in_language(lang)}\n"
                           f"{words['remedy']}: {first.remedy.in_language(lang)}"))
    else:
        console.print(Text(f"\n{words['healthy']}"))
