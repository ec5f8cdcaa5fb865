"""Options shared by the commands that run a model: custom classes, device, precision."""

import argparse
from pathlib import Path

IMPORT = "Python file or module that defines your own attention, decoder or encoder classes; can be repeated"
EXPORTED = "a folder written by 'visattn export', an included model, or hf:ORG/NAME[@REVISION] on the hub"
PRECISIONS = ("auto", "32", "bf16")


def add_model_options(parser: argparse.ArgumentParser, precision: str = "auto") -> None:
    """Add `--import`, `--device` and `--precision`.

    Args:
        parser: the command's parser.
        precision: default precision.
    """
    add_import_option(parser)
    parser.add_argument(
        "--device",
        default="auto",
        metavar="auto|cpu|cuda|mps",
        help="device to run on; cuda:1 is the second GPU (default: auto, an accelerator if there is one)",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=precision,
        help="float32; bf16 (bfloat16 autocast); or auto, bf16 if the hardware has bfloat16 arithmetic "
        f"(default: {precision})",
    )


def add_classifier_options(
    parser: argparse.ArgumentParser, trained: str = "classifier", default: str | None = None
) -> None:
    """Add the options that choose a classifier: a checkpoint, or a library's model.

    Args:
        parser: the command's parser.
        trained: which models a checkpoint may have.
        default: the model that is used if none is chosen; by default one must be.
    """
    model = parser.add_mutually_exclusive_group(required=default is None)
    model.add_argument(
        "--checkpoint",
        type=Path,
        help=f"{trained} trained by 'visattn fit', {EXPORTED}" + (f" (default: {default})" if default else ""),
    )
    model.add_argument(
        "--model", metavar="LIBRARY:NAME", help="hf:NAME, hf:FOLDER, torchvision:NAME, open_clip:NAME or timm:NAME"
    )
    model.add_argument("--timm", metavar="NAME", help="model from timm, such as vit_small_patch16_224")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights of the library's model: a file with its keys, or 'random' (default: pretrained, downloaded)",
    )
    parser.add_argument("--classes", type=Path, metavar="FILE", help="class names of the library's model, one per line")
    parser.add_argument(
        "--image-size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="input size of the library's model (default: from its configuration)",
    )


def add_register_option(parser: argparse.ArgumentParser) -> None:
    """Add `--test-time-registers`."""
    parser.add_argument(
        "--test-time-registers",
        type=int,
        metavar="NEURONS",
        help="move outlier norms of patches onto an extra token (Jiang et al. 2025) for so many neurons, found in the "
        "first 64 of the images; try 10",
    )


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """Add only `--import`."""
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="FILE|MODULE", help=IMPORT)
