r"""Show the features that a Vision Transformer has of an image's patches, and whether some of them are artefacts.

    visattn features --checkpoint vit-cifar10 --output runs/features photo.jpg folder/
    visattn features --model timm:vit_small_patch14_dinov2 --weights FILE --image-size 224 224 --at 212,96 \
        --output runs/dinov2 photo.jpg
    visattn features --model hf:facebook/dinov2-with-registers-small --layer 8 --pca image --output runs/reg photo.jpg

The features of a layer are its block's output, in the residual stream, before the model's last norm. The models are
those of `visattn overlay` whose layers share one grid of patches; others (Swin, PVT, CaiT …) are refused.

For each image, the output folder receives two files.

    <stem>.png  a sheet with
        the original
        PCA: the first three principal components of the patches' features as red, green and blue, each scaled from its
            2nd to its 98th percentile; of all images together, so that a colour means the same in all, or of each alone
            (--pca image). A component's sign makes its entry of largest magnitude positive.
        similarity: with --at, the cosine of every patch's features and those of the patch at that pixel, framed
        norms: of the patches' features; framed are those above --artefacts times the image's median
        norms by layer: of the median and the largest patch, class and distillation token, and registers (their mean)
    <stem>.npz  `pca` (H, W, 3), coordinates; `colours` (H, W, 3), from 0 to 1; `components` (3, D), `mean` (D,) and
        `explained` (3,), their shares of the variance; `norms` (layers, H, W) of the patches and `prefix_norms`
        (layers, P) of the tokens before them; `artefacts` (H, W) bool; `layer`; with --at, `similarity` (H, W) and
        `asked`, the patch, counted row by row; `geometry` (5, 2) or (8, 2), see `visattn.images.Geometry`

`features.json` lists every image with its files and its numbers.

Artefacts are after Darcet et al. 2024, "Vision Transformers Need Registers": patches with about ten times the norm of
the others, which hold no content of their own. They part them by an absolute norm (150 for DINOv2 ViT-g); here it is
relative to the median, so that one number serves models with other norms. --test-time-registers moves them onto an
extra token (Jiang et al. 2025, "Vision Transformers Don't Need Trained Registers"); all that is shown is then of the
model with that token.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from visattn.cli.models import add_classifier_options, add_model_options, add_register_option
from visattn.cli.overlay import MAX_SIDE, pixel
from visattn.cli.program import add_image_argument, check_ranges, command_parser, parse, program
from visattn.files import protect
from visattn.images import Interpolation

OVER = ("run", "image")
ARTEFACT = 3.0  # as in visattn.explain.features, which loads torch


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("features", __doc__)
    add_image_argument(parser, "+")
    add_classifier_options(parser)
    parser.add_argument("--output", type=Path, required=True, help="output folder, created if missing")
    parser.add_argument("--layer", type=int, default=-1, help="layer to show, from 0 (default: -1, the last)")
    parser.add_argument(
        "--at",
        type=pixel,
        metavar="X,Y",
        help="show the similarity to the patch at this pixel of the original image; column and row from 0",
    )
    parser.add_argument(
        "--pca", choices=OVER, default="run", help="components of all images together, or of each (default: run)"
    )
    parser.add_argument(
        "--artefacts",
        type=float,
        default=ARTEFACT,
        metavar="TIMES",
        help=f"patches with norms above so many times the median are artefacts (default: {ARTEFACT:g})",
    )
    parser.add_argument(
        "--interpolation",
        choices=get_args(Interpolation),
        default="bilinear",
        help="interpolate between patches, or show them as blocks (default: bilinear, smooth)",
    )
    add_register_option(parser)
    parser.add_argument("--batch-size", type=int, default=8, help="images per batch (default: 8)")
    add_model_options(parser)
    options = parse(parser, args, "output")
    check_ranges(
        options, batch_size=(1, 65_536), image_size=(1, MAX_SIDE), artefacts=(1, 1e6), test_time_registers=(1, 10_000)
    )

    from visattn.images.reading import list_images
    from visattn.tasks.features import check_overwriting_of, feature_views
    from visattn.tasks.registers import choose_registered

    paths = list_images(options.images)
    protect(paths)
    check_overwriting_of(options.output, paths)  # before a model is downloaded
    subject = choose_registered(options, paths)
    entries = feature_views(
        subject,
        paths,
        options.output,
        layer=options.layer,
        at=options.at,
        over=options.pca,
        times=options.artefacts,
        interpolation=options.interpolation,
        batch_size=options.batch_size,
        device=options.device,
        precision=options.precision,
    )
    for entry in entries:
        print(f"{entry['image']}: {entry['verdict']}")
    print(f"features.json, sheets and arrays are in {options.output}")
