"""The folder of an exported model: `model.json` describes it, `model.safetensors` contains its weights.

Reading it needs no Lightning, and neither imports modules nor runs code named in the files.
"""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from visattn.decoding import CaptionModel
from visattn.errors import InputError
from visattn.export.blueprint import Blueprint, read
from visattn.export.description import (
    DESCRIPTION,
    FORMAT,
    WEIGHTS,
    EncoderWeights,
    checksum,
    read_description,
    read_file,
)
from visattn.files import write_bytes, write_text
from visattn.images import Fit
from visattn.models import Decoder, GlimpseModel, Normalise, VisionTransformer
from visattn.vocabulary import Vocabulary, Words

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class ExportedCaptioner(NamedTuple):
    """A captioner's parts, in evaluation mode.

    Attributes:
        encoder: images (B, 3, h, w) uint8 to annotation vectors and their grid: a `GridEncoder`, or its graph.
        decoder: annotation vectors to words, with `visattn.decoding.decode`.
        vocabulary: of the decoder.
        image_size: (h, w) of the input in pixels.
        fit: how images are resized, for `visattn.images.fit_image`.
        max_length: of a generated caption, in words.
        parts: the blueprints of encoder and decoder.
        encoder_weights: "file" if the encoder's weights are in the weights file, or "pretrained" if they are left out,
            since they are publicly available.
        search: how captions are decoded unless asked otherwise; None is greedily.
        no_repeat: n-grams of this length occur at most once in a caption, unless asked otherwise; 0 allows all.
    """

    encoder: Any
    decoder: Decoder
    vocabulary: Vocabulary
    image_size: tuple[int, int]
    fit: Fit
    max_length: int
    parts: dict[str, Blueprint]
    encoder_weights: EncoderWeights = "file"
    search: Blueprint | None = None
    no_repeat: int = 0

    @property
    def whole(self) -> nn.ModuleDict:
        """All modules with weights, by their names in a checkpoint."""
        return nn.ModuleDict({"encoder": self.encoder, "decoder": self.decoder})

    @property
    def weights(self) -> nn.ModuleDict:
        """The modules in the weights file, by their names there."""
        return self.whole if self.encoder_weights == "file" else nn.ModuleDict({"decoder": self.decoder})

    def model(self) -> CaptionModel:
        """A module that captions images."""
        parts = self.encoder, self.decoder, self.vocabulary, self.image_size, self.fit, self.max_length
        search = None if self.search is None else read("search", self.search)()
        return CaptionModel(*parts, search, self.no_repeat).eval()

    def describe(self) -> dict[str, Any]:
        """The content of `model.json`, except for its files."""
        encoder, cells = self.encoder, self.encoder.cell_shift(self.image_size)
        return {
            "kind": "captioner",
            "image_size": list(self.image_size),
            "fit": self.fit,
            "mean": _decimals(encoder.normalise.mean),
            "std": _decimals(encoder.normalise.std),
            "vocabulary": self.vocabulary.words,
            **({} if self.vocabulary.tokens.spec == Words.spec else {"tokens": self.vocabulary.tokens.spec}),
            "max_length": self.max_length,
            **({} if self.search is None else {"search": self.search}),
            **({"no_repeat": self.no_repeat} if self.no_repeat else {}),
            "grid": list(encoder.grid(self.image_size)),
            "cell_shift": list(cells),
            "cell_stride": list(cells.stride),
            "cells_see": [list(corner) for corner in cells.seen],
            **({} if self.encoder_weights == "file" else {"encoder_weights": self.encoder_weights}),
            **self.parts,
        }


