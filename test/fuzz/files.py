# SPDX-License-Identifier: Apache-2.0
"""Damaged bags, checkpoints, policies and parameter files: refused in one line, in time, or read as they were."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from mutations import damage
from recordings import PIXELS, STATE, content, make_records, other_writer, write_log
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from test_checkpoint import POLICY, SPEC, metadata, new_agent, same

from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.exported_policy import load_policy, save_policy
from rlpd_ros.rl.checkpoint import CheckpointStore
from rlpd_ros.rl.policy import Policy, make_snapshot, verify
from rlpd_ros.ros.bags import Bag, TransitionLog, read_demonstrations
from rlpd_ros.ros.parameters import load_parameter_file
from rlpd_ros.tables import Row, at_least, at_most, informative
from rlpd_ros.types import Observation, SpaceSpec

DEADLINE = 10.0  # s for one file
MIB = 2**20
Judge = Callable[[], bool]  # reads; whether what was read is what was written; or raises


class Hang(BaseException):
    """A reader did not come to an end."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Tally:
    """What became of the cases of one kind of file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.longest = 0.0

    def judge(self, read: Judge) -> None:
        began = time.monotonic()
        try:
            with deadline(DEADLINE):
                outcome = "unharmed" if read() else "wrong data"
        except (DataError, ConfigError) as error:
            outcome = "refused" if "\n" not in str(error) and len(str(error)) < 5000 else "refused at length"
        except Hang:
            outcome = "hang"
        except Exception as error:  # what a reader must not raise
            outcome = "crash"
            self.faults[f"{type(error).__name__}: {error}"[:200]] += 1
        self.counts[outcome] += 1
        self.longest = max(self.longest, time.monotonic() - began)

    def rows(self, unprotected: bool = False) -> list[Row]:
        for fault, times in self.faults.most_common(5):
            print(f"{self.name}: {times} x {fault}", file=sys.stderr)
        counts, name = self.counts, self.name
        wrong = informative if unprotected else lambda what, value: at_most(what, value, 0)
        return [
            informative(f"{name}: damaged", sum(counts.values())), informative(f"{name}: refused", counts["refused"]),
            informative(f"{name}: read as it was, or as far", counts["unharmed"]),
            wrong(f"{name}: read, and different", counts["wrong data"]),
            at_most(f"{name}: crashes", counts["crash"], 0), at_most(f"{name}: hangs", counts["hang"], 0),
            at_most(f"{name}: refused in more than a line", counts["refused at length"], 0),
            at_most(f"{name}: longest", self.longest, DEADLINE, "s")]


def spoil(folder: Path, rng: random.Random, pick: Callable[[Path], bool] = lambda path: True) -> None:
    """Damage one file of a folder, now and then another, or take one away."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and pick(path))
    victim = rng.choice(files)
    if rng.random() < 0.03:
        victim.unlink()
        return
    other = rng.choice(files).read_bytes()
    victim.write_bytes(other if rng.random() < 0.02 else damage(victim.read_bytes(), rng, other))


