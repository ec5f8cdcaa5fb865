"""Folders of results: what a captioner or a classifier made of pictures, written, and back in memory."""

from visattn.results.captions import CaptionExport, CaptionWriter
from visattn.results.classes import ClassExport, ClassWriter
from visattn.results.reading import Listed, files_of, list_results

__all__ = ["CaptionExport", "CaptionWriter", "ClassExport", "ClassWriter", "Listed", "files_of", "list_results"]
