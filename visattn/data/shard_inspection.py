"""Checking shards: the same faults as of image files and captions, by sample."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from visattn.data.inspection import Fault, image_fault
from visattn.data.losses import WordCounts
from visattn.data.tars import Shard, captions_of, picture_of, samples, texts
from visattn.errors import InputError
from visattn.vocabulary import tokens_of


class ShardCheck(NamedTuple):
    """The result of checking a shard.

    Attributes:
        faults: of its samples, and of the shard itself.
        words: those of its captions.
        digests: the SHA-256 of each sample's image file in hexadecimal, by key, in order; "" without one.
        repeated: keys that occur more than once.
    """

    faults: list[Fault]
    words: WordCounts
    digests: dict[str, str]
    repeated: list[str]


class CheckShard:
    """Checks shards, one at a time.

    Args:
        captions: location of captions, as in `visattn.data.Shards`.
        tokens: tokenisation of captions; see `visattn.vocabulary.tokens_of`.
        max_length: number of words of a caption that a model sees.
        longest: maximum number of words in a caption.
    """

    def __init__(self, captions: str, tokens: str, max_length: int, longest: int) -> None:
        self.captions, self.tokens = captions, tokens
        self.max_length, self.longest = max_length, longest

    def __call__(self, shard: Shard) -> ShardCheck:
        checked = ShardCheck([], WordCounts(), {}, [])
        try:
            if isinstance(shard, Path):
                for _ in texts(shard):  # notices a truncated file, without reading the images
                    pass
            for sample in samples(shard, 0, None):
                key = sample["__key__"]
                if key in checked.digests:
                    checked.repeated.append(key)
                checked.faults.extend(self._caption_faults(sample, checked.words))
                checked.digests[key] = self._look_at(sample, f"{shard}, {key}", checked.faults)
        except InputError as error:
            checked.faults.append(Fault("damaged shard", str(shard), str(error)))
        return checked

    def _look_at(self, sample: dict, where: str, faults: list[Fault]) -> str:
        try:
            content = picture_of(sample, "the sample")
        except InputError as error:
            faults.append(Fault("missing", where, str(error)))
            return ""
        if fault := image_fault(content, where):
            faults.append(fault)
        return hashlib.sha256(content).hexdigest()

    def _caption_faults(self, sample: dict, words: WordCounts) -> Iterable[Fault]:
        where = f"{sample['__url__']}, {sample['__key__']}"
        captions, lost = captions_of(sample, self.captions, tokens_of(self.tokens))
        words.add(captions, self.max_length)
        kind = "unusable caption" if captions else "captionless"
        yield from (Fault(kind, where, f"the sample {reason}") for reason in lost)
        long = (len(caption) for caption in captions if len(caption) > self.longest)
        yield from (Fault("overlong caption", where, f"{number} words") for number in long)


def repeated_samples(shards: Sequence[Shard], checks: Sequence[ShardCheck], known: dict[str, str]) -> list[Fault]:
    """Keys that occur twice in these shards, and images that are equal to another.

    Args:
        shards: of one split.
        checks: their results, in the same order.
        known: where the image of each digest was first seen; extended by these shards.
    """
    faults, keys = [], set()
    for shard, check in zip(shards, checks, strict=True):
        twice = [*check.repeated, *(key for key in check.digests if key in keys)]
        faults += [Fault("duplicate id", f"{shard}, {key}", "occurs in the split before") for key in twice]
        keys.update(check.digests)
        for key, digest in check.digests.items():
            here = f"{shard}, {key}"
            if digest and known.setdefault(digest, here) != here:
                faults.append(Fault("duplicate picture", here, f"same as {known[digest]}"))
    return faults
