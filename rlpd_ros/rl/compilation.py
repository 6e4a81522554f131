# SPDX-License-Identifier: Apache-2.0
"""How JAX compiles and computes in a process: programs are kept for later ones, and an actor computes in place."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import jax

from rlpd_ros.types import fingerprint


def keep_compiled() -> None:
    """Let JAX keep what it compiles in the user's cache folder, or in JAX_COMPILATION_CACHE_DIR if that is set.

    A program fits one kind of processor, so each kind has a folder of its own. Where none can be made, nothing is kept.
    Besides, a process takes only what it needs of a GPU's memory: learner and actors may share one.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = Path(cache, "rlpd_ros", f"jax-{_processor()}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def compute_in_place() -> None:
    """Compute where the call is made: handing a small network to another thread takes longer than computing it.

    For a process that awaits every result, such as the actor. To be called before JAX computes anything.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        features = ""
    return fingerprint(platform.machine() + features)
