"""Export a trained model as safetensors and JSON, or as ONNX graphs."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from visattn.data.inputs import read_inputs, to_tensor
from visattn.data.shapes import make_scene
from visattn.errors import InputError
from visattn.export import ExportedCaptioner, ExportedClassifier, load_captioner, load_classifier, load_glimpses
from visattn.export.blueprint import describe
from visattn.export.ensemble import ensemble
from visattn.export.folder import write_description, write_weights
from visattn.export.graphs import check_installed, write_captioner_graphs, write_classifier_graph
from visattn.export.parity import Parity, compare_captioners, compare_outputs
from visattn.files import new_folder
from visattn.images import fit_image
from visattn.models import Ensemble, GlimpseModel
from visattn.tasks.caption import choose_places
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import load_model, read
from visattn.training.classifier import Classifier
from visattn.training.glimpses import GlimpseClassifier

Exported = ExportedCaptioner | ExportedClassifier


def parts_of(checkpoint: Path, places: str | None = None) -> Exported:
    """The parts of the model in a checkpoint, without Lightning around them.

    Args:
        checkpoint: of a captioner, a classifier or a glimpse model.
        places: how hard attention picks a place; None leaves it as trained.

    Raises:
        InputError: if it is no such checkpoint, has a class that is not visattn's, or no hard attention to set.
    """
    configuration = read(checkpoint)["hyper_parameters"]
    model = load_model(checkpoint, *((Classifier, GlimpseClassifier) if "model" in configuration else (Captioner,)))
    roles = ("encoder", "decoder") if isinstance(model, Captioner) else ("model",)
    try:
        parts = {role: describe(role, configuration[role]) for role in roles}
        search = describe("search", configuration["search"]) if configuration.get("search") else None
    except InputError as error:
        raise InputError(f"{checkpoint} cannot be exported: {error}") from error
    if places is not None:
        choose_places(model, places, checkpoint)
        if isinstance(model, Captioner) and isinstance(model.decoder, Ensemble):
            raise InputError(f"{checkpoint} is an ensemble; give --places when it is made of its captioners")
        parts["decoder"]["init_args"]["attention"]["init_args"]["evaluation"] = places
    size, fit = tuple(model.image_size), model.fit
    if isinstance(model, Captioner):
        own = model.encoder, model.decoder, model.vocabulary, size, fit, model.max_length
        return ExportedCaptioner(*own, parts, search=search, no_repeat=model.no_repeat)
    return ExportedClassifier(model.normalise, model.model, model.class_names, size, fit, parts)


def parts_of_all(checkpoints: Sequence[Path], places: str | None = None) -> Exported:
    """The parts of the model in a checkpoint, or of the ensemble of the captioners in several.

    Raises:
        InputError: as `parts_of` and `visattn.export.ensemble`, or if one of several is not a captioner, or given
            twice.
    """
    if len(checkpoints) == 1:
        return parts_of(checkpoints[0], places)
    captioners: dict[Path, ExportedCaptioner] = {}
    for checkpoint in checkpoints:
        if checkpoint in captioners:
            raise InputError(f"--checkpoint names {checkpoint} twice; an ensemble needs different captioners")
        exported = parts_of(checkpoint, places)
        if not isinstance(exported, ExportedCaptioner):
            raise InputError(f"--checkpoint {checkpoint} is not a captioner; only captioners make an ensemble")
        captioners[checkpoint] = exported
    return ensemble(captioners)


def comparison_images(exported: Exported, paths: Iterable[Path] = ()) -> Tensor:
    """(B, 3, h, w) uint8 images of a model's size: those in files and folders, or else eight generated scenes."""
    if paths := list(paths):
        return torch.stack([item.tensor for item in read_inputs(paths, exported.image_size, exported.fit)])
    scenes = [make_scene(np.random.default_rng(i), 1 + i % 3).picture(max(exported.image_size)) for i in range(8)]
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
        InputError: if the folder holds something, packages are missing, or a model cannot be exported so.
        RuntimeError: if what was written is not the model; nothing is left then.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} is not empty; choose another --output")
    captions = isinstance(exported, ExportedCaptioner)
    if maps and (captions or not onnx):
        raise InputError("--maps is for the ONNX graph of a classifier; a captioner's graphs always give α")
    if onnx and not captions and isinstance(exported.model, GlimpseModel):
        raise InputError(
            "ONNX graphs are for captioners and Vision Transformers; export a glimpse model as safetensors"
        )
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
                    f"the graphs differ from the model by more than {tolerance:g} and were not kept: {found['ONNX']}; "
                    "try other --images or a larger --tolerance"
                )
    return found


def _compare_weights(exported: Exported, folder: Path, images: Tensor) -> Parity:
    if not isinstance(exported, ExportedCaptioner):
        load = load_glimpses if isinstance(exported.model, GlimpseModel) else load_classifier
        return compare_outputs(_outputs(exported, images), _outputs(load(folder), images))
    left_out = exported.encoder_weights == "pretrained"
    theirs = load_captioner(folder, pretrained=left_out)
    ours, others = exported.encoder.state_dict(), theirs.encoder.state_dict()
    if left_out and not all(torch.equal(ours[name], others[name]) for name in ours):
        raise InputError(
            "the encoder's weights are not the pretrained ones: they were trained, or come from another source; leave "
            "out --encoder-weights pretrained"
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
    if isinstance(exported.model, GlimpseModel):
        with torch.random.fork_rng(devices=()):  # for policies that draw in evaluation, too
            torch.manual_seed(0)
            scan = exported.model.scan(pixels)
        return {"logits": scan.answer(scan.taken()), "all logits": scan.logits, "locations": scan.locations}
    return {"logits": exported.model(pixels), "attention": exported.model.attention_maps(pixels)}
