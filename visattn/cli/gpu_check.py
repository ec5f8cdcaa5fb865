"""Check and measure visattn on a GPU, in at most nine minutes, without a network; run it from a checkout.

    visattn gpu-check --data data/cifar10

In this order, each part as a process of its own with its own limit of time:

    tests        tests/gpu: mechanisms, kernels, compilation, NCCL, resuming, export (2 minutes)
    vit … reward the benchmarks vit, captioner, decoding, maps and reward, in bfloat16 (3 minutes in all)
    cifar_60s    configs/cifar10/gpu_60s, seed 0 (1 minute, and ¾ to start, compile and test)
    cifar_5min   configs/cifar10/gpu_5min for the rest of the time, with as many epochs as fit into it

Every part that ends is printed as a line of JSON and added to `results.jsonl`; `results.md` has a table, `logs/` what
each part said. A part that fails or takes too long does not stop the others; the exit status is then 1. CIFAR-10 is
read from `part_0.npz`, `part_1.npz` … (`images` (n, 32, 32, 3) uint8, `labels`, `test` bool) or torchvision's files.

`--device cpu --quick` runs everything in a tiny form, only to check that it runs; its numbers are meaningless.
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import check_ranges, command_parser, parse, program

PARTS = ("tests", "vit", "captioner", "decoding", "maps", "reward", "cifar_60s", "cifar_5min")


@program
def main(args: Sequence[str] | None = None) -> int:
    """Command-line entry point; 1 if a part failed."""
    parser = command_parser("gpu-check", __doc__ or "")
    parser.add_argument(
        "--data", type=Path, default=Path("data/cifar10"), help="folder of CIFAR-10 (default: data/cifar10)"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where to run (default: cuda)")
    parser.add_argument("--quick", action="store_true", help="use tiny sizes; the numbers are meaningless")
    parser.add_argument(
        "--minutes",
        type=float,
        default=9.0,
        help="total time in minutes; the limits of the parts scale with it (default: 9)",
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (default: all)")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/gpu_check"), help="output folder (default: runs/gpu_check)"
    )
    options = parse(parser, args, "output")
    check_ranges(options, minutes=(0.1, 600))

    from visattn.tasks.gpu_check import Check, require_data

    if any(part.startswith("cifar") for part in options.parts):
        require_data(options.data)
    check = Check(options.output, options.data, options.device, options.quick, 60 * options.minutes)
    return 0 if check.run(options.parts) else 1
