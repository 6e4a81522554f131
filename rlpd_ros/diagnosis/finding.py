# SPDX-License-Identifier: Apache-2.0
"""What a check is and what it finds, in the languages of the users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import wraps
from typing import NamedTuple

from rlpd_ros.diagnosis.evidence import Evidence, Graph, Track
from rlpd_ros.status import LearnerReport

LANGUAGES = ("en", "zh")


class Level(IntEnum):
    """How bad it is; the values are those of ``diagnostic_msgs/DiagnosticStatus``."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3  # cannot be told: what it takes has not been heard

    @property
    def is_fault(self) -> bool:
        return self in (Level.WARN, Level.ERROR)


class Text(NamedTuple):
    """One sentence in every language."""

    en: str
    zh: str

    def in_language(self, language: str) -> str:
        return getattr(self, language)


Values = dict[str, "int | float | str"]


@dataclass(frozen=True)
class Outcome:
    """What one check found, with the numbers that it judged by."""

    level: Level
    summary: Text
    values: Values = field(default_factory=dict)


def ok(en: str, zh: str, **values: int | float | str) -> Outcome:
    return Outcome(Level.OK, Text(en, zh), values)


def warn(en: str, zh: str, **values: int | float | str) -> Outcome:
    return Outcome(Level.WARN, Text(en, zh), values)


def error(en: str, zh: str, **values: int | float | str) -> Outcome:
    return Outcome(Level.ERROR, Text(en, zh), values)


def unknown(en: str, zh: str, **values: int | float | str) -> Outcome:
    return Outcome(Level.STALE, Text(en, zh), values)


@dataclass(frozen=True)
class Check:
    """One question about a run. ``symptom`` is what a user sees if the answer is bad, ``remedy`` what to do then."""

    name: str
    title: Text
    symptom: Text
    remedy: Text
    examine: Callable[[Evidence], Outcome]


@dataclass(frozen=True)
class Finding:
    """The answer of one check."""

    check: Check
    level: Level
    summary: Text
    values: Values

    @property
    def remedy(self) -> Text:
        return self.check.remedy if self.level.is_fault else Text("", "")


Examine = Callable[[Evidence], Outcome]


def check(name: str, title: Text, symptom: Text, remedy: Text) -> Callable[[Examine], Check]:
    """Make a ``Check`` of the function that examines the evidence."""

    def make(examine: Examine) -> Check:
        return Check(name, title, symptom, remedy, examine)

    return make


def of_learner(examine: Callable[[Evidence, Track[LearnerReport]], Outcome]) -> Examine:
    """Let ``examine`` judge what the newest learner said; where none was heard it cannot be told."""

    @wraps(examine)
    def judge(evidence: Evidence) -> Outcome:
        track = evidence.learner_track
        return examine(evidence, track) if track else NO_LEARNER

    return judge


def of_graph(examine: Callable[[Evidence, Graph], Outcome]) -> Examine:
    """Let ``examine`` judge the running graph; what a run has left behind does not show it."""

    @wraps(examine)
    def judge(evidence: Evidence) -> Outcome:
        return examine(evidence, evidence.graph) if evidence.graph else NO_GRAPH

    return judge


NO_LEARNER = unknown("no learner heard", "没有收到学习器的状态")
NO_GRAPH = unknown("only a running graph shows it", "只有运行中的系统才能检查")
NO_ACTOR = unknown("no actor heard", "没有收到执行器的状态")
