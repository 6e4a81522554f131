# SPDX-License-Identifier: Apache-2.0
"""The faults and the healthy runs: how each comes about, and what the doctor must name first."""

from cases import connection, demonstrations, healthy, machine, policies, training
from cases.case import CASES, Case

__all__ = ["CASES", "Case", "connection", "demonstrations", "healthy", "machine", "policies", "training"]
