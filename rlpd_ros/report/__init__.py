# SPDX-License-Identifier: Apache-2.0
"""The report of a run: one HTML file that needs nothing else, and the picture that compares several runs."""

from rlpd_ros.report.curve import write_curve_picture
from rlpd_ros.report.page import write_report

__all__ = ["write_curve_picture", "write_report"]
