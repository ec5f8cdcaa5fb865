"""Options shared by the commands that run a model: custom classes, device, precision."""

import argparse

IMPORT = "Python file or module that defines your own attention, decoder or encoder classes; can be repeated"
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


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """Add only `--import`."""
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="FILE|MODULE", help=IMPORT)
