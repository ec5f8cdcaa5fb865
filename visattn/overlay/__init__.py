"""Drawing of images and pages from arrays and a geometry. Nothing here runs a model."""

from visattn.overlay.canvas import encode_figure, rasterise, save_figure
from visattn.overlay.features import FeatureViews, feature_sheet
from visattn.overlay.heatmap import encode_png, heatmap, shared_limits
from visattn.overlay.page import Panel, Section, page
from visattn.overlay.scanpath import ScanPath, scan_gif, scan_sheet
from visattn.overlay.sheet import caption_sheet, check_style, classification_sheet
from visattn.overlay.style import COLOUR_MAP, OPACITY, WORD_SIZE, Paper, Style
from visattn.overlay.viewer import Answer, Queries, Reading, Scene, viewer
from visattn.overlay.wall import wall_sheet
from visattn.overlay.words import caption_gif, word_pictures

__all__ = [
    "COLOUR_MAP",
    "OPACITY",
    "WORD_SIZE",
    "Answer",
    "FeatureViews",
    "Panel",
    "Paper",
    "Queries",
    "Reading",
    "ScanPath",
    "Scene",
    "Section",
    "Style",
    "caption_gif",
    "caption_sheet",
    "check_style",
    "classification_sheet",
    "encode_figure",
    "encode_png",
    "feature_sheet",
    "heatmap",
    "page",
    "rasterise",
    "save_figure",
    "scan_gif",
    "scan_sheet",
    "shared_limits",
    "viewer",
    "wall_sheet",
    "word_pictures",
]
