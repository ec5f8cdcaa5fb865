"""Export a trained model: safetensors and JSON that load without Lightning, and ONNX graphs, both checked.

    visattn export --checkpoint runs/flickr8k_soft/best.ckpt --output exported/flickr8k
    visattn export --checkpoint … --output … --dtype float16 --images photo.jpg folder/
    visattn export --checkpoint … --output … --format both

Writes a new folder, whole or not at all: `model.json` (what the model is, its words or classes, its input, and the
SHA-256 of every other file), `model.safetensors`, and with ONNX `encoder.onnx`, `prepare.onnx` and `step.onnx` of a
captioner or `classifier.onnx`. What was written is read back and compared with the checkpoint's model on the images,
and the largest differences are printed; where they are too large nothing is left. docs/export.md says how to use it.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from visattn.attention import HardAttention
from visattn.captioner import Captioner
from visattn.checkpoints import load_model, read
from visattn.classifier import Classifier
from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.data.inputs import read_inputs, to_tensor
from visattn.data.shapes import make_scene
from visattn.errors import InputError
from visattn.export import ExportedCaptioner, ExportedClassifier, load_captioner, load_classifier
from visattn.export.blueprint import describe
from visattn.export.folder import DTYPES, EncoderWeights, write_description, write_weights
from visattn.export.graphs import check_installed, write_captioner_graphs, write_classifier_graph
from visattn.export.parity import Parity, compare_captioners, compare_outputs
from visattn.files import new_folder
from visattn.images import fit_image

Exported = ExportedCaptioner | ExportedClassifier


def parts_of(checkpoint: Path, places: str | None = None) -> Exported:
    """The parts of the model in a checkpoint, without Lightning around them.

    Args:
        checkpoint: of a captioner or a classifier.
        places: how hard attention picks a place; None leaves it as trained.

    Raises:
        InputError: where it is no such checkpoint, has a class that is not visattn's, or no hard attention to set.
    """
    configuration = _configuration(checkpoint)
    model = load_model(checkpoint, Classifier if "model" in configuration else Captioner)
    roles = ("encoder", "decoder") if isinstance(model, Captioner) else ("model",)
    try:
        parts = {role: describe(role, configuration[role]) for role in roles}
    except InputError as error:
        raise InputError(f"{checkpoint} cannot be exported: {error}") from error
    if places is not None:
        hard = [module for module in model.modules() if isinstance(module, HardAttention)]
        if not hard:
            raise InputError(f"{checkpoint} has no hard attention; leave out --places")
        hard[0].evaluation = parts["decoder"]["init_args"]["attention"]["init_args"]["evaluation"] = places
    size, fit = tuple(model.image_size), model.fit
    if isinstance(model, Captioner):
        return ExportedCaptioner(model.encoder, model.decoder, model.vocabulary, size, fit, model.max_length, parts)
    return ExportedClassifier(model.normalise, model.model, model.class_names, size, fit, parts)


def _configuration(checkpoint: Path) -> dict[str, Any]:
    """The hyperparameters in a checkpoint; none where there are none, and `load_model` will say why."""
    try:
        return read(checkpoint)["hyper_parameters"]
    except InputError:
        return {}


def comparison_images(exported: Exported, paths: Iterable[Path] = (), count: int = 8) -> Tensor:
    """(B, 3, h, w) uint8 images of a model's size: those in files and folders, or generated scenes where none are."""
    if paths := list(paths):
        return torch.stack([item.tensor for item in read_inputs(paths, exported.image_size, exported.fit)])
    scenes = [make_scene(np.random.default_rng(i), 1 + i % 3).picture(max(exported.image_size)) for i in range(count)]
    return torch.stack([to_tensor(fit_image(scene, exported.image_size, "squash")[0]) for scene in scenes])


