# SPDX-License-Identifier: Apache-2.0
"""Why the arm does not learn: checks over evidence, without ROS."""

from rlpd_ros.diagnosis.evidence import Evidence
from rlpd_ros.diagnosis.finding import LANGUAGES, Check, Finding, Level, Text
from rlpd_ros.diagnosis.verdict import CHECKS, diagnose, faults, troubleshooting_rows

__all__ = ["CHECKS", "LANGUAGES", "Check", "Evidence", "Finding", "Level", "Text", "diagnose", "faults",
           "troubleshooting_rows"]
