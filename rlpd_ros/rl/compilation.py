# SPDX-License-Identifier: Apache-2.0
"""How JAX compiles and computes in a process: programs are kept for later ones, and an actor computes in place."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import jax

from rlpd_ros.errors import ConfigError
from rlpd_ros.types import fingerprint
from rlpd_ros.untrusted import printable


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


def usable_devices() -> list[jax.Device]:
    """Return JAX's devices. Raises ConfigError if there are none of the kind that JAX_PLATFORMS asks for.

    JAX settles now on what it computes with: before that, not after, is the time to say how many CPU devices there are.
    """
    try:
        return jax.devices()
    except (AssertionError, RuntimeError) as error:  # AssertionError, without a word: cuda where there is no GPU
        if not (wanted := os.environ.get("JAX_PLATFORMS")):
            raise
        raise ConfigError(f"JAX_PLATFORMS={printable(wanted)}: expected what this machine can compute with, found no "
                          f"such device{f' ({printable(error)})' if str(error) else ''}; unset it, or set it to cpu"
                          ) from error


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        features = ""
    return fingerprint(platform.machine() + features)
