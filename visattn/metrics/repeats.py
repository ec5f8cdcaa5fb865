"""Repetitions within captions, such as "a brown dog in front of a brown dog", which BLEU and CIDEr hardly penalise."""

from collections.abc import Iterable, Sequence


def repeats_itself(words: Sequence[str], run: int = 2) -> bool:
    """Whether some n-gram of `run` words occurs twice in a caption; `decode` with `no_repeat=run` prevents it."""
    runs = [tuple(words[i : i + run]) for i in range(len(words) - run + 1)]
    return len(set(runs)) < len(runs)


def repeat_share(captions: Iterable[Sequence[str]], run: int = 2) -> float:
    """The share of captions with a repeated n-gram of `run` words; NaN if there are no captions.

    For comparison: of Flickr8k's training and validation captions 4.0% repeat a bigram and 0.6% a trigram.
    """
    found = [repeats_itself(words, run) for words in captions]
    return sum(found) / len(found) if found else float("nan")
