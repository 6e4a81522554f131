# SPDX-License-Identifier: Apache-2.0
"""All checks, causes before their consequences, and what they come to."""

from __future__ import annotations

from collections.abc import Sequence

from rlpd_ros.diagnosis import connection, duplicates, exposure, inputs, learning, machine, policy, training
from rlpd_ros.diagnosis.evidence import Evidence
from rlpd_ros.diagnosis.finding import Check, Finding, Level, Text
from rlpd_ros.untrusted import printable

CHECKS: tuple[Check, ...] = (
    training.failed, machine.disk, connection.domain, *duplicates.CHECKS, connection.qos, connection.connections,
    connection.restarts, connection.blocked, inputs.spaces, inputs.demonstrations, connection.nodes, inputs.cameras,
    connection.arm, machine.buffers, inputs.network, *policy.CHECKS[:3], inputs.demo_rewards, training.training_starts,
    training.transitions, policy.policy_lag, learning.frozen, learning.q_values, learning.began_anew, policy.random_actions,
    machine.clock, machine.overruns, inputs.demo_actions, training.stale_data, learning.entropy, *policy.LATE_CHECKS,
    *learning.LATE_CHECKS, *training.LATE_CHECKS, *exposure.CHECKS)
"""In the order in which one fault brings about another: of several that are bad, the first is the cause."""


MAX_SUMMARY = 2000  # characters: names in it may be anybody's


def diagnose(evidence: Evidence) -> list[Finding]:
    """Return what every check finds, the most likely cause first: errors, warnings, then what is in order."""
    findings = []
    for check in CHECKS:
        outcome = check.examine(evidence)
        summary = Text(*(printable(text, MAX_SUMMARY) for text in outcome.summary))
        findings.append(Finding(check, outcome.level, summary, outcome.values))
    return sorted(findings, key=lambda finding: _URGENCY[finding.level])  # stable: keeps the order of CHECKS


_URGENCY = {Level.ERROR: 0, Level.WARN: 1, Level.OK: 2, Level.STALE: 3}


def faults(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level.is_fault]


def troubleshooting_rows(language: str = "en") -> list[str]:
    """Return the rows of the README's troubleshooting table, in Markdown: check, symptom, remedy."""
    head = Text("| check | what you see | what to do |", "| 检查项 | 现象 | 处理 |").in_language(language)
    rows = [f"| `{c.name}` | {c.symptom.in_language(language)} | {c.remedy.in_language(language)} |" for c in CHECKS]
    return [head, "| --- | --- | --- |", *rows]
