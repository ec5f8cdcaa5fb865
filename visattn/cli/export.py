"""Export a trained model: safetensors and JSON that load without Lightning, and ONNX graphs, both checked.

    visattn export --checkpoint runs/flickr8k_soft/best.ckpt --output exported/flickr8k
    visattn export --checkpoint … --output … --dtype float16 --images photo.jpg folder/
    visattn export --checkpoint … --output … --format both

Writes a new folder, whole or not at all: `model.json` (what the model is, its words or classes, its input, and the
SHA-256 of every other file), `model.safetensors`, and with ONNX `encoder.onnx`, `prepare.onnx` and `step.onnx` of a
captioner or `classifier.onnx`. What was written is read back and compared with the checkpoint's model on the images,
and the largest differences are printed; where they are too large nothing is left. docs/export.md says how to use it.
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.models import add_import_option
from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.errors import InputError

DTYPES = ("float32", "float16", "bfloat16")
ENCODER_WEIGHTS = ("file", "pretrained")


@program
def main(args: Sequence[str] | None = None) -> None:
    """The program."""
    parser = command_parser("export", __doc__)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="a model of 'visattn fit', or one that comes with visattn"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--format", choices=("safetensors", "onnx", "both"), default="safetensors", help="(default: safetensors)"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, help="of the weights file (default: float32); graphs are always float32"
    )
    parser.add_argument(
        "--images", type=Path, nargs="+", default=[], help="files and folders to compare on (default: 8 made scenes)"
    )
    parser.add_argument(
        "--encoder-weights",
        choices=ENCODER_WEIGHTS,
        default="file",
        help="write the encoder's weights into the file, or leave them out where they are the pretrained ones, which "
        "load_captioner then takes from a package or timm's hub (default: file)",
    )
    parser.add_argument("--maps", action="store_true", help="a classifier's graph gives its attention weights too")
    parser.add_argument(
        "--places",
        choices=("argmax", "expected"),
        help="with hard attention: the likeliest place, or all by their weights (default: as trained)",
    )
    parser.add_argument(
        "--tolerance", type=float, default=1e-3, help="by how much a graph's numbers may differ (default: 0.001)"
    )
    add_import_option(parser)
    options = parse(parser, args, "output")
    check_ranges(options, tolerance=(0, 1e6))
    if options.dtype and options.format == "onnx":
        raise InputError("--dtype is of the weights file, and --format onnx writes none; take --format both")

    from visattn.export.folder import DTYPES as TORCH_DTYPES
    from visattn.tasks.export import ExportedCaptioner, comparison_images, export, parts_of

    exported = parts_of(options.checkpoint, options.places)
    if options.encoder_weights == "pretrained":
        if options.format == "onnx":
            raise InputError(
                "--encoder-weights is of the weights file, and --format onnx writes none; take --format both"
            )
        if not isinstance(exported, ExportedCaptioner):
            raise InputError("--encoder-weights pretrained is for captioners; a classifier has no encoder")
        exported = exported._replace(encoder_weights="pretrained")
    found = export(
        exported,
        options.output,
        comparison_images(exported, options.images),
        weights=None if options.format == "onnx" else TORCH_DTYPES[options.dtype or "float32"],
        onnx=options.format != "safetensors",
        maps=options.maps,
        tolerance=options.tolerance,
    )
    what = "captions" if isinstance(exported, ExportedCaptioner) else "classes"
    for name, parity in found.items():
        print(f"{name}: {what}: {parity}")
    for path in sorted(options.output.iterdir()):
        print(f"{path} {path.stat().st_size / 1e6:.1f} MB")
