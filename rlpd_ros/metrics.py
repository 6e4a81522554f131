# SPDX-License-Identifier: Apache-2.0
"""Metrics of a run: tables in CSV files that survive a kill and a resume, and the same as TensorBoard events.

The tables that the nodes write, one process per table:

``learner``   every ``log_period`` gradient steps: losses, Q values, rates, buffer sizes
``episodes``  every finished episode, training and evaluation: the fields of EpisodeStats.msg
``policies``  every publication (version, gradient_step, checksum, change, bytes) and, with ``actor`` and ``age_ms``
              filled in, every application of a version by an actor
"""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from rlpd_ros.errors import DataError
from rlpd_ros.runs import RunDirectory

Cell = int | float | str


class MetricsWriter:
    """Appends rows to the tables of a run; a row that ``write`` has returned from survives a SIGKILL.

    A resumed run appends to the tables that it finds. Not for use by several processes on one table.
    """

    def __init__(self, run: RunDirectory, tensorboard: bool = True) -> None:
        self._folder = run.metrics
        self._tables: dict[str, _Table] = {}
        self._tensorboard = tensorboard
        self._events: _Events | None = None  # from the first row on

    def write(self, table: str, step: int, values: Mapping[str, Any]) -> None:
        """Append a row of scalars and short texts to ``metrics/<table>.csv``, after ``step`` as its first column.

        Columns may be left out (an empty cell) and new ones may come at any time. Numbers also go to TensorBoard as
        ``table/column`` at ``step``. Raises ValueError for a value that is neither number nor text, and OSError if a
        file cannot be written, which is then as it was before.
        """
        row = {"step": int(step)} | {name: _cell(name, value) for name, value in values.items()}
        if table not in self._tables:
            self._tables[table] = _Table(table_path(self._folder, table))
        self._tables[table].append(row)
        self._write_events(table, row)

    def close(self) -> None:
        for table in self._tables.values():
            table.close()
        self._tables.clear()
        if self._events is not None:
            self._events.close()
            self._events = None

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_events(self, table: str, row: Mapping[str, Cell]) -> None:
        if self._tensorboard and self._events is None:
            try:
                self._events = _Events(self._folder / "tensorboard")
            except ImportError:
                logging.getLogger(__name__).warning("tensorboardX is not installed: metrics go to CSV files only")
                self._tensorboard = False
        if self._events is not None:
            self._events.append(row["step"], {
                f"{table}/{name}": value for name, value in row.items()
                if name != "step" and not isinstance(value, str) and math.isfinite(value)})


class _File:
    """A file that grows by whole pieces: of one for which the disk has no room nothing stays."""

    def __init__(self, path: Path, flags: int = 0) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | flags, 0o644)

    def append(self, piece: bytes) -> None:
        end, written = os.fstat(self._file).st_size, 0
        try:
            while written < len(piece):  # a disk that is nearly full takes a part, and says why with the next one
                written += os.write(self._file, piece[written:])
        except OSError:
            os.ftruncate(self._file, end)
            raise

    def close(self) -> None:
        os.close(self._file)


class _Table:
    """One CSV file: texts in quotes, numbers bare."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns = _repair(path)
        self._file = _File(path)

    def append(self, row: Mapping[str, Cell]) -> None:
        new = [name for name in row if name not in self._columns]
        if new:
            self._widen([*self._columns, *new])
        self._file.append(_line([row.get(name, math.nan) for name in self._columns]))

    def close(self) -> None:
        self._file.close()

    def _widen(self, columns: list[str]) -> None:
        # The rows so far stay as they are: a short row reads as one with empty cells at its end.
        _, rows = _split(self._path.read_bytes())
        temporary = self._path.with_suffix(".tmp")
        file = _File(temporary, os.O_TRUNC)
        try:
            file.append(_line(columns) + rows)
            os.replace(temporary, self._path)
        except OSError:
            file.close()
            temporary.unlink(missing_ok=True)
            raise
        self._file.close()
        self._file, self._columns = file, columns


class _Events:
    """TensorBoard's events, one per row: eight times cheaper than one per number. ImportError without tensorboardX.

    They are written here and at once. The writers of tensorboardX write in a thread that ends when the disk is full;
    who goes on adding to its short queue then waits for ever.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX.proto.event_pb2 import Event  # takes a while, and a ROS machine may lack it
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.record_writer import masked_crc32c

        self._event, self._summary, self._checksum = Event, Summary, masked_crc32c
        now = time.time()
        self._head = self._framed(Event(wall_time=now, file_version="brain.Event:2"))  # until it is written
        folder.mkdir(exist_ok=True)
        self._file = _File(folder / f"events.out.tfevents.{now:.0f}.{socket.gethostname()}.{os.getpid()}")

    def append(self, step: Cell, values: Mapping[str, Cell]) -> None:
        summary = self._summary(value=[self._summary.Value(tag=tag, simple_value=x) for tag, x in values.items()])
        self._file.append(self._head + self._framed(self._event(wall_time=time.time(), step=step, summary=summary)))
        self._head = b""

    def _framed(self, event: Any) -> bytes:
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        return b"".join(part + struct.pack("<I", self._checksum(part)) for part in (length, data))

    def close(self) -> None:
        self._file.close()


def table_path(metrics: Path, table: str) -> Path:
    """Return where a table lies in the metrics folder of a run."""
    return metrics / f"{table}.csv"


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a table by name: float64 (NaN: empty), or str ("": empty) where a cell is text.

    The unfinished last line of a killed or running writer is left out. Raises DataError naming the file and the line.
    """
    try:
        text = _whole_lines(path.read_bytes()).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as a table: {error}") from error
    reader = csv.reader(io.StringIO(text, newline=""), quoting=csv.QUOTE_NONNUMERIC)
    rows: list[list[Any]] = []
    try:
        for row in reader:
            if rows and len(row) > len(rows[0]):
                raise ValueError(f"expected at most {len(rows[0])} cells, found {len(row)}")
            rows.append(row)
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error
    return {str(name): _column(cells) for name, *cells in zip_longest(*rows, fillvalue=math.nan)}


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval that holds the true success rate with ``confidence``; (0, 1) without trials.

    Wilson, Journal of the American Statistical Association 22 (1927): unlike the normal approximation it is right
    for few trials and near 0 and 1. Raises ValueError unless 0 <= successes <= trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"expected 0 <= successes <= trials, found {successes} and {trials}")
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def _repair(path: Path) -> list[str]:
    """Cut off an unfinished last line and return the columns of the table; [] of a new one."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = _whole_lines(data)
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    header, _ = _split(whole)
    return next(csv.reader([header.decode()]), [])


def _whole_lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


def _split(data: bytes) -> tuple[bytes, bytes]:
    header, _, rows = data.partition(b"\n")
    return header, rows


def _line(cells: Sequence[Cell]) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _cell(name: str, value: Any) -> Cell:
    if isinstance(value, str):
        return " ".join(value.split())  # a line is a row, so a text keeps to one line
    scalar = np.asarray(value)
    if scalar.ndim or scalar.dtype.kind in "OScmM":
        raise ValueError(f"metric '{name}': expected a number or a text, found {value!r}")
    if scalar.dtype.kind in "biu":
        return int(scalar)
    return float(str(scalar[()])) if scalar.dtype == np.float32 else float(scalar)  # 0.1, not 0.10000000149


def _column(cells: Sequence[Any]) -> np.ndarray:
    if not any(isinstance(cell, str) for cell in cells):
        return np.asarray(cells, np.float64)
    return np.asarray([c if isinstance(c, str) else "" if math.isnan(c) else str(c) for c in cells], np.str_)