def export(
    exported: Exported,
    output: Path,
    images: Tensor,
    weights: torch.dtype | None = torch.float32,
    onnx: bool = False,
    maps: bool = False,
    tolerance: float = 1e-3,
) -> dict[str, Parity]:
    """Write the folder of a model, and compare what was written with the model.

    Args:
        exported: the model.
        output: the folder; must be missing or empty.
        images: (B, 3, h, w) uint8, to compare on.
        weights: of which type the weights file is; None writes none.
        onnx: write graphs too.
        maps: of a classifier, its graph gives the attention weights too.
        tolerance: by how much any number that a graph gives may differ.

    Returns:
        The comparison of each format.

    Raises:
        InputError: where the folder holds something, packages are missing, or a model cannot be exported so.
        RuntimeError: where what was written is not the model; nothing is left then.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} already holds something: choose another --output")
    captions = isinstance(exported, ExportedCaptioner)
    if maps and (captions or not onnx):
        raise InputError("--maps is for the ONNX graph of a classifier; a captioner's graphs always give α")
    if onnx:
        check_installed()
    found = {}
    with new_folder(output) as folder:
        if weights is not None:
            write_weights(folder, exported, weights)
        if onnx and captions:
            write_captioner_graphs(folder, exported)
        elif onnx:
            write_classifier_graph(folder, exported, maps)
        write_description(folder, exported)
        if weights is not None:
            found["safetensors"] = _compare_weights(exported, folder, images)
            if weights == torch.float32 and not found["safetensors"].within(0):
                raise RuntimeError(f"the weights that were written are not the model's: {found['safetensors']}")
        if onnx:
            found["ONNX"] = _compare_graphs(exported, folder, images)
            if not found["ONNX"].within(tolerance):
                raise InputError(
                    f"the graphs are not the model within {tolerance:g} and were not kept: {found['ONNX']}; "
                    "other --images or a larger --tolerance may tell whether that matters"
                )
    return found


def _compare_weights(exported: Exported, folder: Path, images: Tensor) -> Parity:
    if not isinstance(exported, ExportedCaptioner):
        return compare_outputs(_outputs(exported, images), _outputs(load_classifier(folder), images))
    left_out = exported.encoder_weights == "pretrained"
    theirs = load_captioner(folder, pretrained=left_out)
    ours, others = exported.encoder.state_dict(), theirs.encoder.state_dict()
    if left_out and not all(torch.equal(ours[name], others[name]) for name in ours):
        raise InputError(
            "the encoder's weights are not the pretrained ones: they were trained, or are of another source; leave out "
            "--encoder-weights pretrained"
        )
    return compare_captioners(exported, theirs, images)


def _compare_graphs(exported: Exported, folder: Path, images: Tensor) -> Parity:
    from visattn.export.runtime import load_captioner_graphs, load_classifier_graph

    if isinstance(exported, ExportedCaptioner):
        return compare_captioners(exported, load_captioner_graphs(folder), images)
    theirs = load_classifier_graph(folder)({"images": images.numpy()})
    ours = _outputs(exported, images)
    return compare_outputs({name: ours[name] for name in theirs}, {n: torch.from_numpy(a) for n, a in theirs.items()})


@torch.inference_mode()
def _outputs(exported: ExportedClassifier, images: Tensor) -> dict[str, Tensor]:
    pixels = exported.normalise(images)
    return {"logits": exported.model(pixels), "attention": exported.model.attention_maps(pixels)}


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
        "--dtype", choices=tuple(DTYPES), help="of the weights file (default: float32); graphs are always float32"
    )
    parser.add_argument(
        "--images", type=Path, nargs="+", default=[], help="files and folders to compare on (default: 8 made scenes)"
    )
    parser.add_argument(
        "--encoder-weights",
        choices=get_args(EncoderWeights),
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
    options = parse(parser, args, "output")
    check_ranges(options, tolerance=(0, 1e6))
    if options.dtype and options.format == "onnx":
        raise InputError("--dtype is of the weights file, and --format onnx writes none; take --format both")
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
        weights=None if options.format == "onnx" else DTYPES[options.dtype or "float32"],
        onnx=options.format != "safetensors",
        maps=options.maps,
        tolerance=options.tolerance,
    )
    what = "captions" if isinstance(exported, ExportedCaptioner) else "classes"
    for name, parity in found.items():
        print(f"{name}: {what}: {parity}")
    for path in sorted(options.output.iterdir()):
        print(f"{path} {path.stat().st_size / 1e6:.1f} MB")
