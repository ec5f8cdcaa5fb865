"""Every map of a classifier, and maps that know nothing, scored on the same images; used by `visattn rank`."""

from visattn.studies.ranking.measure import CENTRE, RANDOM, SCORES, Example, Settings, measure
from visattn.studies.ranking.report import figure, report, table

__all__ = ["CENTRE", "RANDOM", "SCORES", "Example", "Settings", "figure", "measure", "report", "table"]
