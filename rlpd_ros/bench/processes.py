# SPDX-License-Identifier: Apache-2.0
"""Work in processes of their own: with a fresh JAX, or beside each other."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rlpd_ros.untrusted import parse_json

_CALL = """
import importlib, json, sys
module, function, arguments = json.loads(sys.argv[1])
print(json.dumps(getattr(importlib.import_module(module), function)(*arguments)))
"""


def begin(function: Callable[..., Any], *arguments: Any, **environment: str) -> subprocess.Popen[str]:
    """Call a module's function in a new process; arguments and result are plain JSON values."""
    call = json.dumps([function.__module__, function.__name__, arguments])
    return subprocess.Popen([sys.executable, "-c", _CALL, call], stdout=subprocess.PIPE, text=True,
                            env=os.environ | environment)


def result(process: subprocess.Popen[str]) -> Any:
    """Return what the function returned. Raises RuntimeError if it failed; its own words are on stderr."""
    output = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(f"benchmark: a process ended with status {process.returncode}")
    return parse_json(output.splitlines()[-1])


@contextlib.contextmanager
def process_group(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command``; end it, and the processes that it started, with the context."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30.0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
