"""Tables in Markdown."""

from collections.abc import Sequence


def markdown(rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Rows of cells as a table, the first row its head; columns after the first `text_columns` are numbers."""
    head, *lines = ("| " + " | ".join(row) + " |" for row in rows)
    rule = "|" + "---|" * text_columns + "---:|" * (len(rows[0]) - text_columns)
    return "\n".join([head, rule, *lines])
