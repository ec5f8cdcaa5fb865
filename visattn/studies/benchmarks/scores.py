"""Caption scores compared with the official tool: BLEU, ROUGE-L and CIDEr-D of the same tokens.

Both are given tokens, as lists of words or joined by spaces, so that neither needs Java. The numbers must be equal, and
the report says how far they are apart.
"""

from importlib.util import find_spec
from typing import NamedTuple

from visattn.metrics import caption_scores
from visattn.studies.benchmarks.report import Table
from visattn.studies.benchmarks.sentences import sentences
from visattn.studies.benchmarks.setting import Setting
from visattn.studies.benchmarks.timing import Run

PACKAGES = ("pycocoevalcap",)


class Sizes(NamedTuple):
    """Attributes: images, references of each, and words of the vocabulary."""

    images: int = 5000
    each: int = 5
    words: int = 10_000


FULL, QUICK = Sizes(), Sizes(images=11, each=3, words=50)


def measure(setting: Setting, sizes: Sizes = FULL) -> list[Table]:
    """One table: ours, and the official tool where it is installed."""
    references, candidates = sentences(sizes.images, sizes.each, [f"w{n}" for n in range(sizes.words)])
    found: dict[str, dict[str, float]] = {}

    def ours() -> None:
        found["visattn"] = caption_scores(references, candidates).corpus

    runs: dict[str, Run] = {"visattn": ours}
    if find_spec("pycocoevalcap"):
        lines = {image: [" ".join(words) for words in each] for image, each in references.items()}
        said = {image: [" ".join(words)] for image, words in candidates.items()}

        def official() -> None:
            found["pycocoevalcap"] = _official(lines, said)

        runs["pycocoevalcap"] = official
    times = setting.time(runs)
    rows = {
        name: {"captions/s": times.rate(name, sizes.images), "time, in visattn's": times.ratio(name, "visattn")}
        for name in runs
    }
    apart = [abs(score - found["visattn"][name]) for each in found.values() for name, score in each.items()]
    note = f"The scores are at most {max(apart):.0e} apart." if len(found) > 1 else "pycocoevalcap is not installed."
    title = f"{sizes.images} captions with {sizes.each} references each"
    return [Table(title, "by", {"captions/s": ".0f", "time, in visattn's": ".2f"}, rows, note)]


def _official(references: dict[str, list[str]], candidates: dict[str, list[str]]) -> dict[str, float]:
    """The official scores under our names."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    bleu, _ = Bleu(4).compute_score(references, candidates, verbose=0)
    rouge, _ = Rouge().compute_score(references, candidates)
    cider, _ = Cider().compute_score(references, candidates)
    return {f"BLEU-{order}": score for order, score in enumerate(bleu, 1)} | {"ROUGE-L": rouge, "CIDEr-D": cider}
