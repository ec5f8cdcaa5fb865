"""Drawing: arrays and a geometry in, pictures and pages out. Nothing here runs a model."""

from visattn.overlay.heatmap import encode_png, heatmap, shared_limits
from visattn.overlay.page import Panel, Section, page
from visattn.overlay.sheet import caption_sheet, classification_sheet, encode_figure, save_figure

__all__ = [
    "Panel",
    "Section",
    "caption_sheet",
    "classification_sheet",
    "encode_figure",
    "encode_png",
    "heatmap",
    "page",
    "save_figure",
    "shared_limits",
]
