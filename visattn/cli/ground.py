r"""Is the attention where the word says? Scores a trained captioner on photographs whose things are outlined.

    visattn ground --checkpoint runs/flickr8k_soft/best.ckpt --root data/coco \
        --annotations annotations/captions_val2017.json --instances annotations/instances_val2017.json \
        --images val2017 --output runs/grounding.json

A word is scored where it names one of COCO's categories that is outlined in its image (`visattn.data.coco_words`). Two
rows: words of freely generated captions, and words of the references, given the true words before them. For each the
share of words whose largest weight points at the thing and the share of the weight that lies on it, beside what a
uniform and a centred map would get. Of a caption file with splits it takes the test images, or the validation images
where there are none; of a file without splits, such as COCO's own, all images. They should be no images that the
captioner was trained on.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from visattn.cli.models import add_model_options
from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.files import protect, require_file, write_text


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("ground", __doc__)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help="a captioner trained by 'visattn fit', or one that comes with visattn",
    )
    parser.add_argument("--root", type=Path, required=True, help="folder of the photographs' data set")
    parser.add_argument("--annotations", required=True, help="caption file, relative to --root or absolute")
    parser.add_argument("--instances", required=True, help="COCO's file of instances, likewise")
    parser.add_argument("--images", default="images", help="folder of the pictures, likewise (default: images)")
    parser.add_argument(
        "--fit", choices=("crop", "pad", "squash"), help="how a photograph becomes an input (default: as in training)"
    )
    parser.add_argument("--limit", type=int, help="at most so many images, the first of the file")
    parser.add_argument("--batch-size", type=int, default=32, help="images at a time (default: 32)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json", help="file for all numbers")
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
    write_text(options.output, json.dumps(result, ensure_ascii=False, indent=1))
    print(table(result["rows"]))
    for name, row in result["rows"].items():
        if not row["words"]:
            print(NOTES[name])
    if result["categories"]:
        most = ", ".join(f"{name} {count}" for name, count in list(result["categories"].items())[:8])
        print(f"the references' words name most often: {most}")
    if result["unknown_words"]:
        print(f"{result['unknown_words']} more of the references' words are unknown to the model and are not scored")
    tested, scored = result["images"].values()
    print(f"{tested} images, {scored} of them with a reference that was scored; all numbers are in {options.output}")
