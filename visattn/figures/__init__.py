"""Plots of numbers: arrays in, matplotlib figures out. `overlay.save_figure` turns them into files."""

from visattn.figures.alignment import Alignment, alignment_sheet
from visattn.figures.comparison import Comparison, Row, comparison_sheet
from visattn.figures.curves import Curves, curves_sheet
from visattn.figures.estimators import Estimates, estimates_sheet
from visattn.figures.exposure import Exposure, exposure_sheet
from visattn.figures.faithfulness import Faithfulness, faithfulness_sheet
from visattn.figures.growth import Curve, Growth, growth_sheet
from visattn.figures.lengths import LengthLine, Lengths, lengths_sheet
from visattn.figures.ranking import Ranked, ranking_sheet
from visattn.figures.stopping import StoppingLine, stopping_sheet
from visattn.figures.work import Line, work_sheet

__all__ = [
    "Alignment",
    "Comparison",
    "Curve",
    "Curves",
    "Estimates",
    "Exposure",
    "Faithfulness",
    "Growth",
    "LengthLine",
    "Lengths",
    "Line",
    "Ranked",
    "Row",
    "StoppingLine",
    "alignment_sheet",
    "comparison_sheet",
    "curves_sheet",
    "estimates_sheet",
    "exposure_sheet",
    "faithfulness_sheet",
    "growth_sheet",
    "lengths_sheet",
    "ranking_sheet",
    "stopping_sheet",
    "work_sheet",
]
