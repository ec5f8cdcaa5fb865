"""Write one HTML page in which a Vision Transformer itself runs, to play with and to learn from.

    visattn explain-page --checkpoint vit-cifar10 --output vit.html
    visattn explain-page --checkpoint runs/cifar10_vit/best.ckpt --images photo.jpg folder/ --output vit.html

Open the file in a browser; it fetches nothing. Drop, paste, choose or draw a picture to see its classes, the attention
of every layer and head, what any patch attends to, rollout and relevance; erase parts of it and watch classes and maps
change; or take the tour. Weights are stored in half precision; by how much that changes the logits is printed.

The page runs classifiers of visattn whose model is a plain VisionTransformer, with patch projection or convolutional
stem, of up to 5.2 million weights: checkpoints of 'visattn fit', folders of 'visattn export', or vit-cifar10.
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import command_parser, parse, program


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("explain-page", __doc__)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help="classifier trained by 'visattn fit', a folder written by 'visattn export', or the included vit-cifar10",
    )
    parser.add_argument("--output", type=Path, required=True, help="HTML file to write")
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=[],
        help="images and folders that the page offers first (default: drawings, a scene and a photograph)",
    )
    parser.add_argument("--title", help="title of the page (default: the model's name)")
    options = parse(parser, args, "output")

    from visattn.tasks.explain_page import write_page

    model, change = write_page(options.checkpoint, options.output, options.images, options.title)
    print(f"Written: {options.output}, {options.output.stat().st_size / 1e6:.1f} MB")
    print(f"{model.parameters / 1e6:.1f} million weights; half precision changes a logit by at most {change:.2g}")
