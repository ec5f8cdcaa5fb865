"""Tables of measurements, as Markdown and as JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from visattn.errors import InputError
from visattn.files import require_file, write_json, write_text
from visattn.studies.benchmarks.timing import Spread
from visattn.studies.markdown import markdown


class Table(NamedTuple):
    """What was measured.

    Attributes:
        title: a line above it.
        of: what a row is.
        columns: heading -> how its numbers are written, such as ".1f"; "" for text.
        rows: name -> heading -> number; a row may lack some.
        note: remarks below the table.
    """

    title: str
    of: str
    columns: Mapping[str, str]
    rows: Mapping[str, Mapping[str, float | Spread | str]]
    note: str = ""

    def markdown(self) -> str:
        """As Markdown, its title a heading."""
        rows = [[self.of, *self.columns]]
        for name, row in self.rows.items():
            cells = [format(row[heading], form) if heading in row else "" for heading, form in self.columns.items()]
            rows.append([name, *cells])
        return "\n\n".join([f"## {self.title}", markdown(rows), *([self.note] if self.note else [])])

    def data(self) -> dict[str, Any]:
        """As what JSON can hold; a spread is its median, least and most."""
        rows = {
            name: {key: cell._asdict() if isinstance(cell, Spread) else cell for key, cell in row.items()}
            for name, row in self.rows.items()
        }
        return {"title": self.title, "of": self.of, "rows": rows, "note": self.note}


class Report(NamedTuple):
    """Tables and the conditions that they hold under."""

    subject: str
    conditions: Mapping[str, str]
    tables: Sequence[Table]

    def markdown(self) -> str:
        """As Markdown."""
        conditions = [f"- {name}: {value}" for name, value in self.conditions.items()]
        tables = [part for table in self.tables for part in ("", table.markdown())]
        return "\n".join([f"# {self.subject}", "", *conditions, *tables, ""])

    def data(self) -> dict[str, Any]:
        """As what JSON can hold."""
        tables = [table.data() for table in self.tables]
        return {"subject": self.subject, "conditions": dict(self.conditions), "tables": tables}

    def save(self, path: Path) -> None:
        """Write JSON to `path`, and Markdown beside it."""
        write_json(path, self.data())
        write_text(path.with_suffix(".md"), self.markdown())


def check_path(path: Path) -> None:
    """Raise an `InputError` unless a report can be written to `path` without loss, and make its folder."""
    if path.suffix != ".json":
        raise InputError(f"--output is {path}; it must end in .json, and Markdown is written next to it")
    require_file(path)
    beside = path.with_suffix(".md")
    require_file(beside)
    if beside.exists() and not path.exists():
        raise InputError(f"{beside} already exists and is not from an earlier report; choose another --output")
