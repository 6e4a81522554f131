# SPDX-License-Identifier: Apache-2.0
"""Evidence out of a run directory: its metrics, its parameters and the last words of its nodes."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlpd_ros.diagnosis.evidence import Evidence, Machine, Sample, Track
from rlpd_ros.errors import DataError
from rlpd_ros.metrics import read_table, table_path
from rlpd_ros.runs import RunDirectory
from rlpd_ros.status import ActorReport, ActorState, LearnerReport, LearnerState
from rlpd_ros.types import EpisodeSummary

RECENT = 1000  # actions over which shares are taken
TAIL = 2**18  # bytes of a log that are read
NODES = ("arm_driver", "demo_loader", "learner", "actor")
NUMBERS = {
    "learner": (), "policies": ("version",),
    "episodes": ("env_steps", "policy_version", "episode_return", "evaluation", "steps", "random_actions",
                 "policy_actions")}
"""Table -> columns of numbers without which nothing can be said of it. On a full disk older versions lost a header."""

Columns = Mapping[str, np.ndarray]


def evidence_of_run(path: Path, patience: int) -> Evidence:
    """Read what a run left behind. Raises DataError if it is no run; what is missing in it is left out."""
    run = RunDirectory.open(path)
    evidence = Evidence(live=False, patience=patience, machine=Machine(disk_free=shutil.disk_usage(run.path).free))
    logs = {path.stem: _tail(path) for path in sorted(run.logs.glob("*.log")) if _kind(path.stem) in NODES}
    by_kind = {kind: [line for node, log in logs.items() if _kind(node) == kind for line in log] for kind in NODES}
    in_order = sorted(logs, key=lambda node: NODES.index(_kind(node)))
    evidence.errors = {node: line for node in in_order if (line := _last_words(node, logs[node]))}
    parameters = _parameters(run)
    policies, episodes, learned = (_table(run, name) for name in ("policies", "episodes", "learner"))
    if not (policies or episodes or learned or evidence.errors):
        return evidence
    learner = _learner(parameters, learned, policies, episodes)
    if run.summary.exists():
        learner.state = LearnerState.FINISHED
    _read_learner_log(learner, by_kind["learner"])
    learner.demo_error = evidence.errors.get("demo_loader", "")
    actor = _actor(parameters, policies, episodes, by_kind["actor"])
    _add(evidence.learners, learner)
    if episodes or policies:
        _add(evidence.actors, actor)
    evidence.episodes.extend(_episodes(episodes))
    return evidence


def _learner(parameters: Mapping[str, Any], learned: Columns, policies: Columns, episodes: Columns) -> LearnerReport:
    names = {f.name for f in dataclasses.fields(LearnerReport)}
    defaults = LearnerReport("")
    values: dict[str, Any] = {}
    for name in names & parameters.get("learner", {}).keys() | names & learned.keys():
        value = _last(learned, name) if name in learned else parameters["learner"][name]
        if value is not None:
            values[name] = type(getattr(defaults, name))(value)
    report = LearnerReport("learner", **{k: v for k, v in values.items() if k not in ("session", "run")})
    report.utd_set = float(parameters.get("learner", {}).get("utd_ratio", 0.0))
    report.version = int(_highest(policies, "version"))
    report.env_steps = max(report.env_steps, int(_highest(episodes, "env_steps")))
    report.reward_seen = max(0.0, _highest(episodes, "episode_return"))
    report.reward_lowest = min(0.0, -_highest({"return": -episodes["episode_return"]}, "return")) if episodes else 0.0
    distances = learned.get("demo_action_distance", np.zeros(0))
    if distances.dtype.kind == "f" and np.isfinite(distances).any():
        report.demo_action_distance_first = float(distances[np.isfinite(distances)][0])
    if report.gradient_step:
        report.state = LearnerState.TRAINING
    else:
        report.state = LearnerState.FILLING if report.env_steps else LearnerState.WAITING_FOR_SPACE
        report.online_buffer_size = report.env_steps
    return report


def _actor(parameters: Mapping[str, Any], policies: Columns, episodes: Columns, log: list[str]) -> ActorReport:
    report = ActorReport("actor", state=ActorState.ACTING)
    report.random_steps = int(parameters.get("actor", {}).get("random_steps", 0))
    report.env_steps = int(_highest(episodes, "env_steps"))
    if "actor" in policies and policies["actor"].dtype.kind == "U":  # the rows that tell of an application
        report.applied_version = int(_highest({"version": policies["version"][policies["actor"] != ""]}, "version"))
    report.applied_version = max(report.applied_version, int(_highest(episodes, "policy_version")))
    if episodes:
        training = episodes["evaluation"] != 1
        if not training[-1:].all():
            report.state = ActorState.EVALUATING
        steps = episodes["steps"][training]
        recent = np.cumsum(steps[::-1])[::-1] <= RECENT
        total = float(np.nansum(steps[recent]))
        report.random_share = float(np.nansum(episodes["random_actions"][training][recent])) / max(1.0, total)
        report.policy_actions = int(np.nansum(episodes["policy_actions"][training]))
    report.incompatible_qos = _refused_connections(log)
    for line in log:
        if match := re.search(r"refused network parameters: version (\d+): (.*)", line):
            report.refused_version, report.refusal = int(match[1]), match[2]
        elif match := re.search(r"received network parameters: version (\d+)", line):
            report.refused_version, report.refusal = 0, ""
            report.applied_version = max(report.applied_version, int(match[1]))
    if "network fingerprint: learner" in report.refusal:
        report.network_fingerprint = "another than the learner's"
    return report


def _read_learner_log(learner: LearnerReport, log: list[str]) -> None:
    """Take from the log what is in no table: why learning failed, what could not be stored, another space."""
    failure = ""
    for line in log:
        text = line.partition("]: ")[2]
        if text.startswith("not finite at") or "action is not finite" in text:
            failure = text
        elif ". Nothing is acknowledged until" in text:
            learner.store_error = text.partition(". Nothing is")[0]
        elif text.startswith("transitions can be stored again"):
            learner.store_error = ""
        elif text.startswith("the arm driver's space differs"):
            learner.space_difference = text.partition(": ")[2]
        elif text.startswith(("waiting for space_spec", "resumed")):  # another life
            failure = learner.store_error = learner.space_difference = ""
    if failure:  # a summary is older: who has finished learns no more
        learner.state, learner.text = LearnerState.FAILED, failure
    learner.incompatible_qos = _refused_connections(log)
    learner.network_fingerprint = "the learner's"


def _refused_connections(log: list[str]) -> str:
    """Return which topics the middleware refused to connect, as ``qos.incompatible`` has it."""
    found = (re.search(r"incompatible quality of service on (\S+: \w+)", line) for line in log)
    return ", ".join(dict.fromkeys(match[1] for match in found if match))


def _episodes(episodes: Columns) -> list[EpisodeSummary]:
    names = [f.name for f in dataclasses.fields(EpisodeSummary)]
    if not set(names) <= set(episodes):
        return []
    rows = zip(*(episodes[name][-200:] for name in names), strict=True)
    return [EpisodeSummary(**dict(zip(names, row, strict=True))) for row in rows]


def _add(tracks: dict[str, Track], report: Any) -> None:
    track = Track()
    track.samples.append(Sample(0.0, 0.0, report))
    tracks[report.session] = track


def _table(run: RunDirectory, name: str) -> Columns:
    path = table_path(run.metrics, name)
    try:
        columns = read_table(path) if path.exists() else {}
    except DataError:
        return {}
    return columns if all(n in columns and columns[n].dtype.kind == "f" for n in NUMBERS[name]) else {}


def _parameters(run: RunDirectory) -> Mapping[str, Any]:
    try:
        content = run.read_parameters()
    except DataError:
        return {}
    return {str(name).rpartition("/")[2]: section.get("ros__parameters", {})
            for name, section in content.items() if isinstance(section, Mapping)}


def _last(columns: Columns, name: str) -> float | None:
    column = columns[name]
    finite = column[np.isfinite(column)] if column.dtype.kind == "f" else np.zeros(0)
    return float(finite[-1]) if len(finite) else None


def _highest(columns: Columns, name: str) -> float:
    return max((float(x) for x in columns.get(name, ()) if math.isfinite(x)), default=0.0)


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def _kind(node: str) -> str:
    """Return the kind of a node by the name of its log: that of /right/actor is right.actor."""
    return node.rpartition(".")[2]


def _last_words(node: str, log: list[str]) -> str:
    """Return the error with which a node ended, "" if it did not end with one."""
    words = [line for line in log if line.strip()]
    if not words:
        return ""
    if words[-1].startswith(f"{node}: "):
        return words[-1].partition(": ")[2]
    return words[-1] if re.match(r"[\w.]*(Error|Exception)\b", words[-1]) else ""
