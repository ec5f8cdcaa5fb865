r"""Test whether attention maps show what the model used: deletion and insertion curves, and captions without attention.

    visattn faithfulness --checkpoint runs/cifar10_vit/best.ckpt --output runs/faithful photo.jpg folder/
    visattn faithfulness --checkpoint runs/shapes_captioner/best.ckpt --output runs/faithful --data shapes
    visattn faithfulness --checkpoint runs/flickr8k_soft/best.ckpt --output runs/faithful --data photographs \
        --root data/flickr8k --annotations dataset_flickr8k.json --split val

**Curves** (RISE; see `visattn/explain/faithfulness.py`). Deletion replaces the image, in the order of a map, with the
grey that is 0 in normalised space; insertion restores it over a blurred image. For a classifier: the probability of the
class predicted for the whole image, with maps from attention, rollout, gradient rollout and relevance. For a captioner:
the log-probability, in nats, of each word of its greedy caption given the words before it, with that word's α and
relevance as maps; for all words, and for the words that need the image (at most half as likely given a grey image).
Random maps and the distance to the centre are the baselines.

**Ablation**, captioners only: α of every word is made uniform, or its places are permuted
(`visattn/attention/ablated.py`). Reports the log-probability of references and of the model's own captions, in nats per
token including the end token, and CIDEr-D of greedy captions against the references, on the data's own tokens.

Writes a figure (`faithfulness.png`), tables (`faithfulness.md`) and all numbers (`faithfulness.json`).
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.deletion import add_curve_options
from visattn.cli.models import EXPORTED, add_model_options
from visattn.cli.program import add_image_argument, check_ranges, command_parser, parse, program
from visattn.files import protect, require_free

METHODS = ("raw", "rollout", "gradient-rollout", "relevance", "attention")


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("faithfulness", __doc__)
    add_image_argument(parser, "*")
    parser.add_argument("--checkpoint", type=Path, required=True, help=f"model trained by 'visattn fit', {EXPORTED}")
    parser.add_argument("--output", type=Path, required=True, help="output folder, created if missing")
    parser.add_argument(
        "--data", choices=("shapes", "photographs", "cifar10", "cifar100"), help="data set to use instead of images"
    )
    parser.add_argument("--root", type=Path, help="folder of the data set")
    parser.add_argument("--annotations", help="with --data photographs: caption file, relative to --root or absolute")
    parser.add_argument(
        "--pictures",
        default="images",
        help="with --data photographs: image folder, relative to --root or absolute (default: images)",
    )
    parser.add_argument(
        "--method",
        action="append",
        choices=METHODS,
        help="map to evaluate; can be repeated (default: all that apply)",
    )
    parser.add_argument("--split", choices=("val", "test"), help="split of the data set (default: test, or else val)")
    parser.add_argument("--limit", type=int, default=100, help="use only the first N images (default: 100)")
    parser.add_argument("--curves", type=int, help="use only the first N of them for the curves, the slowest part")
    add_curve_options(parser, 32, "random maps per image, and permutations of α", "the checkpoint's name")
    add_model_options(parser, precision="32")
    options = parse(parser, args, "output")
    check_ranges(options, batch_size=(1, 65_536), steps=(1, 10_000), seeds=(1, 10_000), seed=(0, 2**32 - 1))
    check_ranges(options, limit=(1, 2**63), curves=(1, 2**63))

    from visattn.images.reading import list_images
    from visattn.tasks.faithfulness import inputs_of, measure

    protect(list_images(options.images))
    protect(inputs_of(options))
    require_free(options.output / f"faithfulness.{suffix}" for suffix in ("json", "md", "png"))
    found = measure(options)
    print(found)
    print(f"\nfigure, tables and numbers are in {options.output}")
