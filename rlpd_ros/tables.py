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
    """One measured figure, what was asked of it in words, and whether that is met (None: nothing was asked)."""

    name: str
    value: Value  # None: it could not be measured
    unit: str
    target: str
    ok: bool | None


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
    for header, justify in (("name", "left"), ("value", "right"), ("unit", "left"), ("target", "left"), ("", "left")):
        table.add_column(header, justify=justify, no_wrap=header != "name")  # type: ignore[arg-type]
    for row in rows:
        word, style = _VERDICT[row.ok]
        table.add_row(*(Text(cell) for cell in (row.name, _text(row.value), row.unit, row.target)), Text(word, style))
    Console(file=file, width=None if terminal else 240).print(table)


_VERDICT = {True: ("ok", "green"), False: ("MISSED", "bold red"), None: ("", "")}


def write_report_json(target: str, rows: Sequence[Row], folder: str | Path = "reports") -> Path:
    """Write ``folder/target.json``: a list of {name, value, unit, target, ok}; return its path."""
    path = Path(folder) / f"{target}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = [dataclasses.asdict(row) | {"value": _json_value(row.value)} for row in rows]
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