class ExportedClassifier(NamedTuple):
    """Parts of a classifier or glimpse model, in evaluation mode: `model(normalise(images))` are the logits.

    Attributes:
        normalise: images (B, 3, h, w) uint8 to the model's input.
        model: to logits (B, classes), and attention maps or a scan.
        class_names: in the order of the logits.
        image_size: (h, w) of the input in pixels.
        fit: how images are resized, for `visattn.images.fit_image`.
        parts: the blueprint of the model.
    """

    normalise: Normalise
    model: VisionTransformer | GlimpseModel
    class_names: list[str]
    image_size: tuple[int, int]
    fit: Fit
    parts: dict[str, Blueprint]

    @property
    def whole(self) -> nn.ModuleDict:
        """All modules with weights, by their names in a checkpoint."""
        return nn.ModuleDict({"model": self.model})

    @property
    def weights(self) -> nn.ModuleDict:
        """The modules in the weights file, by their names there."""
        return self.whole

    def describe(self) -> dict[str, Any]:
        """The content of `model.json`, except for its files."""
        return {
            "kind": "glimpses" if isinstance(self.model, GlimpseModel) else "classifier",
            "image_size": list(self.image_size),
            "fit": self.fit,
            "mean": _decimals(self.normalise.mean),
            "std": _decimals(self.normalise.std),
            "class_names": self.class_names,
            **({} if isinstance(self.model, GlimpseModel) else {"grid": list(self.model.grid_of(*self.image_size))}),
            **self.parts,
        }


def load_captioner(folder: str | Path, pretrained: bool = False) -> ExportedCaptioner:
    """Load a captioner from a folder written by `visattn export`, on the CPU, in float32 whatever the file's type.

    Args:
        folder: the folder.
        pretrained: if the folder lacks the encoder's weights, use those of an installed package or of timm's hub
            (`Encoder.load_pretrained`). Otherwise nothing is ever downloaded.

    Raises:
        InputError: if a file is missing, damaged, or not the one that was exported, or does not match its description;
            if the encoder's weights are missing, and `pretrained` is False or they cannot be loaded.
    """
    exported: ExportedCaptioner = _load(Path(folder), "captioner")
    if exported.encoder_weights == "pretrained":
        if not pretrained:
            raise InputError(
                f"{folder} was exported without its encoder's weights; load_captioner(…, pretrained=True) takes them "
                "from an installed package, or downloads them"
            )
        exported.encoder.load_pretrained()
    return exported


def load_classifier(folder: str | Path) -> ExportedClassifier:
    """Load a classifier from a folder written by `visattn export`; otherwise as `load_captioner`."""
    return _load(Path(folder), "classifier")


def load_glimpses(folder: str | Path) -> ExportedClassifier:
    """The glimpse model in a folder that `visattn export` wrote; otherwise as `load_captioner`."""
    return _load(Path(folder), "glimpses")


def load_stored(folder: str | Path) -> ExportedCaptioner | ExportedClassifier:
    """The model of any kind in a folder, without weights from elsewhere: an encoder that the folder lacks is random.

    Raises:
        InputError: as `load_captioner`.
    """
    return _load(Path(folder), *_MAKERS)


def write_weights(folder: Path, exported: ExportedCaptioner | ExportedClassifier, dtype: torch.dtype) -> None:
    """Write the weights file.

    Args:
        folder: the output folder.
        exported: the model.
        dtype: for floating-point tensors; integers are unchanged.

    Raises:
        InputError: if a weight is out of the type's range.
    """
    tensors = {}
    for name, tensor in exported.weights.state_dict().items():
        # A contiguous copy: safetensors takes neither views nor shared tensors, which are stored under each name.
        kept = (tensor.to(dtype) if tensor.is_floating_point() else tensor).cpu()
        tensors[name] = kept.clone(memory_format=torch.contiguous_format)
        if not torch.equal(kept.isfinite(), tensor.cpu().isfinite()):
            raise InputError(
                f"{name} has values up to {float(tensor.abs().max()):.3g}, which {dtype} cannot represent; use bfloat16"
            )
    write_bytes(folder / WEIGHTS, save(tensors, {"format": "pt"}))


def write_description(folder: Path, exported: ExportedCaptioner | ExportedClassifier) -> None:
    """Write `model.json`, with the checksums of all files in the folder; call it last."""
    files = {path.name: checksum(path.read_bytes()) for path in sorted(folder.iterdir())}
    head = {"format": FORMAT, "visattn": version("visattn")}
    text = json.dumps({**head, **exported.describe(), "files": files}, indent=1, ensure_ascii=False)
    write_text(folder / DESCRIPTION, text + "\n")


