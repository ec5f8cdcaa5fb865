"""Options of deletion and insertion, shared by the commands that measure maps so."""

import argparse

UNITS = ("pixels", "cells")
SUBSTRATES = ("blur", "grey")


def add_curve_options(parser: argparse.ArgumentParser, steps: int, seeded: str, titled: str) -> None:
    """Add `--steps`, `--units`, `--insert-from`, `--seeds`, `--seed`, `--batch-size` and `--title`.

    Args:
        parser: the command's parser.
        steps: default number of steps.
        seeded: what there are `--seeds` of.
        titled: the default title.
    """
    parser.add_argument("--steps", type=int, default=steps, help=f"steps of a curve (default: {steps})")
    parser.add_argument(
        "--units",
        choices=UNITS,
        default="pixels",
        help="remove or insert single pixels, by the interpolated map, or whole cells (default: pixels)",
    )
    parser.add_argument(
        "--insert-from", choices=SUBSTRATES, default="blur", help="starting image of insertion (default: blur)"
    )
    parser.add_argument("--seeds", type=int, default=5, help=f"{seeded} (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="first random seed (default: 0)")
    parser.add_argument("--batch-size", type=int, default=32, help="images per batch (default: 32)")
    parser.add_argument("--title", help=f"title of the figure (default: {titled})")
