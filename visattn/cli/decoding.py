"""Options of how captions are decoded."""

import argparse


def add_decoding_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that `visattn.tasks.decoding.search_of` reads, `--no-repeat` and `--max-length`.

    All are None if left out.
    """
    parser.add_argument(
        "--decode",
        choices=("greedy", "beam", "sample"),
        help="decoding method: the likeliest word at each step, beam search, or sampling (default: the checkpoint's, "
        "or beam if --beam is given); its options that are left out are the checkpoint's too if it decodes so, and "
        "otherwise have the defaults that stand here",
    )
    parser.add_argument("--beam", type=int, help="beam size (default: 5)")
    parser.add_argument(
        "--length-penalty",
        type=float,
        help="beam search ranks captions by log p / n^PENALTY, where n counts the words and the end token; 0 favours "
        "short captions (default: 0.7)",
    )
    parser.add_argument(
        "--caution",
        type=float,
        metavar="WEIGHT",
        help="beam search adds WEIGHT times the log-probability of the least probable object named to the rank, "
        "since such an object is often not in the image; for English captions (default: 0)",
    )
    parser.add_argument(
        "--temperature", type=float, help="sampling temperature; below 1 favours likely words (default: 1)"
    )
    parser.add_argument("--top-k", type=int, help="sample from the K likeliest words; 0 for all (default: 0)")
    parser.add_argument(
        "--top-p", type=float, help="sample from the likeliest words that together have probability P (default: 1)"
    )
    parser.add_argument(
        "--no-repeat",
        type=int,
        metavar="N",
        help="never repeat an N-gram; 0 for off (default: the checkpoint's)",
    )
    parser.add_argument("--max-length", type=int, help="maximum number of words (default: as in training)")
