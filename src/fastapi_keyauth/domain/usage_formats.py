"""Reports of usage as JSON and as CSV (RFC 4180)."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi_keyauth.domain.usage import By, UsageItem

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the start of a formula
(https://owasp.org/www-community/attacks/CSV_Injection)."""
_GROUP_FIELDS: dict[By, str] = {"day": "day", "month": "month", "key": "key_id", "unit": "unit"}


def item_as_json(item: UsageItem, by: By) -> dict[str, Any]:
    """Return an item as it appears in a response: with the one field that the report is grouped by."""
    group = _GROUP_FIELDS[by]
    return {
        group: _text(getattr(item, group)),
        "units": dict(item.units),
        "refused": item.refused,
        "closed": item.closed,
    }


class UsageCsv:
    """Writes the lines of a report: a header, then a line for each item.

    Args:
        by: What the items are.
        units: The units, each of which is a column. Not used in a report by unit, which has one column ``units``.
    """

    def __init__(self, by: By, units: Sequence[str]) -> None:
        self._group = _GROUP_FIELDS[by]
        self._units = list(units) if by != "unit" else None

    def header(self) -> str:
        """Return the first line."""
        return _line([self._group, *(["units"] if self._units is None else self._units), "refused", "closed"])

    def row(self, item: UsageItem) -> str:
        """Return the line of an item."""
        if self._units is None:
            numbers = [sum(item.units.values())]
        else:
            numbers = [item.units.get(unit, 0) for unit in self._units]
        closed = "true" if item.closed else "false"
        return _line([_text(getattr(item, self._group)), *numbers, item.refused, closed])


def _text(value: object) -> str:
    return str(value)  # a date in ISO 8601


def _line(cells: Iterable[str | int]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow([_without_formula(cell) for cell in cells])
    return text.getvalue()


def _without_formula(cell: str | int) -> str | int:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else cell
