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
another format). Repair or download the files listed, or train with `--data.on_bad_image=skip`, which skips up to 1% of
unusable images.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.data.annotations import Layout
from visattn.data.inspection import TOO_LONG
from visattn.data.losses import MAX_UNKNOWN
from visattn.errors import InputError
from visattn.files import protect, require_file, write_json, write_text


@program
def main(args: Sequence[str] | None = None) -> int:
    """Command-line entry point; 1 if there are faults."""
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

    from visattn.tasks.check_data import check, check_shards, summary

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
        write_json(options.output, report)
        print(f"full report: {options.output}")
    if options.write_checksums is not None:
        lines = (f"{digest}  {file}\n" for file, digest in report["sha256"].items())
        write_text(options.write_checksums, "".join(lines))
        print(f"checksums of {len(report['sha256'])} images: {options.write_checksums}")
    return 1 if report["faults"] else 0
