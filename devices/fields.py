"""Reading a TOML table field by field: each has a type and a range, and what nobody asked for is refused."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.formats.errors import FormatError

_MOST_BYTES = 1 << 20  # of a TOML file of ours: a profile is a few kilobytes
_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?")


@dataclass(frozen=True)
class Source:
    """Where numbers come from, and the year, month or day of it."""

    what: str
    date: str


class Fields:
    """One table of a TOML file. Every method raises FormatError naming the file and the field."""

    def __init__(self, path: Path, table: Mapping[str, Any], name: str = "") -> None:
        self.path, self._table, self._name = path, table, name
        self._read: set[str] = set()

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __contains__(self, field: str) -> bool:
        return field in self._table

    def error(self, field: str, problem: str) -> FormatError:
        """The error to raise about a field."""
        return FormatError(self.path, f"{self._name}{field}: {problem}")

    def text(self, field: str, default: str | None = None) -> str:
        """A line of text that is not empty."""
        value = self._get(field, default)
        if not isinstance(value, str) or (value != default and (not value.strip() or "\n" in value)):
            raise self.error(field, f"must be a line of text, not {value!r}")
        return value

    def choice(self, field: str, names: Collection[str], default: str | None = None) -> str:
        """One of some names."""
        value = self.text(field, default)
        if value not in names and value != default:
            raise self.error(field, f"must be one of {', '.join(sorted(names))}, not {value!r}")
        return value

    def date(self, field: str) -> str:
        """A year, month or day: 2024, 2024-03 or 2024-03-31."""
        value = str(self._get(field))
        if not _DATE.fullmatch(value):
            raise self.error(field, f"must be a date such as 2024-03, not {value!r}")
        return value

    def number(self, field: str, least: float, most: float, default: float | None = None) -> float:
        """A number from ``least`` to ``most``."""
        value = self._get(field, default)
        if not _is_number(value) or not least <= value <= most:
            raise self.error(field, f"must be a number from {least:g} to {most:g}, not {value!r}")
        return float(value)

    def optional(self, field: str, least: float, most: float) -> float | None:
        """A number, or None where the field is not there."""
        return self.number(field, least, most) if field in self else None

    def count(self, field: str, most: int, default: int | None = None) -> int:
        """A whole number from 1 (0 where it is the default) to ``most``."""
        value = self._get(field, default)
        if (
            not isinstance(value, int)
            or isinstance(value, bool)
            or not (1 <= value <= most or value == default)
        ):
            raise self.error(field, f"must be a whole number from 1 to {most}, not {value!r}")
        return value

    def texts(self, field: str, names: Collection[str] = ()) -> tuple[str, ...]:
        """A list of texts, of ``names`` where any are given; () where it is not there."""
        value = self._get(field, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.error(field, f"must be a list of texts, not {value!r}")
        if names and (unknown := [item for item in value if item not in names]):
            raise self.error(field, f"must be of {', '.join(names)}, not {unknown[0]!r}")
        return tuple(value)

    def number_list(self, field: str, least: float, most: float) -> tuple[float, ...]:
        """A list of numbers; () where it is not there."""
        value = self._get(field, [])
        if not isinstance(value, list) or not all(_is_number(v) and least <= v <= most for v in value):
            raise self.error(field, f"must be a list of numbers from {least:g} to {most:g}, not {value!r}")
        return tuple(float(v) for v in value)

    def numbers(self, field: str, least: float, most: float) -> dict[str, float]:
        """A table of numbers by name; {} where it is not there."""
        table = self.table(field)
        return {name: table.number(name, least, most) for name in table}

    def tables(self) -> Iterator[tuple[str, Fields]]:
        """(name, table) of every field; all must be tables."""
        for name in self:
            yield name, self.table(name)

    def table(self, field: str) -> Fields:
        """A table, empty where it is not there."""
        value = self._get(field, {})
        if not isinstance(value, dict):
            raise self.error(field, f"must be a table, not {value!r}")
        return Fields(self.path, value, f"{self._name}{field}.")

    def sources(self) -> dict[str, Source]:
        """The tables under ``[sources]``: what numbers name as theirs."""
        found = {}
        for name, table in self.table("sources").tables():
            found[name] = Source(table.text("what"), table.date("date"))
            table.done()
        return found

    def rows(self, field: str) -> Iterator[Fields]:
        """Every table of an array of tables."""
        value = self._get(field, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.error(field, f"must be tables: [[{field}]]")
        for i, item in enumerate(value, 1):
            yield Fields(self.path, item, f"{self._name}{field} {i}, ")

    def done(self) -> None:
        """Refuse what was not read: a misspelt field must not be ignored."""
        unknown = [field for field in self._table if field not in self._read]
        if unknown:
            raise self.error(unknown[0], "there is no such field")

    def _get(self, field: str, default: Any = None) -> Any:
        self._read.add(field)
        if field not in self._table and default is None:
            raise self.error(field, "is missing")
        return self._table.get(field, default)


def read_toml(path: Path) -> Fields:
    """The top table of a TOML file; raises FormatError for one that is unreadable, too large or no TOML."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise FormatError(path, f"cannot be read ({error.strerror})") from None
    if len(content) > _MOST_BYTES:
        raise FormatError(path, f"is larger than {_MOST_BYTES} bytes, so it is no profile")
    try:
        return Fields(path, tomllib.loads(content.decode("utf-8")))
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, numbers of too many digits; nesting
        raise FormatError(path, f"is not TOML ({error})") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
