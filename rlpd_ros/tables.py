# SPDX-License-Identifier: Apache-2.0
"""The results of a suite or a benchmark: rows that are judged, printed as a table and written as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rlpd_ros.runs import write_atomically

Value = float | int | str | None


@dataclass(frozen=True)
class Row:
    """One measured figure, what was asked of it in words, and whether that is met (None: nothing was asked).

    ``spread``: lowest and highest of the repetitions. ``limit``: what the machine could do at best, in the same unit.
    """

    name: str
    value: Value  # None: it could not be measured
    unit: str
    target: str
    ok: bool | None
    spread: tuple[float, float] | None = None
    limit: float | None = None

    @property
    def share_of_limit(self) -> float | None:
        """Return how much of the limit is reached, of a rate (unit .../s) or of a time; None if unknown.

        More than 1 where the machine can do better than what the limit was measured with.
        """
        if not isinstance(self.value, (int, float)) or not self.limit or not self.value > 0:
            return None
        return self.value / self.limit if self.unit.endswith("/s") else self.limit / self.value


def at_least(name: str, value: float | None, bound: float, unit: str = "") -> Row:
    """Judge ``value >= bound``; what was not measured (None, NaN) fails."""
    return Row(name, value, unit, f">= {_text(bound)}", value is not None and bool(value >= bound))


def at_most(name: str, value: float | None, bound: float, unit: str = "") -> Row:
    """Judge ``value <= bound``; what was not measured (None, NaN) fails."""
    return Row(name, value, unit, f"<= {_text(bound)}", value is not None and bool(value <= bound))


def informative(name: str, value: Value, unit: str = "") -> Row:
    """Make a row of which nothing is asked."""
    return Row(name, value, unit, "", None)


def all_ok(rows: Sequence[Row]) -> bool:
    """Return whether no row misses its target."""
    return all(row.ok is not False for row in rows)


def print_table(title: str, rows: Sequence[Row], file: TextIO | None = None) -> None:
    """Print the rows: in colour and boxed on a terminal, as plain aligned lines of any length elsewhere."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    file = file or sys.stdout
    terminal = file.isatty()
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, title_justify="left",
                  title=Text(title, style="bold"))
    columns = {"name": [row.name for row in rows], "value": [_text(row.value) for row in rows],
               "unit": [row.unit for row in rows], "spread": [_spread(row) for row in rows],
               "speed of light": [_limit(row) for row in rows], "target": [row.target for row in rows]}
    columns = {header: cells for header, cells in columns.items()
               if header not in ("spread", "speed of light") or any(cells)}
    for header in (*columns, ""):
        table.add_column(header, justify="right" if header == "value" else "left", no_wrap=header != "name")
    for row, *cells in zip(rows, *columns.values(), strict=True):
        word, style = _VERDICT[row.ok]
        table.add_row(*(Text(cell) for cell in cells), Text(word, style))
    Console(file=file, width=None if terminal else 240).print(table)


def _spread(row: Row) -> str:
    return f"{_text(row.spread[0])} to {_text(row.spread[1])}" if row.spread else ""


def _limit(row: Row) -> str:
    share = row.share_of_limit
    return "" if row.limit is None else _text(row.limit) + (f" ({share:.0%})" if share is not None else "")


_VERDICT = {True: ("ok", "green"), False: ("MISSED", "bold red"), None: ("", "")}


def write_report_json(target: str, rows: Sequence[Row], folder: str | Path = "reports") -> Path:
    """Write ``folder/target.json``: a list of {name, value, unit, target, ok}, with spread and limit
    where there are any; return its path.
    """
    path = Path(folder) / f"{target}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = [{name: value for name, value in dataclasses.asdict(row).items()
              if value is not None or name not in ("spread", "limit")} | {"value": _json_value(row.value)}
             for row in rows]
    write_atomically(path, json.dumps(plain, indent=2, allow_nan=False) + "\n")
    return path


def _json_value(value: Any) -> Value:
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value  # JSON has no NaN


def _text(value: Value) -> str:
    """Write a number with four significant digits (more only for large whole numbers) and no exponent in between."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    if value.is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.3e}"
    return f"{value:.4g}"
