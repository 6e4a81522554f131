# SPDX-License-Identifier: Apache-2.0
"""Start the processes of the graph without ``ros2 launch``: prefix their output, respawn them, stop them together."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from ament_index_python.packages import get_package_prefix

from rlpd_ros.errors import USER_ERROR, ConfigError
from rlpd_ros.graph import MAX_RESPAWNS, RESPAWN_DELAY, RESPAWN_WINDOW, SAVE_TIMEOUT, Process
from rlpd_ros.ros.main import PARENT

STOP_TIMEOUT = 3.0  # s from the first signal to the last resort
MAX_DOMAIN = 232  # the ports of higher ones do not exist


def given_domain() -> int | None:
    """Return the ROS domain that ROS_DOMAIN_ID names; None if it is not set. Raises ConfigError unless it exists."""
    given = os.environ.get("ROS_DOMAIN_ID")
    if given and (not given.isdecimal() or int(given) > MAX_DOMAIN):
        raise ConfigError(f"ROS_DOMAIN_ID: expected a number from 0 to {MAX_DOMAIN}, found {given!r}")
    return int(given) if given else None


@contextlib.contextmanager
def ros_domain(local: bool = True) -> Iterator[int]:
    """Hold a ROS domain that no other run on this machine uses; one set in ROS_DOMAIN_ID is kept.

    With ``local`` discovery does not leave this machine, unless the environment already says how far it goes.
    """
    if local and not {"ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY"} & set(os.environ):
        if os.environ.get("ROS_DISTRO") == "humble":
            os.environ["ROS_LOCALHOST_ONLY"] = "1"
        else:
            os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    given = given_domain()
    if given is not None:
        yield given
        return
    domains = list(range(1, 102))  # those that are safe on every platform, but for the default one
    random.shuffle(domains)
    for domain in domains:
        try:
            lock = (Path(tempfile.gettempdir()) / f"rlpd_ros_domain_{domain}.lock").open("a")
        except OSError:  # another user's
            continue
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            os.environ["ROS_DOMAIN_ID"] = str(domain)
            try:
                yield domain
            finally:
                del os.environ["ROS_DOMAIN_ID"]
            return
    raise ConfigError("ROS_DOMAIN_ID: all of 1 to 101 are in use by other runs; stop some, or set it yourself")


def command(process: Process) -> list[str]:
    """Return the command line of a node: the installed executable with its ROS arguments."""
    executable = Path(get_package_prefix("rlpd_ros"), "lib", "rlpd_ros", process.executable)
    arguments = ["--ros-args", "-r", f"__node:={process.name}", *process.enclave_arguments]
    if process.namespace:
        arguments += ["-r", f"__ns:=/{process.namespace.strip('/')}"]
    for source, target in process.remaps.items():
        arguments += ["-r", f"{source}:={target}"]
    for path in process.parameter_files:
        arguments += ["--params-file", path]
    for name, value in process.parameters.items():
        text = yaml.safe_dump(value, default_flow_style=True, width=2**31).strip().removesuffix("\n...")
        arguments += ["-p", f"{name}:={text}"]
    return [sys.executable, str(executable), *arguments]


@dataclass
class _Child:
    process: Process
    handle: subprocess.Popen[str]
    reader: threading.Thread
    respawned: list[float] = field(default_factory=list)
    respawn_at: float | None = None


class Runner:
    """The processes of one graph, as children of this one. Use it from one thread.

    ``echo(name, line)`` is called, from other threads, for each line that a process prints; every line also goes to
    ``logs/<name>.log``.
    """

    def __init__(self, processes: list[Process], logs: Path, echo: Callable[[str, str], None]) -> None:
        self._logs = logs
        self._echo = echo
        self._children = [self._start(process) for process in processes]

    def _start(self, process: Process) -> _Child:
        handle = subprocess.Popen(
            command(process), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
            errors="replace", start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1", PARENT: str(os.getpid())})
        reader = threading.Thread(target=self._read, args=(process.label, handle), daemon=True)
        reader.start()
        return _Child(process, handle, reader)

    def _read(self, name: str, handle: subprocess.Popen[str]) -> None:
        """Pass on what a process prints. A full disk costs lines of the log, but must not block who prints them."""
        assert handle.stdout is not None
        try:
            log = os.open(self._logs / f"{name}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError:
            log = os.open(os.devnull, os.O_WRONLY)
        try:
            for line in handle.stdout:
                with contextlib.suppress(OSError):
                    os.write(log, line.encode())
                self._echo(name, line.rstrip("\n"))
        finally:
            os.close(log)

    def poll(self) -> int | None:
        """Respawn what died and shall; return the exit status of the graph once it has ended, else None."""
        now = time.monotonic()
        for i, child in enumerate(self._children):
            status = child.handle.poll()
            if child.respawn_at is not None:
                if now >= child.respawn_at:
                    self._children[i] = self._start(child.process)
                    self._children[i].respawned = child.respawned
            elif status is not None:
                ended = self._ended(child, status, now)
                if ended is not None:
                    return ended
        return None

    def _ended(self, child: _Child, status: int, now: float) -> int | None:
        name = child.process.label
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        if status < 0:  # it had no last words of its own
            child.reader.join(1.0)
            with contextlib.suppress(OSError), (self._logs / f"{name}.log").open("a") as log:
                log.write(f"{name}: {how}\n")
        if status == USER_ERROR or (child.process.required and status == 0):
            child.reader.join(1.0)  # let its last words come out before anyone else's
            return status
        if not child.process.respawn:
            self._echo("rlpd", f"{name} {how}")
            return status or 1
        child.respawned = [at for at in child.respawned if now - at < RESPAWN_WINDOW] + [now]
        if len(child.respawned) > MAX_RESPAWNS:
            self._echo("rlpd", f"{name} {how}, for the {len(child.respawned)}th time within {RESPAWN_WINDOW:.0f} s: "
                               f"giving up; its output is in {self._logs / name}.log")
            return 1
        self._echo("rlpd", f"{name} {how}: starting it again")
        child.respawn_at = now + RESPAWN_DELAY
        return None

    def stop(self, saving: Collection[str] = ()) -> None:
        """Ask all processes to end as Ctrl-C does; kill those that have not within STOP_TIMEOUT.

        Those that have something to lose, ``saving``, have SAVE_TIMEOUT: on a busy machine a little may take long.
        """
        for child in self._children:
            _signal(child.handle, signal.SIGINT)
        began = time.monotonic()
        for child in sorted(self._children, key=lambda child: child.process.name in saving):
            timeout = SAVE_TIMEOUT if child.process.name in saving else STOP_TIMEOUT
            try:
                child.handle.wait(max(0.0, began + timeout - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._echo("rlpd", f"{child.process.label} did not stop within {timeout:.0f} s: killed")
                _signal(child.handle, signal.SIGKILL)
                child.handle.wait()
            child.reader.join(1.0)


def _signal(handle: subprocess.Popen[str], number: int) -> None:
    if handle.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(handle.pid, number)
