"""Faithfulness of a model's attention maps, measured with `visattn.explain.faithfulness`.

Curves for a model's maps and for baseline maps, and ablation of a captioner's α; used by `visattn faithfulness`.
"""

from visattn.studies.faithfulness.captions import WORD_METHODS
from visattn.studies.faithfulness.curves import CLASS_METHODS
from visattn.studies.faithfulness.report import figure, report, tables
from visattn.studies.faithfulness.setting import SUBSTRATES, Example, Settings

__all__ = [
    "CLASS_METHODS",
    "SUBSTRATES",
    "WORD_METHODS",
    "Example",
    "Settings",
    "figure",
    "report",
    "tables",
]