def fuzz_bags(count: int, seed: int) -> list[Row]:
    """Damage bags of each kind; a checksum, where there is one, must tell every change of the data."""
    rng, rows = random.Random(seed), []
    kinds: dict[str, tuple[SpaceSpec, Any]] = {
        "log (MCAP)": (STATE, None), "log with images (MCAP)": (PIXELS, None),
        "zstd without checksums (MCAP)": (STATE, CompressionMode.STORAGE),  # as the rosbags library writes it
        "SQLite": (STATE, StoragePlugin.SQLITE3)}
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        before = psutil.Process().memory_info().rss
        for name, (spec, how) in kinds.items():
            records, whole, tally = make_records(spec, 10), Path(folder, f"bag{len(rows)}"), Tally(f"bag: {name}")
            if how is None:
                write_log(whole, spec, records, 4)
            elif how is StoragePlugin.SQLITE3:
                other_writer(whole, records, spec, StoragePlugin.SQLITE3)
            else:
                other_writer(whole, records, spec, compression=how)
            expected = content(records)
            demonstrations = read_demonstrations([whole])
            for _ in range(count // len(kinds)):
                copy = shutil.copytree(whole, Path(folder, "copy"))
                spoil(copy, rng)
                tally.judge(lambda copy=copy, spec=spec, expected=expected: _is_prefix(copy, spec, expected))
                tally.judge(lambda copy=copy, d=demonstrations: _same_demonstrations(copy, d))
                shutil.rmtree(copy)
            rows += tally.rows(unprotected=how is not None)
        grown = (psutil.Process().memory_info().rss - before) / MIB
    return [at_least("damaged bags", count // len(kinds) * len(kinds), 1), *rows,
            at_most("bags: memory that the reader grew by", grown, 200, "MiB")]


def _is_prefix(path: Path, spec: SpaceSpec, expected: list) -> bool:
    found = content(TransitionLog.read(path, spec))
    return found == expected[:len(found)] or found == [e for e in expected if e in found]  # a whole file is missing


def _same_demonstrations(path: Path, expected: Any) -> bool:
    found = read_demonstrations([path])
    return found.manifest.digest == expected.manifest.digest and found.spec.fingerprint == expected.spec.fingerprint


def fuzz_checkpoints(count: int, seed: int) -> list[Row]:
    """Damage any file of a checkpoint."""
    rng, tally, policy = random.Random(seed), Tally("checkpoint"), Policy(SPEC, POLICY)
    agent, fresh = new_agent(), new_agent(seed=1)
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        whole = Path(folder, "whole")
        CheckpointStore(whole).save(agent, metadata(version=3))
        before = psutil.Process().memory_info().rss
        for _ in range(count):
            copy = shutil.copytree(whole, Path(folder, "copy"))
            spoil(copy, rng, lambda path: path.stat().st_size > 0)

            def read(copy: Path = copy) -> bool:
                restored = CheckpointStore(copy).restore(fresh, SPEC, policy)
                return restored is not None and same(restored[0], agent) and restored[1] == metadata(version=3)

            tally.judge(read)
            shutil.rmtree(copy)
        grown = (psutil.Process().memory_info().rss - before) / MIB
    return [*tally.rows(), informative("checkpoints: memory that the reader grew by", grown, "MiB")]


def fuzz_policies(count: int, seed: int) -> list[Row]:
    """Damage policy files; what is read must be what was written, or be refused when it is proven."""
    rng, tally, policy = random.Random(seed), Tally("policy.params"), Policy(SPEC, POLICY)
    snapshot = make_snapshot(policy, policy.serialize(policy.init(0)), SPEC, Observation(STATE_OF_A_PROBE),
                             session="learner-1", version=3, gradient_step=100, stamp=5)
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        path = Path(folder, "policy.params")
        save_policy(path, snapshot)
        whole = path.read_bytes()
        head = whole[:whole.index(b"\n") + 1]
        for _ in range(count):  # the first line is the smaller part, and the one to be read
            spoilt = damage(whole, rng) if rng.random() < 0.3 else damage(head, rng) + snapshot.data
            path.write_bytes(spoilt)

            def read() -> bool:
                found = load_policy(path)
                verify(found, policy, SPEC)
                return found.data == snapshot.data and found.network_fingerprint == snapshot.network_fingerprint

            tally.judge(read)
    return tally.rows()


def fuzz_parameters(count: int, seed: int) -> list[Row]:
    """Damage parameter files and metadata.yaml: any plain values, or one line."""
    rng, rows = random.Random(seed), []
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        bag = write_log(Path(folder, "bag"), STATE, make_records(STATE, 3))
        texts = {"parameter file": PARAMETERS, "metadata.yaml": (bag / "metadata.yaml").read_bytes()}
        for name, text in texts.items():
            tally, path = Tally(name), Path(folder, "metadata.yaml")

            def read(name: str = name, path: Path = path) -> bool:
                if name == "metadata.yaml":
                    return all(isinstance(n, int) for n in Bag(path.parent)._metadata().counts.values())
                return all(isinstance(value, dict) for value in load_parameter_file(path).values())

            for _ in range(count // len(texts)):
                path.write_bytes(damage(text, rng, YAML_TRICKS))
                tally.judge(read)
            rows += tally.rows()
    return rows


STATE_OF_A_PROBE = np.array([0.5, -0.5], np.float32)
PARAMETERS = b"""/**:
  ros__parameters: {hidden_dims: [64, 64], seed: 3}
/robot/learner:
  ros__parameters:
    utd_ratio: 2
    qos_overrides./transitions.subscription.depth: 2000
    actor_lr: 3e-4
    run: "a text"
"""
YAML_TRICKS = b"""&a [*a, !!python/object/apply:os.system [x], !!binary aGk=, {? [1]: 2}, 1e999, 0x_, 1:2:3, 2001-01-01,
<<: *a, - - - |, > %YAML 9.9 --- ... {{{{ [[[[ "\\u0000" '''' : : # \t\t ros__parameters: null
"""


def _memory() -> str | None:
    """Return a folder in memory, so that the disk is spared."""
    return "/dev/shm" if Path("/dev/shm").is_dir() and shutil.disk_usage("/dev/shm").free > 2**27 else None
