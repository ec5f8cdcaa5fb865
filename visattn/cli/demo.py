"""Train two small models and show their attention: a few minutes on two cores, nothing to download.

    visattn demo

Trains a captioner with soft attention on generated scenes of shapes, captions unseen scenes, scores the captions, and
checks whether they are true and whether attention was on the object named. Then trains a small Vision Transformer to
classify the colour of the large shape, and captions a photograph with captioner-flickr8k. Writes a page, `index.html`,
with the overlays, the checkpoints and `results.json`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import check_ranges, command_parser, parse, program


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("demo", __doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="output folder (default: runs/demo)")
    parser.add_argument("--count", type=int, default=8, help="scenes of each kind on the page (default: 8)")
    parser.add_argument(
        "--options",
        nargs=argparse.REMAINDER,
        default=[],
        help="pass all following arguments to both training runs, for example --trainer.max_epochs=1",
    )
    options = parse(parser, args, "output")
    check_ranges(options, count=(1, 150))

    from visattn.tasks.demo import demo, share

    results = demo(options.output, options.count, options.options)
    captions, classes = results["captioner"]["test"], results["vit"]["test"]
    out = options.output
    print(
        f"""
Done in {results["minutes"]:.1f} minutes.
  captions   {captions["true"]:.0%} true, CIDEr-D {captions["CIDEr-D"]:.2f}, BLEU-4 {captions["BLEU-4"]:.2f} \
on unseen scenes
  attention  on the named object for {share(captions["grounding_pointing"])} of the words \
(a random place: {share(captions["grounding_pointing_uniform"])})
  classes    {classes["accuracy"]:.1%} right

Open         {out / "index.html"}
Then try     uv run visattn caption photo.jpg
             uv run visattn caption --checkpoint {out}/captioner/best.ckpt --output runs/mine IMAGE…
             uv run visattn overlay --checkpoint {out}/vit/best.ckpt --output runs/mine IMAGE…
             uv run visattn --help"""
    )