def build(folder: Path, make: Callable[[], Any]) -> Any:
    """Call `make`, and report errors with the path of the description.

    Raises:
        InputError: if the model cannot be built.
    """
    path = folder / DESCRIPTION
    try:
        return make()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    # Constructors raise many kinds of errors for arguments of a wrong type or an absurd size.
    except Exception as error:
        raise InputError(f"{path} does not describe a model: {' '.join(str(error).split())[:200]}") from error


def _load(folder: Path, *kinds: str) -> Any:
    described = read_description(folder, *kinds)
    make = _MAKERS[described["kind"]]
    content = read_file(folder, WEIGHTS, described)
    path = folder / WEIGHTS
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{path} is damaged: {str(error)[:200]}") from error
    _check(_sketch(make, described), tensors, path)
    exported = build(folder, lambda: _with_its_grid(make(described), described))
    own = exported.weights.eval().state_dict()
    _check(own, tensors, path)
    for name, tensor in own.items():
        tensor.copy_(tensors[name])
    return exported


def _with_its_grid(exported: Any, described: dict[str, Any]) -> Any:
    """The model itself; an `InputError` if its encoder does not produce the grid that is described."""
    if isinstance(exported, ExportedCaptioner):
        grid = list(exported.encoder.grid(exported.image_size))
        if grid != described["grid"]:
            raise InputError(f"its encoder produces a grid of {grid}, not {described['grid']}")
    return exported


def _sketch(make: Callable[[dict[str, Any]], Any], described: dict[str, Any]) -> dict[str, Tensor]:
    """The state of the model on the meta device, so that absurd sizes are found before they are allocated."""
    try:
        with torch.device("meta"):
            return make(described).weights.state_dict()
    except Exception:  # some timm networks cannot be built on it; other errors are raised again by `build`
        return {}


def _captioner(described: dict[str, Any]) -> ExportedCaptioner:
    encoder = read("encoder", described["encoder"])()
    encoder.normalise = Normalise(described["mean"], described["std"])
    size, vocabulary = tuple(described["image_size"]), Vocabulary(described["vocabulary"], described["tokens"])
    decoder = read("decoder", described["decoder"])(len(vocabulary), encoder.size)
    decoder.check_grid(tuple(described["grid"]))
    if described["search"] is not None:
        read("search", described["search"])()  # its numbers may be out of range
    parts = {name: described[name] for name in ("encoder", "decoder")}
    return ExportedCaptioner(
        encoder.eval(),
        decoder,
        vocabulary,
        size,
        described["fit"],
        described["max_length"],
        parts,
        described["encoder_weights"],
        described["search"],
        described["no_repeat"],
    )


def _classifier(described: dict[str, Any]) -> ExportedClassifier:
    names, size = described["class_names"], tuple(described["image_size"])
    model = read("model", described["model"])(len(names), size)
    if isinstance(model, GlimpseModel) != (described["kind"] == "glimpses"):
        raise InputError(f"its model is a {type(model).__name__}, which is no {described['kind']}")
    normalise = Normalise(described["mean"], described["std"])
    return ExportedClassifier(normalise, model, names, size, described["fit"], {"model": described["model"]})


_MAKERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "captioner": _captioner,
    "classifier": _classifier,
    "glimpses": _classifier,
}


def _check(own: dict[str, Tensor], tensors: dict[str, Tensor], path: Path) -> None:
    """Raise an `InputError` if names, shapes or kinds of numbers of a file's tensors differ from the model's."""
    for name in [*(n for n in own if n not in tensors), *(n for n in tensors if own and n not in own)]:
        verbs = ("lacks", "has") if name in own else ("has", "lacks")
        raise InputError(f"{path} {verbs[0]} {name}, which its model {verbs[1]}")
    for name, tensor in own.items():
        theirs = tensors[name]
        if theirs.shape != tensor.shape or theirs.is_floating_point() != tensor.is_floating_point():
            raise InputError(
                f"{path} has {name} as {tuple(theirs.shape)} {theirs.dtype}, "
                f"but its model as {tuple(tensor.shape)} {tensor.dtype}"
            )


def _decimals(values: Tensor) -> list[float]:
    """The shortest decimals that round to these float32 numbers: 0.485, not 0.48500001430511475."""
    return [float(str(value)) for value in values.flatten().numpy()]
