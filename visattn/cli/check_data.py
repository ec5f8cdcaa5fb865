r"""Check every image and caption of a data set, and list all faults.

    visattn check-data --root data/flickr8k --annotations dataset_flickr8k.json --output report.json
    visattn check-data --root data/coco --images train2017 --annotations annotations/captions_train2017.json \
        --workers 8
    visattn check-data --root data/cc3m --shards "train/{00000..00331}.tar" "val/*.tar" --captions txt

Image faults: missing; unreadable; unusual size (more than 80 million pixels, one side more than 100 times the other, or
a side shorter than 16 pixels); identical bytes to another image. Caption faults: images without captions; duplicate
image ids; captions that are not text, have no words, or have more than --longest words; captions without an image (a
subset of COCO that comes with all captions has many: for COCO's format they are counted in one line).

Word faults: the share of words that a model trained on this data would not see, because they occur fewer than
--min-count times in training, come after --max-length words, or because whole phrases are taken as one word. This is a
fault above --max-unknown. Training captions are those of the first caption file, or of the splits train and restval.

Shards are read once, from the first to the last byte; the first pattern is of the training split. A shard that cannot
be read to its end is a fault, and so are samples without an image or a usable caption. Checksums are not compared: use
`sha256sum` on the tar files.

Most JPEGs with flipped bits can still be read. To find them, save checksums while the data is intact, and compare
later:

    visattn check-data --root data/flickr8k --annotations dataset_flickr8k.json --write-checksums sums.txt
    visattn check-data --root data/flickr8k --annotations dataset_flickr8k.json --checksums sums.txt

The checksum file has the format of `sha256sum`, with names relative to the image folder. Images that it does not list
are counted but not compared.

Exit status: 0 if there are no faults, 1 if there are faults, 2 if the check failed (missing folder, annotation file in
another format). Repair or download the files listed, or train with `--data.on_bad_image=skip`, which skips up to 1 % of
unusable images.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.data.annotations import Layout, read_entries
from visattn.data.inspection import (
    KINDS,
    TOO_LONG,
    Fault,
    LookAt,
    caption_faults,
    count_words,
    in_parallel,
    lost_words,
    picture_faults,
    word_faults,
)
from visattn.data.losses import MAX_UNKNOWN, WordCounts, WordLoss
from visattn.errors import InputError
from visattn.files import protect, require_file, write_text
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
    """Check a data set; see the module docstring.

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
    pictures = list(in_parallel(LookAt(folder, known), files, workers, "Checking"))
    faults = picture_faults(files, pictures) + caption_faults(entries, [s for _, some in read for s in some], longest)
    training = [entry for entry in read[0][0] if entry.split in (None, "train", "restval")]
    validation = [entry for entry in entries if entry.split == "val"] + [e for part, _ in read[1:] for e in part]
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


@program
def run(args: Sequence[str] | None = None) -> None:
    """Command-line entry point; raises `SystemExit(1)` if there are faults."""
    parser = command_parser("check-data", __doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--annotations", nargs="+", help="caption files, relative to --root or absolute")
    source.add_argument(
        "--shards",
        nargs="+",
        metavar="PATTERN",
        help="tar files, relative to --root or absolute, or pipe: commands, as in visattn.data.Shards: those for "
        "training, and those of other splits",
    )
    parser.add_argument(
        "--captions", help="with --shards: location of captions, txt or a key of the .json (default: txt)"
    )
    parser.add_argument(
        "--images", default="images", help="image folder, relative to --root or absolute (default: images)"
    )
    parser.add_argument(
        "--layout",
        choices=get_args(Layout),
        default="auto",
        help="format of the caption files (default: auto, detected from their content)",
    )
    parser.add_argument(
        "--longest", type=int, default=TOO_LONG, help=f"maximum number of words in a caption (default: {TOO_LONG})"
    )
    parser.add_argument(
        "--tokens",
        default="words",
        help="unit of the captions: words, characters or a tokenizer's JSON file (default: words)",
    )
    parser.add_argument("--min-count", type=int, default=5, help="--data.min_count used in training (default: 5)")
    parser.add_argument("--max-length", type=int, default=20, help="--data.max_length used in training (default: 20)")
    parser.add_argument(
        "--max-unknown",
        type=float,
        default=MAX_UNKNOWN,
        metavar="SHARE",
        help=f"share of words that may be unknown or cut off (default: {MAX_UNKNOWN})",
    )
    parser.add_argument("--checksums", type=Path, metavar="FILE", help="compare the images with these checksums")
    parser.add_argument(
        "--write-checksums", type=Path, metavar="FILE", help="write the checksums of the images to this file"
    )
    parser.add_argument("--workers", type=int, default=2, help="decoding processes (default: 2)")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write all faults and checksums to this file")
    options = parse(parser, args, "output", "write_checksums")
    check_ranges(options, workers=(0, 256), min_count=(1, 2**31), max_length=(1, 2**31), longest=(1, 2**31))
    if options.shards:
        for option in ("checksums", "write_checksums"):
            if getattr(options, option) is not None:
                raise InputError(f"--{option.replace('_', '-')} compares image files; use sha256sum on the shards")
        from visattn.data.tars import shards_of

        shards = (shard for pattern in options.shards for shard in shards_of(options.root, pattern, "--shards"))
        protect(shard for shard in shards if isinstance(shard, Path))
    else:
        if options.captions is not None:
            raise InputError("--captions is for --shards; the captions of --annotations are in those files")
        protect(options.root / name for name in options.annotations)
        protect(path for path in (options.root / options.images).rglob("*"))
    written = {"--output": options.output, "--write-checksums": options.write_checksums}
    for option, path in written.items():  # before the long work
        if path is not None:
            require_file(path, option)
    if len({path.resolve() for path in written.values() if path}) < len([path for path in written.values() if path]):
        raise InputError(f"--output and --write-checksums are both {options.output}; name two files")
    shared = {
        name: getattr(options, name)
        for name in ("longest", "workers", "tokens", "min_count", "max_length", "max_unknown")
    }
    if options.shards:
        report = check_shards(options.root, options.shards, options.captions or "txt", **shared)
    else:
        report = check(
            options.root, options.annotations, options.images, options.layout, checksums=options.checksums, **shared
        )
    print(summary(report))
    if options.output is not None:
        write_text(options.output, json.dumps(report, ensure_ascii=False, indent=1))
        print(f"full report: {options.output}")
    if options.write_checksums is not None:
        lines = (f"{digest}  {file}\n" for file, digest in report["sha256"].items())
        write_text(options.write_checksums, "".join(lines))
        print(f"checksums of {len(report['sha256'])} images: {options.write_checksums}")
    if report["faults"]:
        raise SystemExit(1)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    try:
        return run(args)
    except SystemExit as end:
        return int(end.code or 0)
