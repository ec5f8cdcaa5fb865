"""Compare the exposure bias of several captioners."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visattn.errors import InputError
from visattn.figures import exposure_sheet
from visattn.files import named_path, protect, read_json, write_text
from visattn.overlay import save_figure
from visattn.studies.markdown import markdown
from visattn.training.callbacks import exposure_of

COLUMNS = {
    "CIDEr-D": "{:.3f}",
    "BLEU-4": "{:.3f}",
    "cross_entropy": "{:.3f}",
    "teacher_forced_accuracy": "{:.1%}",
    "free_running_accuracy": "{:.1%}",
    "gap": "{:.3f}",
    "another_reference_accuracy": "{:.1%}",
    "teacher_forced_CIDEr-D": "{:.3f}",
    "words": "{:.1f}",
}
TITLES = {
    "cross_entropy": "loss",
    "teacher_forced_accuracy": "right after true words",
    "free_running_accuracy": "right after own words",
    "another_reference_accuracy": "another reference",
    "teacher_forced_CIDEr-D": "CIDEr-D, teacher-forced",
}


def read_reports(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The reports that the arguments name, all of one split.

    Raises:
        InputError: as `read_report`, and if they are of different splits.
    """
    reports = [read_report(argument) for argument in arguments]
    if len({report["split"] for report in reports}) > 1:
        raise InputError("the reports are of different splits; compare reports of the same split")
    return reports


def read_report(argument: str) -> dict[str, Any]:
    """The report that an argument names, as NAME=PATH or PATH; its file is protected.

    Raises:
        InputError: if there is none, or more than one.
    """
    name, path = named_path(argument)
    if path.is_dir():
        found = sorted(path.glob("exposure_*.json"))
        if len(found) != 1:
            raise InputError(
                f"{path} contains {len(found)} files exposure_*.json; give one report, or create one with "
                "'visattn test' or 'visattn validate'"
            )
        path = found[0]
    protect([path])
    report = read_json(path, "report of 'visattn test' or 'visattn validate'")
    try:
        exposure_of(report)
        missing = [] if report["split"] else ["split"]
        missing += [column for column in COLUMNS if column not in report["scores"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a report of 'visattn test' or 'visattn validate'") from error
    if missing:
        raise InputError(f"{path} has no score {missing[0]}; create it again with 'visattn test'")
    return report | {"name": name or report["name"]}


def table(reports: Sequence[dict[str, Any]]) -> str:
    """The reports as Markdown."""
    rows = [["captioner", *(TITLES.get(column, column) for column in COLUMNS)]]
    for report in reports:
        rows.append([report["name"], *(form.format(report["scores"][column]) for column, form in COLUMNS.items())])
    return markdown(rows)


def write_report(reports: Sequence[dict[str, Any]], output: Path, title: str = "") -> str:
    """Write `exposure.png` and `exposure.md` into a folder; the table."""
    output.mkdir(parents=True, exist_ok=True)
    save_figure(exposure_sheet([exposure_of(report) for report in reports], title=title), output / "exposure.png")
    write_text(output / "exposure.md", table(reports) + "\n")
    return table(reports)
