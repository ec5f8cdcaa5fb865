"""Checking data sets: image files with caption files, or shards."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visattn.data.annotations import Layout, read_entries
from visattn.data.inspection import (
    KINDS,
    TOO_LONG,
    CheckImage,
    Fault,
    caption_faults,
    count_words,
    in_parallel,
    lost_words,
    picture_faults,
    word_faults,
)
from visattn.data.losses import MAX_UNKNOWN, WordCounts, WordLoss
from visattn.errors import InputError
from visattn.vocabulary import read_tokens

SHOWN = 10  # faults of each kind to print


def check(
    root: Path,
    annotations: Sequence[str],
    images: str = "images",
    layout: Layout = "auto",
    longest: int = TOO_LONG,
    checksums: Path | None = None,
    workers: int = 2,
    tokens: str = "words",
    min_count: int = 5,
    max_length: int = 20,
    max_unknown: float = MAX_UNKNOWN,
) -> dict[str, Any]:
    """Check a data set; see `visattn.cli.check_data`.

    Args:
        root: folder of the data set; the next two paths are relative to it or absolute.
        annotations: caption files, checked together.
        images: image folder.
        layout: format of the caption files.
        longest: maximum number of words in a caption.
        checksums: file with the expected checksums of the images.
        workers: number of decoding processes; 0 decodes in this process.
        tokens: unit of the captions, as in `Photographs`.
        min_count: words that occur less often in the training captions are unknown.
        max_length: number of words of a caption that a model sees.
        max_unknown: share of words that may be unknown or cut off.

    Returns:
        The report: `faults` (kind, where, what), `counts` per kind, `notes` (lost words, below the limit), `images`,
        `captions`, `pictures` (files checked), `compared` (files with a checksum) and `sha256` of each file.

    Raises:
        InputError: if the check cannot be made.
    """
    folder = root / images
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; set --images to the image folder, relative to --root")
    known = {} if checksums is None else read_checksums(checksums)
    spec = read_tokens(tokens, root).spec
    read = [read_entries(root / name, layout, spec) for name in annotations]
    entries = [entry for part, _ in read for entry in part]
    files = list(dict.fromkeys(entry.file for entry in entries))
    pictures = list(in_parallel(CheckImage(folder, known), files, workers, "Checking"))
    faults = picture_faults(files, pictures) + caption_faults(entries, [s for _, some in read for s in some], longest)
    training = [entry for entry in read[0][0] if entry.split in (None, "train", "restval")]
    validation = [entry for entry in read[0][0] if entry.split == "val"] + [e for part, _ in read[1:] for e in part]
    words = count_words(training, max_length), count_words(validation, max_length)
    losses = lost_words(*words, spec, min_count, max_length)
    return {
        "root": str(root),
        "annotations": list(annotations),
        "images": len(entries),
        "captions": sum(len(entry.captions) for entry in entries),
        "pictures": len(files),
        "compared": len(known.keys() & set(files)),
        **_found(faults, losses, max_unknown),
        "sha256": {file: p.digest for file, p in zip(files, pictures, strict=True) if p.digest is not None},
    }


def check_shards(
    root: Path,
    patterns: Sequence[str],
    captions: str = "txt",
    longest: int = TOO_LONG,
    workers: int = 2,
    tokens: str = "words",
    min_count: int = 5,
    max_length: int = 20,
    max_unknown: float = MAX_UNKNOWN,
) -> dict[str, Any]:
    """Check a data set in shards; see `check` for the report and the options not described here.

    Args:
        root: folder of the data set.
        patterns: the training shards and those of other splits, as in `visattn.data.Shards`.
        captions: location of captions, as in `visattn.data.Shards`.
        longest: see `check`.
        workers: see `check`.
        tokens: see `check`.
        min_count: see `check`.
        max_length: see `check`.
        max_unknown: see `check`.

    Raises:
        InputError: if the check cannot be made.
    """
    from visattn.data.shard_inspection import CheckShard, repeated_samples
    from visattn.data.tars import shards_of

    spec = read_tokens(tokens, root).spec
    splits = [shards_of(root, pattern, "--shards") for pattern in patterns]
    check_shard = CheckShard(captions, spec, max_length, longest)
    found = list(in_parallel(check_shard, [shard for split in splits for shard in split], workers, "Checking", "shard"))
    faults, words = [fault for check in found for fault in check.faults], []
    known: dict[str, str] = {}
    samples = sum(len(check.digests) + len(check.repeated) for check in found)
    pictures = sum(digest != "" for check in found for digest in check.digests.values())
    for split in splits:
        checks, found = found[: len(split)], found[len(split) :]
        faults += repeated_samples(split, checks, known)
        words.append(WordCounts())
        for check in checks:
            words[-1].update(check.words)
    training, *others = words
    validation = WordCounts()
    for counts in others:
        validation.update(counts)
    losses = lost_words(training, validation, spec, min_count, max_length)
    return {
        "root": str(root),
        "shards": list(patterns),
        "images": samples,
        "captions": sum(counts.captions for counts in words),
        "pictures": pictures,
        "compared": 0,
        **_found(faults, losses, max_unknown),
    }


def _found(faults: list[Fault], losses: list[WordLoss], max_unknown: float) -> dict[str, Any]:
    """The parts of the report about faults."""
    faults = faults + word_faults(losses, max_unknown)
    return {
        "notes": [loss.sentence for loss in losses if loss.least <= max_unknown],
        "counts": dict(Counter(fault.kind for fault in faults)),
        "faults": [fault._asdict() for fault in faults],
    }


def read_checksums(path: Path) -> dict[str, str]:
    """Read a checksum file written by `sha256sum`: file name → digest.

    Raises:
        InputError: if the file is missing or in another format.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a checksum file: {error}") from error
    sums = {}
    for number, line in enumerate(lines, 1):
        match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)", line)
        if not match:
            raise InputError(f"{path}, line {number}: expected sha256sum's format (digest, two spaces, file name)")
        sums[match[2]] = match[1].lower()
    return sums


def summary(report: dict[str, Any]) -> str:
    """The report as text: what was checked, and the first faults of each kind."""
    lines = [
        f"{report['images']} images with {report['captions']} captions; {report['pictures']} image files checked, "
        f"{report['compared']} of them compared with a checksum"
    ]
    lines += report["notes"]
    faults = [Fault(**fault) for fault in report["faults"]]
    for kind, title in KINDS.items():
        found = [fault for fault in faults if fault.kind == kind]
        if found:
            lines.append(f"{kind}, {len(found)} ({title}):")
            lines += [f"  {' · '.join(part for part in fault[1:] if part)[:400]}" for fault in found[:SHOWN]]
            lines += [f"  … and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "\n".join(lines if faults else [*lines, "no faults found"])
