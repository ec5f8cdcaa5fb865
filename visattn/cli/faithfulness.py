r"""Does the attention map matter? Deletion and insertion by it, beside maps that know nothing; captions without it.

    visattn faithfulness --checkpoint runs/cifar10_vit/best.ckpt --output runs/faithful photo.jpg folder/
    visattn faithfulness --checkpoint runs/shapes_captioner/best.ckpt --output runs/faithful --data shapes
    visattn faithfulness --checkpoint runs/flickr8k_soft/best.ckpt --output runs/faithful --data photographs \
        --root data/flickr8k --annotations dataset_flickr8k.json --split val

**Curves** (RISE; see `visattn/explain/faithfulness.py`). The image is taken away in the order of a map, down to the
grey that is 0 in normalised space, and brought in over a blurred image. Of a classifier: the probability of the class
that it gives the whole image, by its attention, rollout, gradient rollout and relevance. Of a captioner: the
log-probability, in nats, of each word of its greedy caption after the caption's own words before it, by that word's α
and by its relevance; for all words, and for those that need the image, which of the grey picture are at most half as
likely. Beside them random maps and the distance to the centre.

**Ablation**, of a captioner: α of every word replaced by the uniform one, or moved to other places by a permutation
(`visattn/attention/ablated.py`): the log-probability of references and of the model's own captions, in nats per token
with the end counted, and CIDEr-D of greedy captions against the references, on the data's own tokens.

Writes to the output folder `faithfulness.png`, the tables (`faithfulness.md`) and all numbers (`faithfulness.json`).
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.models import add_model_options
from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.files import protect, require_free

METHODS = ("raw", "rollout", "gradient-rollout", "relevance", "attention")
UNITS = ("pixels", "cells")
SUBSTRATES = ("blur", "grey")


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("faithfulness", __doc__)
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE|FOLDER", help="image files, and folders of them")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="a model of 'visattn fit', or one that comes with visattn"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for what is written; made where missing")
    parser.add_argument(
        "--data", choices=("shapes", "photographs", "cifar10", "cifar100"), help="a data set in place of images"
    )
    parser.add_argument("--root", type=Path, help="folder of the data set")
    parser.add_argument("--annotations", help="of photographs: the caption file, relative to --root or absolute")
    parser.add_argument("--pictures", default="images", help="likewise, the folder of the pictures (default: images)")
    parser.add_argument(
        "--method",
        action="append",
        choices=METHODS,
        help="a map to judge, and more by another --method (default: all that there are)",
    )
    parser.add_argument("--split", choices=("val", "test"), help="of the data set (default: test, else val)")
    parser.add_argument("--limit", type=int, default=100, help="at most so many images, the first (default: 100)")
    parser.add_argument("--curves", type=int, help="for the curves, which take longest, at most so many of them")
    parser.add_argument("--steps", type=int, default=32, help="of a curve (default: 32)")
    parser.add_argument(
        "--units",
        choices=UNITS,
        default="pixels",
        help="take pixel by pixel, the map interpolated, or all of a cell at once (default: pixels)",
    )
    parser.add_argument(
        "--insert-from", choices=SUBSTRATES, default="blur", help="what insertion begins with (default: blur)"
    )
    parser.add_argument("--seeds", type=int, default=5, help="random maps an image, and shuffles of α (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--batch-size", type=int, default=32, help="images at once (default: 32)")
    parser.add_argument("--title", help="a line above the figure (default: the checkpoint's name)")
    add_model_options(parser, precision="32")
    options = parse(parser, args, "output")
    check_ranges(options, batch_size=(1, 65_536), steps=(1, 10_000), seeds=(1, 10_000), seed=(0, 2**32 - 1))

    from visattn.images.reading import list_images
    from visattn.tasks.faithfulness import inputs_of, measure

    protect(list_images(options.images))
    protect(inputs_of(options))
    require_free(options.output / f"faithfulness.{suffix}" for suffix in ("json", "md", "png"))
    found = measure(options)
    print(found)
    print(f"\nfigure, tables and numbers are in {options.output}")
