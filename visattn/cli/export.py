"""Export a trained model as safetensors and JSON, which load without Lightning, or as ONNX graphs.

    visattn export --checkpoint runs/flickr8k_soft/best.ckpt --output exported/flickr8k
    visattn export --checkpoint … --output … --dtype float16 --images photo.jpg folder/
    visattn export --checkpoint … --output … --format both
    visattn export --checkpoint … --output … --beam 5 --no-repeat 2
    visattn export --checkpoint runs/soft_0/best.ckpt runs/soft_1/best.ckpt --output exported/ensemble

Writes a new folder: `model.json` (architecture, words or classes, input, and the SHA-256 of every other file),
`model.safetensors`, and with ONNX `encoder.onnx`, `prepare.onnx` and `step.onnx` of a captioner, or `classifier.onnx`.
The exported files are read back and compared with the checkpoint's model on the images; the largest differences are
printed. If they are too large, or anything else fails, no folder is left. docs/export.md shows how to use the files.

Several captioners with the same vocabulary and the same frozen encoder are exported as an ensemble: a captioner whose
words have the mean of their probabilities, and whose maps are the mean of theirs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visattn.cli.decoding import add_decoding_options
from visattn.cli.models import EXPORTED, add_import_option
from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.errors import InputError

DTYPES = ("float32", "float16", "bfloat16")
ENCODER_WEIGHTS = ("file", "pretrained")


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("export", __doc__)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        required=True,
        help=f"model trained by 'visattn fit', {EXPORTED}; several captioners make an ensemble",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to create")
    parser.add_argument(
        "--format",
        choices=("safetensors", "onnx", "both"),
        default="safetensors",
        help="files to write (default: safetensors)",
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, help="dtype of the weights file (default: float32); ONNX graphs are always float32"
    )
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=[],
        help="images and folders for the comparison (default: 8 generated scenes)",
    )
    parser.add_argument(
        "--encoder-weights",
        choices=ENCODER_WEIGHTS,
        default="file",
        help="file: store the encoder's weights; pretrained: leave them out, if they are the pretrained ones, and let "
        "load_captioner get them from a package or timm's hub (default: file)",
    )
    parser.add_argument(
        "--maps", action="store_true", help="add attention weights to the outputs of a classifier graph"
    )
    parser.add_argument(
        "--places",
        choices=("argmax", "expected"),
        help="with hard attention: use the likeliest place, or the weighted mean of all (default: as trained)",
    )
    parser.add_argument(
        "--tolerance", type=float, default=1e-3, help="largest difference allowed in an ONNX graph (default: 0.001)"
    )
    decoding = parser.add_argument_group(
        "decoding", "how a captioner decodes when nothing else is asked for, stored in model.json"
    )
    add_decoding_options(decoding)
    add_import_option(parser)
    options = parse(parser, args, "output")
    check_ranges(options, tolerance=(0, 1e6), max_length=(1, 1000), no_repeat=(0, 1000))
    if options.dtype and options.format == "onnx":
        raise InputError("--dtype concerns the weights file, which --format onnx does not write; use --format both")

    from visattn.export.folder import DTYPES as TORCH_DTYPES
    from visattn.tasks.decoding import asks_for_search, search_of
    from visattn.tasks.export import ExportedCaptioner, comparison_images, export, parts_of_all

    exported = parts_of_all(options.checkpoint, options.places)
    chosen: dict[str, Any] = {"no_repeat": options.no_repeat, "max_length": options.max_length}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    if isinstance(exported, ExportedCaptioner):
        if asks_for_search(options):
            chosen["search"] = search_of(options, exported.search)
        exported = exported._replace(**chosen)
        exported.model()  # the search may not suit the vocabulary
    elif chosen or asks_for_search(options):
        raise InputError("options of decoding are for captioners; leave them out for other models")
    if options.encoder_weights == "pretrained":
        if options.format == "onnx":
            raise InputError(
                "--encoder-weights concerns the weights file, which --format onnx does not write; use --format both"
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
