# SPDX-License-Identifier: Apache-2.0
"""The layout of a run on disk, in one place, and its machine-readable end."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
import numbers
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.untrusted import parse_json, parse_yaml, printable, read_text


@dataclass(frozen=True)
class Summary:
    """How a run ended. Raises DataError naming the field that is out of place.

    ``success_rate``: share of successes in [0, 1] of the last evaluation, None exactly if there was none;
    ``eval_episodes``: episodes in it; ``wall_s``: s; ``outcome``: the end in one sentence, for people.
    """

    success_rate: float | None
    eval_episodes: int
    env_steps: int
    gradient_steps: int
    wall_s: float
    seed: int
    preset: str
    outcome: str = ""

    def __post_init__(self) -> None:
        for name in ("eval_episodes", "env_steps", "gradient_steps"):
            self._expect(name, "a whole number from 0", _is_whole(getattr(self, name)) and getattr(self, name) >= 0)
        self._expect("seed", "a whole number", _is_whole(self.seed))
        self._expect("wall_s", "seconds from 0", _is_number(self.wall_s) and self.wall_s >= 0)
        for name in ("preset", "outcome"):
            self._expect(name, "a text", isinstance(getattr(self, name), str))
        rate = self.success_rate
        if self.eval_episodes == 0:
            self._expect("success_rate", "null without an evaluation", rate is None)
        else:
            self._expect("success_rate", "a share from 0 to 1", _is_number(rate) and 0 <= rate <= 1)  # type: ignore[operator]

    def _expect(self, name: str, expected: str, fulfilled: bool) -> None:
        if not fulfilled:
            raise DataError(f"summary: {name}: expected {expected}, found {printable(repr(getattr(self, name)))}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str = "summary") -> Summary:
        """Build a summary from plain values. Raises DataError naming ``where`` and what is wrong with it."""
        fields = {f.name: f for f in dataclasses.fields(cls)}
        missing = [n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in values]
        unknown = [n for n in values if n not in fields]
        if missing or unknown:
            raise DataError(f"{where}: missing {missing}, unknown {printable(unknown)}; expected {list(fields)}")
        try:
            return cls(**values)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error


@dataclass(frozen=True)
class RunDirectory:
    """Everything that a run leaves behind: enough to resume it, to evaluate it or to send to someone who helps.

    ``scratch`` takes what is written when it is played, if the run itself cannot be written.
    """

    path: Path
    scratch: Path | None = None

    @classmethod
    def create(cls, root: str | Path, name: str) -> RunDirectory:
        """Make ``root/name`` with its folders. Raises ConfigError if it exists or cannot be made."""
        if not name or name in (".", "..") or Path(name).name != name:
            raise ConfigError(f"run name: expected a plain folder name, found {name!r}")
        run = cls(absolute(root) / name)
        try:
            run.path.mkdir(parents=True)
            for folder in (run.checkpoints, run.metrics, run.logs):
                folder.mkdir()
        except FileExistsError as error:
            raise ConfigError(f"run '{name}': {run.path} exists already and is not overwritten; "
                              f"choose another name, or go on with it by --resume {run.path}") from error
        except OSError as error:
            raise ConfigError(f"run '{name}': cannot make {run.path}: {error.strerror}") from error
        return run

    @classmethod
    def open(cls, path: str | Path, to_go_on: bool = True) -> RunDirectory:
        """Return the existing run at ``path``, whole if it is ``to_go_on``. Raises DataError if it is not there."""
        if path == "":  # of a shell's unset variable: it would mean the working folder
            raise DataError("run: expected the folder of a run, found nothing")
        run = cls(absolute(path))
        if not run.path.is_dir():
            raise DataError(f"{run.path}: expected the folder of a run, found "
                            f"{'a file' if run.path.exists() else 'nothing'}")
        lacking = [folder.name for folder in (run.checkpoints, run.metrics) if to_go_on and not folder.is_dir()]
        if lacking:
            raise DataError(f"{run.path}: not a run: it has no {' and no '.join(f'{n}/' for n in lacking)}")
        return run

    def lock(self) -> int:
        """Keep other learners out until the descriptor that is returned is closed, at most while this process lives.

        Raises ConfigError if one is in the run already. Where the file system knows no locks there is none.
        """
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(folder)
            raise ConfigError(f"run: another learner is at work in {self.path}: stop it, or give this one a run of its "
                              "own") from error
        except OSError:
            pass
        return folder

    @staticmethod
    def fresh_name(root: str | Path, now: datetime | None = None) -> str:
        """Return a name for a new run under ``root``: the local time, with a suffix if that is taken."""
        stem = name = (now or datetime.now()).strftime("%Y-%m-%d_%H-%M-%S")
        count = 1
        while (absolute(root) / name).exists():
            count += 1
            name = f"{stem}_{count}"
        return name

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def parameters(self) -> Path:
        return self.path / "parameters.yaml"  # as resolved: defaults, preset, file, command line

    @property
    def play_parameters(self) -> Path:
        return (self.scratch or self.path) / "play.yaml"  # likewise, of the last time that its policy was played

    @property
    def arms(self) -> Path:
        return self.path / "arms.txt"  # the options of rlpd train that put it into namespaces; only if there were any

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def policy(self) -> Path:
        return self.path / "policy.params"  # the policy to evaluate or deploy, see exported_policy.py

    @property
    def transitions(self) -> Path:
        return self.path / "transitions"  # rosbag2; made by who writes the first bag

    @property
    def spool(self) -> Path:
        return self.path / "spool"  # one folder per actor, see data/spool_files.py

    @property
    def demos(self) -> Path:
        return self.path / "demos"  # likewise

    @property
    def metrics(self) -> Path:
        return self.path / "metrics"

    @property
    def logs(self) -> Path:
        return self.path / "logs"  # one text file per process

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    def write_parameters(self, values: Mapping[str, Any], path: Path | None = None) -> None:
        """Write resolved parameters, the run's own or those at ``path``: nested mappings and lists of plain values."""
        plain = parse_json(json.dumps(values))  # tuples become lists; what YAML could not read back is refused
        write_atomically(path or self.parameters, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))

    def read_parameters(self) -> dict[str, Any]:
        """Return what ``write_parameters`` wrote. Raises DataError if it is missing or damaged."""
        text = read_text(self.parameters)
        try:
            values = parse_yaml(text)
        except DataError as error:
            raise DataError(f"{self.parameters}: not readable as YAML: {error}") from error
        if not isinstance(values, dict):
            raise DataError(f"{self.parameters}: expected a mapping of parameters, found {printable(repr(values))}")
        return values

    def write_summary(self, summary: Summary | Mapping[str, Any]) -> None:
        """Write ``summary.json`` in one piece. Raises DataError if a field is missing, unknown or out of range."""
        if not isinstance(summary, Summary):
            summary = Summary.from_mapping(summary)
        values = dataclasses.asdict(summary)
        write_atomically(self.summary, json.dumps(values, indent=2, default=lambda scalar: scalar.item()) + "\n")

    def read_summary(self) -> Summary:
        """Return how the run ended. Raises DataError if it has not ended, or the file is damaged."""
        text = read_text(self.summary)
        try:
            values = parse_json(text)
        except DataError as error:
            raise DataError(f"{self.summary}: not readable as JSON: {error}") from error
        if not isinstance(values, dict):
            raise DataError(f"{self.summary}: expected a JSON object, found {printable(repr(values))}")
        return Summary.from_mapping(values, str(self.summary))


def absolute(path: str | Path) -> Path:
    """Return where ``path`` is; a shell leaves ~ to us behind ``:=`` and ``=``."""
    return Path(os.path.expanduser(path)).absolute()


def write_atomically(path: Path, text: str) -> None:
    """Replace the file at ``path`` so that a reader, or a crash, meets either the old or the whole new text.

    Raises OSError naming ``path``.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:  # paths may be no text
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # mkstemp makes it private
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:  # that of a full disk names nothing, others the temporary file
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
