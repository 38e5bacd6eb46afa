"""Tables as CSV files."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A table whose columns are the keys of the first row; floats are rounded to six decimals."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _tidy(value) for key, value in row.items()} for row in rows)


def _tidy(value: Any) -> Any:
    return round(value, 6) + 0.0 if isinstance(value, float) else value
