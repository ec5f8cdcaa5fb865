r"""Test whether a captioner looks at what it names, and whether that is there, on photographs with annotated objects.

    visattn ground --checkpoint runs/flickr8k_soft/best.ckpt --root data/coco \
        --annotations annotations/captions_val2017.json --instances annotations/instances_val2017.json \
        --images val2017 --output runs/grounding.json

A word is scored if it names a COCO category that is outlined in the image (`visattn.data.coco_words`). The table has
two rows: words of generated captions, and words of the references, given the true words before them. Each row has the
share of words whose largest weight is on the object and the share of the weight that lies on it, next to the values of
a uniform and a centred map.

Below is CHAIR (Rohrbach et al. 2018): the share of the named objects that are not in the photograph, that is neither
annotated there nor named in its references, and the share of captions that name such an object; and how many of the
categories in the photographs are named. --output lists those captions.

Uses the test images of a caption file with splits, or its validation images if it has no
test split, and all images of a file without splits, such as COCO's own. The captioner should not have been trained on
them.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from visattn.cli.models import EXPORTED, add_model_options
from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.files import protect, require_file, write_json


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("ground", __doc__)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help=f"captioner trained by 'visattn fit', {EXPORTED}",
    )
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--annotations", required=True, help="caption file, relative to --root or absolute")
    parser.add_argument("--instances", required=True, help="COCO instances file, relative to --root or absolute")
    parser.add_argument(
        "--images", default="images", help="image folder, relative to --root or absolute (default: images)"
    )
    parser.add_argument(
        "--fit",
        choices=("crop", "pad", "squash"),
        help="how images are fitted to the model's input (default: as in training)",
    )
    parser.add_argument("--limit", type=int, help="use only the first N images of the file")
    parser.add_argument("--batch-size", type=int, default=32, help="images per batch (default: 32)")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE.json", help="write all numbers to this file"
    )
    add_model_options(parser)
    options = parse(parser, args, "output")
    check_ranges(options, batch_size=(1, 65_536), limit=(1, 2**31))
    protect(options.root / name for name in (options.annotations, options.instances))
    protect(path for path in (options.root / options.images).rglob("*"))
    require_file(options.output)

    from visattn.tasks.ground import NOTES, ground, table

    result = ground(
        options.checkpoint,
        options.root,
        options.annotations,
        options.instances,
        options.images,
        fit=options.fit,
        limit=options.limit,
        batch_size=options.batch_size,
        device=options.device,
        precision=options.precision,
    )
    write_json(options.output, result)
    print(table(result["rows"]))
    for name, row in result["rows"].items():
        if not row["words"]:
            print(NOTES[name])
    if result["categories"]:
        most = ", ".join(f"{name} {count}" for name, count in list(result["categories"].items())[:8])
        print(f"categories most often named by the references: {most}")
    if result["unknown_words"]:
        print(f"{result['unknown_words']} more words of the references are unknown to the model and were not scored")
    if "CHAIR-i" in (found := result["objects"]):
        print(
            f"named but not in the photograph: {found['CHAIR-i']:.1%} of {round(found['mentions'] * found['images'])} "
            f"objects (CHAIR-i), in {found['CHAIR-s']:.1%} of {found['images']} captions (CHAIR-s); captions name "
            f"{found.get('object_recall', math.nan):.1%} of the categories there"
        )
    tested, scored = result["images"].values()
    print(f"{tested} images, {scored} of them with a scored reference; all numbers are in {options.output}")
