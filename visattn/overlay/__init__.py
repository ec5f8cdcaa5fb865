"""Drawing of images and pages from arrays and a geometry. Nothing here runs a model."""

from visattn.overlay.alignment import Alignment, alignment_sheet, alignment_sheets
from visattn.overlay.canvas import encode_figure, rasterise, save_figure
from visattn.overlay.comparison import Comparison, Row, comparison_sheet
from visattn.overlay.curves import Curves, curves_sheet
from visattn.overlay.exposure import Exposure, exposure_sheet
from visattn.overlay.faithfulness import Faithfulness, faithfulness_sheet
from visattn.overlay.growth import Curve, Growth, growth_sheet
from visattn.overlay.heatmap import encode_png, heatmap, shared_limits
from visattn.overlay.page import Panel, Section, page
from visattn.overlay.scanpath import ScanPath, scan_gif, scan_sheet
from visattn.overlay.sheet import caption_sheet, check_style, classification_sheet
from visattn.overlay.style import COLOUR_MAP, OPACITY, WORD_SIZE, Paper, Style
from visattn.overlay.viewer import Answer, Reading, Scene, viewer
from visattn.overlay.words import caption_gif, word_pictures
from visattn.overlay.work import Line, work_sheet

__all__ = [
    "COLOUR_MAP",
    "OPACITY",
    "WORD_SIZE",
    "Alignment",
    "Answer",
    "Comparison",
    "Curve",
    "Curves",
    "Exposure",
    "Faithfulness",
    "Growth",
    "Line",
    "Panel",
    "Paper",
    "Reading",
    "Row",
    "ScanPath",
    "Scene",
    "Section",
    "Style",
    "alignment_sheet",
    "alignment_sheets",
    "caption_gif",
    "caption_sheet",
    "check_style",
    "classification_sheet",
    "comparison_sheet",
    "curves_sheet",
    "encode_figure",
    "encode_png",
    "exposure_sheet",
    "faithfulness_sheet",
    "growth_sheet",
    "heatmap",
    "page",
    "rasterise",
    "save_figure",
    "scan_gif",
    "scan_sheet",
    "shared_limits",
    "viewer",
    "word_pictures",
    "work_sheet",
]
