"""Folders of results: a captioner's written, and any of them back in memory, checked, to be looked at."""

from visattn.results.captions import CaptionExport, CaptionWriter
from visattn.results.reading import Listed, list_results

__all__ = ["CaptionExport", "CaptionWriter", "Listed", "list_results"]
