r"""What is wrong with a captioned data set: looks at every picture and every caption, and lists every fault.

    visattn check-data --root data/flickr8k --annotations dataset_flickr8k.json --output report.json
    visattn check-data --root data/coco --images train2017 --annotations annotations/captions_train2017.json \
        --workers 8

Pictures: missing; that cannot be read; of an odd size (more than 80 million pixels, a side more than 100 times the
other, a side of less than 16 pixels); of the same bytes as another. Captions: images without any, image ids that stand
twice, captions that are no text, have no word, or have more than --longest words, captions of no image (of these a part
of COCO has many, when it comes with the captions of the whole: COCO's layout counts them in one line).

Words: how many a model would not see that is trained on this, since they occur less than --min-count times in training
or stand behind --max-length words, or since whole phrases count as one word; a fault above --max-unknown. Of several
caption files the first is that of training, and so are the splits train and restval of a file with splits.

Bits that have rotted leave most JPEGs readable. To find them, keep checksums while the data is well, and compare later:

    visattn check-data --root data/flickr8k --annotations dataset_flickr8k.json --write-checksums sums.txt
    visattn check-data --root data/flickr8k --annotations dataset_flickr8k.json --checksums sums.txt

The file of checksums is that of `sha256sum`, names relative to the folder of images. Pictures that it does not name are
not compared, and counted.

Exit status: 0 where there is no fault, 1 where there are faults, 2 where the check could not be made (no such folder,
an annotation file of another layout). What to do: mend or fetch again what is named, or train with
`--data.on_bad_image=skip`, which leaves pictures out that cannot be used, up to 1 %.
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
    in_parallel,
    lost_words,
    picture_faults,
    word_faults,
)
from visattn.data.losses import MAX_UNKNOWN
from visattn.errors import InputError
from visattn.files import protect, require_file, write_text
from visattn.vocabulary import read_tokens

SHOWN = 10  # faults of a kind that are printed


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
    """Look at a data set; see the head of this file.

    Args:
        root: folder of the data set; the next two are relative to it or absolute.
        annotations: the caption files; pictures and ids of all are compared.
        images: folder of the pictures.
        layout: of the caption files.
        longest: words that a caption may have.
        checksums: of the pictures as they should be.
        workers: processes that decode; 0 decodes in this one.
        tokens: what captions are made of, as `Photographs` takes it.
        min_count: a word that occurs less often in the training captions is unknown.
        max_length: words of a caption that a model sees.
        max_unknown: the share of words that may be unknown or cut off.

    Returns:
        What the report holds: `faults` (kind, where, what), `counts` of each kind, `notes` (words that are lost, but
        few), `images`, `captions`, `pictures` (files that were looked at), `compared` (with a checksum) and `sha256` of
        each file.

    Raises:
        InputError: where the check cannot be made.
    """
    folder = root / images
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --images is where the pictures lie, relative to --root")
    known = {} if checksums is None else read_checksums(checksums)
    spec = read_tokens(tokens, root).spec
    read = [read_entries(root / name, layout, spec) for name in annotations]
    entries = [entry for part, _ in read for entry in part]
    files = list(dict.fromkeys(entry.file for entry in entries))
    pictures = list(in_parallel(LookAt(folder, known), files, workers, "Looking"))
    faults = picture_faults(files, pictures) + caption_faults(entries, [s for _, some in read for s in some], longest)
    training = [entry for entry in read[0][0] if entry.split in (None, "train", "restval")]
    validation = [entry for entry in entries if entry.split == "val"] + [e for part, _ in read[1:] for e in part]
    losses = lost_words(training, validation, spec, min_count, max_length)
    faults += word_faults(losses, max_unknown)
    return {
        "root": str(root),
        "annotations": list(annotations),
        "images": len(entries),
        "captions": sum(len(entry.captions) for entry in entries),
        "pictures": len(files),
        "compared": len(known.keys() & set(files)),
        "notes": [loss.sentence for loss in losses if loss.least <= max_unknown],
        "counts": dict(Counter(fault.kind for fault in faults)),
        "faults": [fault._asdict() for fault in faults],
        "sha256": {file: p.digest for file, p in zip(files, pictures, strict=True) if p.digest is not None},
    }


def read_checksums(path: Path) -> dict[str, str]:
    """Digest by file, of what `sha256sum` wrote.

    Raises:
        InputError: where the file is missing or of another kind.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a file of checksums: {error}") from error
    sums = {}
    for number, line in enumerate(lines, 1):
        match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)", line)
        if not match:
            raise InputError(f"{path}, line {number}, is no line of sha256sum (a digest, two spaces, a name)")
        sums[match[2]] = match[1].lower()
    return sums


