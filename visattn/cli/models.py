"""Options of every command that runs a model: classes of the user's own, the device, the precision."""

import argparse

IMPORT = "a Python file or module with attention, decoder or encoder classes of your own; may be given several times"
PRECISIONS = ("auto", "32", "bf16")


def add_model_options(parser: argparse.ArgumentParser, precision: str = "auto") -> None:
    """Add `--import`, `--device` and `--precision`.

    Args:
        parser: of the command.
        precision: its default.
    """
    add_import_option(parser)
    parser.add_argument(
        "--device",
        default="auto",
        metavar="auto|cpu|cuda|mps",
        help="where the model runs; cuda:1 is the second GPU (default: auto, an accelerator where there is one)",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=precision,
        help=f"float32, bfloat16 where products are computed, or auto: bf16 where the hardware multiplies in it "
        f"(default: {precision})",
    )


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """Add `--import` alone."""
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="FILE|MODULE", help=IMPORT)
