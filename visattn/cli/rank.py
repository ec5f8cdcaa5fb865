r"""Rank attention maps: score every method, random maps and the centre on the same images.

    visattn rank --checkpoint vit-cifar10 --data cifar10 --root data/cifar10 --limit 300 --output runs/rank
    visattn rank --checkpoint runs/shapes_vit/best.ckpt --data shapes --insert-from grey --output runs/rank
    visattn rank --timm vit_small_patch14_dinov2 --weights FILE --classes names.txt --image-size 224 224 \
        --instances annotations/instances_val2017.json --output runs/rank photos/

The class explained is the one predicted. Scores, each with its 95% bootstrap interval over the images:

    deletion    probability of the class, mean over the image's removal in the order of the map; lower is better (RISE)
    insertion   the same while it is restored; higher is better
    SaCo        whether more salient groups of pixels cost more probability when they alone are removed, from −1 to 1,
                0 for random maps (Wu et al., CVPR 2024)
    pointing    how often the largest value is on the outlined thing, within 15 pixels at 224
    mass        the share of the map, as far as it is positive, that lies on it
    random ρ    rank correlation with the map after all weights of the model are shuffled (Adebayo et al. 2018); a map
                that stays the same does not show what was learnt
    inferences  processor time (on a GPU, time) of a map as a multiple of a plain inference's

Outlines: --data shapes knows them; images need --instances, in COCO's format, and class names that are its categories.

Writes a table (`rank.md`), all numbers (`rank.json`) and a figure (`rank.png`).
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.deletion import add_curve_options
from visattn.cli.models import add_classifier_options, add_model_options
from visattn.cli.overlay import MAX_SIDE, METHODS
from visattn.cli.program import add_image_argument, check_ranges, command_parser, parse, program
from visattn.files import protect, require_free

DATA = ("shapes", "cifar10", "cifar100")


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("rank", __doc__)
    add_image_argument(parser, "*")
    add_classifier_options(parser)
    parser.add_argument("--output", type=Path, required=True, help="output folder, created if missing")
    parser.add_argument("--data", choices=DATA, help="data set to use instead of images")
    parser.add_argument("--root", type=Path, help="folder of the data set")
    parser.add_argument("--instances", type=Path, metavar="FILE", help="outlines of the things in the images")
    parser.add_argument("--split", choices=("val", "test"), help="split of the data set (default: test)")
    parser.add_argument("--limit", type=int, default=200, help="use only the first N images (default: 200)")
    parser.add_argument(
        "--method", action="append", choices=METHODS, help="map to rank; can be repeated (default: all that apply)"
    )
    parser.add_argument("--groups", type=int, default=10, help="groups of SaCo (default: 10)")
    add_curve_options(parser, 16, "random maps per image", "the model's name")
    add_model_options(parser, precision="32")
    options = parse(parser, args, "output")
    check_ranges(options, batch_size=(1, 65_536), steps=(1, 10_000), groups=(2, 10_000), seeds=(1, 10_000))
    check_ranges(options, seed=(0, 2**32 - 1), limit=(1, 10**6), image_size=(1, MAX_SIDE))

    from visattn.images.reading import list_images
    from visattn.tasks.rank import rank

    protect(list_images(options.images))
    require_free(options.output / f"rank.{suffix}" for suffix in ("json", "md", "png"))
    print(rank(options))
    print(f"\nfigure, table and numbers are in {options.output}")