def summary(report: dict[str, Any]) -> str:
    """The report as text for a terminal: what was looked at, and the first faults of each kind."""
    lines = [
        f"{report['images']} images with {report['captions']} captions, {report['pictures']} pictures looked at, "
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
    return "\n".join(lines if faults else [*lines, "no fault found"])


@program
def run(args: Sequence[str] | None = None) -> None:
    """The command line, and `SystemExit(1)` where there are faults."""
    parser = command_parser("check-data", __doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--annotations", nargs="+", required=True, help="caption files, relative to --root or absolute")
    parser.add_argument("--images", default="images", help="folder of the pictures, likewise (default: images)")
    parser.add_argument(
        "--layout", choices=get_args(Layout), default="auto", help="of the caption files (default: by their content)"
    )
    parser.add_argument(
        "--longest", type=int, default=TOO_LONG, help=f"words that a caption may have (default: {TOO_LONG})"
    )
    parser.add_argument(
        "--tokens",
        default="words",
        help="what captions are made of: words, characters or a tokenizer's JSON file (default: words)",
    )
    parser.add_argument("--min-count", type=int, default=5, help="as --data.min_count of training (default: 5)")
    parser.add_argument("--max-length", type=int, default=20, help="as --data.max_length of training (default: 20)")
    parser.add_argument(
        "--max-unknown",
        type=float,
        default=MAX_UNKNOWN,
        metavar="SHARE",
        help=f"of words that may be unknown or cut off (default: {MAX_UNKNOWN})",
    )
    parser.add_argument("--checksums", type=Path, metavar="FILE", help="compare the pictures with these checksums")
    parser.add_argument(
        "--write-checksums", type=Path, metavar="FILE", help="write the checksums of the pictures that are there"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that decode (default: 2)")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="file for all faults and checksums")
    options = parse(parser, args, "output", "write_checksums")
    check_ranges(options, workers=(0, 256), min_count=(1, 2**31), max_length=(1, 2**31), longest=(1, 2**31))
    protect(options.root / name for name in options.annotations)
    protect(path for path in (options.root / options.images).rglob("*"))
    written = {"--output": options.output, "--write-checksums": options.write_checksums}
    for option, path in written.items():  # before the long work
        if path is not None:
            require_file(path, option)
    if len({path.resolve() for path in written.values() if path}) < len([path for path in written.values() if path]):
        raise InputError(f"--output and --write-checksums are both {options.output}; name two files")
    report = check(
        options.root,
        options.annotations,
        options.images,
        options.layout,
        options.longest,
        options.checksums,
        options.workers,
        options.tokens,
        options.min_count,
        options.max_length,
        options.max_unknown,
    )
    print(summary(report))
    if options.output is not None:
        write_text(options.output, json.dumps(report, ensure_ascii=False, indent=1))
        print(f"all of it is in {options.output}")
    if options.write_checksums is not None:
        lines = (f"{digest}  {file}\n" for file, digest in report["sha256"].items())
        write_text(options.write_checksums, "".join(lines))
        print(f"checksums of {len(report['sha256'])} pictures are in {options.write_checksums}")
    if report["faults"]:
        raise SystemExit(1)


def main(args: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    try:
        return run(args)
    except SystemExit as end:
        return int(end.code or 0)
