# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of every hot path, each beside what this machine could do at best."""
