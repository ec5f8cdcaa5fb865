"""Download COCO with its captions, check it, and arrange it as the configurations expect.

    visattn prepare-coco --root data/coco                   # the Karpathy splits, as most papers do
    visattn prepare-coco --root data/coco2017 --set 2017    # COCO's own splits of 2017
    visattn prepare-coco --root data/coco --only captions   # no images

The Karpathy splits (5,000 images each for validation and test, 113,287 for training) are a file by Andrej Karpathy that
covers the images of 2014; --set 2017 has the same images under other names. Interrupted downloads resume. Archives are
checked against their known MD5 sums; the splits file has no published sum. Free space needed: about twice the size of
the largest archive in addition to the unpacked files, unless archives are kept (--keep-archives).

Afterwards the root contains `dataset_coco.json` (Karpathy splits only), `annotations/` (captions and instances) and
`images/`. COCO's annotations are licensed under CC BY 4.0, its images under the terms of Flickr
(https://cocodataset.org/#termsofuse).
"""

import re
from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import command_parser, program
from visattn.errors import InputError


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("prepare-coco", __doc__)
    parser.add_argument(
        "--root", type=Path, default=Path("data/coco"), help="folder of the data set (default: data/coco)"
    )
    parser.add_argument(
        "--set", choices=("karpathy", "2017"), default="karpathy", help="splits to use (default: karpathy)"
    )
    parser.add_argument("--only", choices=("captions", "images"), help="download only this part (default: both)")
    parser.add_argument("--mirror", help="address to download COCO's archives from, instead of COCO's own")
    parser.add_argument("--keep-archives", action="store_true", help="keep zip files after unpacking")
    options = parser.parse_args(args)

    from visattn.tasks.prepare_coco import SETS, prepare

    parts = SETS[options.set]
    archives = [archive for part in ([options.only] if options.only else parts) for archive in parts[part]]
    if options.mirror:
        archives = [archive._replace(site=options.mirror.rstrip("/")) for archive in archives]
        if not re.match(r"(https?|file)://", options.mirror):
            raise InputError(f"--mirror is '{options.mirror}'; it must start with https:// or file://")
    for name, count in prepare(options.root, archives, options.keep_archives).items():
        print(f"{name}: {count:,} files")
    print(f"COCO is in {options.root}; train with --config configs/coco_soft.yaml --data.root {options.root}")
