"""Classify images with a Vision Transformer and overlay its attention on the original pixels."""

import argparse
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from visattn.data.inputs import Input, read_fitted, require_all, to_input
from visattn.devices import choose_device
from visattn.errors import InputError
from visattn.explain import LRP, METHODS, OF_CLASS, Raw, Rollout, Subject, ViT, subject_of
from visattn.explain.methods import Method, methods_of
from visattn.explain.place import AtPatches, patch_at, patch_queries
from visattn.explain.registers import WithRegister
from visattn.export import ExportedClassifier
from visattn.export.shipped import is_exported, load_exported
from visattn.files import guarded, protect
from visattn.images import Geometry, ModelInput
from visattn.images.reading import image_size, list_images
from visattn.models import VisionTransformer
from visattn.overlay import Paper, Style
from visattn.precision import autocast, of_option
from visattn.results import ClassExport, ClassWriter, Wall
from visattn.results.workers import Workers, automatic_workers


class Chosen(NamedTuple):
    """Layers and heads of raw attention, shown together.

    Attributes:
        layers: their numbers; None for all.
        heads: their numbers; None for all, none of them for the mean of all.
    """

    layers: Sequence[int] | None = (-1,)
    heads: Sequence[int] | None = ()

    def numbers(self, vit: ViT) -> list[int]:
        """The layers' numbers, from 0.

        Raises:
            InputError: if there is no such layer.
        """
        return [vit.layer(number) for number in (range(vit.depth) if self.layers is None else self.layers)]

    def of(self, maps: np.ndarray, vit: ViT) -> Wall:
        """The chosen ones of maps (depth, heads, H, W); the mean of all heads stands beside several of them.

        Raises:
            InputError: if there is no such layer or head, or if layers have different numbers of heads.
        """
        layers = self.numbers(vit)
        mean, count = maps.mean(axis=1, keepdims=True)[layers], maps.shape[1]
        names = [f"layer {number}" for number in layers]
        if self.heads is not None and not self.heads:
            return Wall(mean, names, ["mean of heads"])
        if count == 1 and not vit.one_grid:
            raise InputError(f"the layers of {vit.name} differ in their numbers of heads; use --layer with --head")
        heads = range(count) if self.heads is None else self.heads
        for head in heads:
            if not 0 <= head < count:
                raise InputError(f"{vit.name} has no head {head}; its {count} heads are numbered 0 to {count - 1}")
        chosen, columns = maps[layers][:, list(heads)], [f"head {head}" for head in heads]
        if len(columns) > 1:
            chosen, columns = (
                np.concatenate([chosen, mean], axis=1),
                [*columns, "mean" if len(columns) == count else "mean of all"],
            )
        if len(layers) == 1:
            columns = [f"{names[0]}, {column}" for column in columns]
        elif len(columns) == 1:
            names = [f"{name}, {columns[0]}" for name in names]
        return Wall(chosen, names, columns)


@dataclass(frozen=True)
class OfText:
    """A method's map of one of several texts.

    Args:
        method: one that explains a class.
        number: of the text.
        text: for the title.
    """

    method: Method
    number: int
    text: str

    def __call__(self, vit: ViT, images: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
        """Normalised images (B, 3, h, w) to maps (B, H, W), whatever the targets."""
        return self.method(vit, images, torch.full((len(images),), self.number, device=images.device))

    def __str__(self) -> str:
        return f"{self.text}: {self.method}"


def of_each_text(methods: Mapping[str, Method], texts: Sequence[str]) -> dict[str, Method]:
    """The methods, those that explain a class once for each text, with the text's number behind their name."""
    found: dict[str, Method] = {}
    for name, method in methods.items():
        if name not in OF_CLASS:
            found[name] = method
            continue
        for number, text in enumerate(texts):
            found[name if len(texts) == 1 else f"{name}-{number}"] = OfText(method, number, text)
    return found


@guarded()
def overlay_images(
    subject: Subject,
    images: Iterable[Path],
    output: Path,
    methods: Mapping[str, Method] | None = None,
    target: str | None = None,
    batch_size: int = 8,
    truths: Mapping[str, str] | None = None,
    exports: Sequence[ClassExport] = ("sheet", "npz"),
    style: Style = Style("own", end="robust"),
    paper: Paper = Paper(),
    device: str = "auto",
    precision: str = "auto",
    wall: Chosen | None = None,
    at: tuple[int, int] | None = None,
    queries: Chosen | None = None,
    workers: int | None = 0,
) -> list[dict]:
    """Classify the images in files and folders and explain it; see `visattn overlay --help` for what is written.

    Args:
        subject: the classifier.
        images: files and folders.
        output: folder for what is written; created if missing.
        methods: by their names; None is rollout, if it is defined, and the last layer.
        target: the class to explain, its name or number; None takes the likeliest.
        batch_size: images at a time.
        truths: the true class by file stem, where known; the sheets then say whether the prediction is right.
        exports: what to write of each image.
        style: how maps are drawn.
        paper: how large sheets are.
        device: where the model runs, as `choose_device` takes it.
        precision: in which, as `of_option` takes it.
        wall: which layers and heads the sheets show in place of the methods' maps.
        at: the pixel (x, y) of each original image whose patch is asked where it attends; None for the class tokens.
            All images are checked for it before the first is computed.
        queries: the layers of which the `.npz` also has where every patch attends, the mean of the heads.
        workers: processes that draw while the model runs, as for `visattn.tasks.caption.caption_images`.

    Returns:
        The entries of `classes.json`, as `ClassWriter.write` has them.

    Raises:
        InputError: if an option or an image cannot be used; for an image after all others are done.
    """
    paths = list_images(images)
    methods = defined({"rollout": Rollout(), "raw": Raw()}, subject.vit) if methods is None else methods
    meaning = meaning_of(methods) + (", test-time register" if isinstance(subject.vit, WithRegister) else "")
    meaning += ", A₁ − λ A₂ (drawn as 0 where negative)" if subject.vit.signed and "raw" in methods else ""
    texts = [] if subject.texts is None else subject.texts.texts
    methods = of_each_text(methods, texts) if texts else methods
    number = None if target is None else subject.target(target)
    titles = {
        name: f"{method}, {subject.class_names[number]}" if name in OF_CLASS and number is not None else str(method)
        for name, method in methods.items()
    }
    workers = Workers(automatic_workers(len(paths)) if workers is None else workers)
    class_names = () if texts else subject.class_names
    writer = ClassWriter(output, class_names, exports, style, paper, meaning, workers)
    protect(paths)
    writer.check_overwriting(paths)
    if at is not None:
        require_pixel(subject, paths, at)
    layers = None if queries is None else sorted(set(queries.numbers(subject.vit)))
    output.mkdir(parents=True, exist_ok=True)
    entries: list[dict] = []
    bad: list[InputError] = []
    subject = subject.to(choose_device(device))
    precision = of_option(precision, subject.device)
    inputs = read_fitted(paths, subject.see, bad)
    bar = tqdm(total=len(paths), desc="Overlaying", unit="image")
    with workers, bar, autocast(precision, subject.device):
        while batch := list(itertools.islice(inputs, batch_size)):
            for item, found in zip(batch, see(subject, batch, methods, number, at, layers), strict=True):
                shown = None if wall is None else wall.of(found["layers"], subject.vit)
                asked = None if at is None else int(found["asked"])
                if texts:
                    found["texts"] = np.array(texts)
                notes = _notes(methods, found)
                entry = writer.write(item, found, titles, (truths or {}).get(item.name), shown, asked, notes)
                cosines = {"cosines": dict(zip(texts, found["cosines"].tolist(), strict=True))} if texts else {}
                entries.append(entry | cosines)
                bar.update()
    if entries:
        writer.finish(entries)
    require_all(bad, len(entries), output)
    return entries


def _notes(methods: Mapping[str, Method], found: Mapping[str, np.ndarray]) -> dict[str, str]:
    """What stands below the maps of texts: how well each fits the image."""
    return {
        name: f"cosine {found['cosines'][method.number]:.3f}".replace("-", "−")
        for name, method in methods.items()
        if isinstance(method, OfText)
    }


def require_pixel(subject: Subject, paths: Iterable[Path], at: tuple[int, int]) -> None:
    """Check, before any image is computed, that the model sees this pixel of all of them.

    Raises:
        InputError: for the first image that has no such pixel, or in which no patch sees it.
    """
    seen: dict[tuple[int, int], Geometry] = {}
    for path in paths:
        height, width = image_size(path)
        if (height, width) not in seen:
            seen[height, width] = to_input(Image.new("RGB", (width, height)), subject.see, str(path))[1]
        patch_at(*at, seen[height, width], subject.vit.grid(seen[height, width].input), str(path))


def see(
    subject: Subject,
    batch: Sequence[Input],
    methods: Mapping[str, Method],
    number: int | None,
    at: tuple[int, int] | None = None,
    queries: Sequence[int] | None = None,
) -> list[dict[str, np.ndarray]]:
    """What is kept of each image: the maps by their method, every layer's and head's, and the probabilities.

    What needs no gradient shares one run of the model: methods that have a `reading`, and the layers of `queries`.
    """
    images = torch.stack([item.tensor for item in batch]).to(subject.device)
    vit, pixels = subject.vit, subject.normalise(images)
    cells: list[int] = []
    if at is not None:
        grid = vit.grid((pixels.shape[-2], pixels.shape[-1]))
        cells = [patch_at(*at, item.geometry, grid, str(item.path)) for item in batch]
        vit = AtPatches(vit, cells)
    readings = {"layers": vit.reading_rows()}
    readings |= {name: method.reading(vit) for name, method in methods.items() if hasattr(method, "reading")}
    carried = {} if queries is None else patch_queries(vit, queries)
    readings |= carried
    seen, read = vit.read_together(pixels, list(readings.values()))
    shared = dict(zip(readings, read, strict=True))
    found = {"layers": shared["layers"]}
    targets = None
    if subject.texts is not None:
        found["cosines"] = subject.texts.cosines(seen.logits)
    elif subject.class_names:
        found["probabilities"] = seen.logits.float().softmax(dim=-1)
        targets = found["probabilities"].argmax(dim=-1)
        targets = targets if number is None else torch.full_like(targets, number)
        found["target"] = targets
    found |= {n: shared[n] if n in shared else method(vit, pixels, targets) for n, method in methods.items()}
    if cells:
        found["asked"] = torch.tensor(cells)
    if queries is not None:
        found |= {name: shared[name] for name in carried}
        found["queries_layers"] = torch.tensor(queries).expand(len(batch), -1)
    arrays = (part.float().cpu().numpy() if part.is_floating_point() else part.cpu().numpy() for part in found.values())
    return [dict(zip(found, row, strict=True)) for row in zip(*arrays, strict=True)]


def meaning_of(methods: Iterable[str]) -> str:
    """Meaning of the colours of these methods' maps."""
    return " and ".join(sorted({"relevance" if name in OF_CLASS else "attention" for name in methods}))


def choose_methods(options: argparse.Namespace) -> dict[str, Method]:
    """The methods that the command line asks for, by their names, in its order."""
    names = list(dict.fromkeys(options.method or (["relevance"] if options.text else ["rollout", "raw"])))
    rollouts = ("rollout", "gradient-rollout")
    layered = ("raw", "value-norm")
    for option, users in (("layer", layered), ("head", layered), ("fusion", rollouts), ("discard", rollouts)):
        if getattr(options, option) is not None and not set(names) & set(users):
            raise InputError(f"--{option} is for --method {' and '.join(users)}")
    for option in ("target", "text"):
        if getattr(options, option) is not None and not set(names) & set(OF_CLASS):
            raise InputError(f"--{option} is for --method {' and '.join(OF_CLASS)}; other maps explain nothing")
    for option in ("target", "classes"):
        if options.text is not None and getattr(options, option) is not None:
            raise InputError(f"--text and --{option} exclude each other: texts take the place of classes")
    if options.at is not None and set(names) & set(OF_CLASS):
        unfit = next(name for name in names if name in OF_CLASS)
        others = ", ".join(name for name in METHODS if name not in OF_CLASS)
        raise InputError(f"--at cannot be combined with --method {unfit}, which explains a class; choose {others}")
    given = {
        **{name: {"layer": options.layer, "head": options.head} for name in layered},
        **{name: {"fusion": options.fusion, "discard": options.discard} for name in rollouts},
    }
    return {
        name: METHODS[name](**{key: value for key, value in given.get(name, {}).items() if value is not None})
        for name in names
    }


def choose_wall(options: argparse.Namespace) -> Chosen | None:
    """The layers and heads that the command line asks for, where it asks for several."""
    if options.layers is None and options.heads is None:
        return None
    for many, one in (("layers", "layer"), ("heads", "head")):
        if getattr(options, many) is not None and getattr(options, one) is not None:
            raise InputError(f"--{many} and --{one} exclude each other")
    if set(options.method or ["raw"]) != {"raw"}:
        raise InputError("--layers and --heads show raw attention; use them without --method, or with --method raw")
    options.method = ["raw"]
    layer, head = (() if one is None else (one,) for one in (options.layer, options.head))
    layers = layer or (-1,) if options.layers is None else _numbers(options.layers, "layers")
    return Chosen(layers, head if options.heads is None else _numbers(options.heads, "heads"))


def choose_queries(options: argparse.Namespace, exports: Sequence[str]) -> Chosen | None:
    """The layers whose every patch the command line asks about."""
    if options.queries is None:
        return None
    if "npz" not in exports:
        raise InputError("--queries writes to the .npz files, which --export leaves out; add npz to it")
    return Chosen(_numbers(options.queries, "queries"))


def _numbers(text: str, option: str) -> list[int] | None:
    """None for all."""
    if text == "all":
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--{option} is '{text}'; give all, or numbers such as 0,5,11") from error


def defined(methods: dict[str, Method], vit: ViT) -> dict[str, Method]:
    """Those that are defined for a model, or else LRP, for when none was asked for."""
    known = methods_of(vit)
    return {name: method for name, method in methods.items() if name in known} or {"lrp": LRP()}


def refuse_library_options(options: argparse.Namespace) -> None:
    """Raise an `InputError` if an option of a library's model is given, for when the model is a checkpoint."""
    for option in ("weights", "classes", "image_size"):
        if getattr(options, option) is not None:
            raise InputError(f"--{option.replace('_', '-')} needs --model or --timm; a checkpoint has its own")


def choose_subject(options: argparse.Namespace) -> Subject:
    """The model that the command line asks for."""
    if options.checkpoint is not None:
        if getattr(options, "text", None) is not None:
            raise InputError("--text needs --model; a checkpoint of visattn cannot compare images with texts")
        refuse_library_options(options)
        if is_exported(options.checkpoint):
            return _exported(options.checkpoint)
        from visattn.training.checkpoints import load_model  # Lightning takes seconds, and only checkpoints need it
        from visattn.training.classifier import Classifier

        return load_model(options.checkpoint, Classifier).subject(str(options.checkpoint))
    return subject_of(
        f"timm:{options.timm}" if options.model is None else options.model,
        options.weights or "pretrained",
        None if options.classes is None else read_names(options.classes),
        None if options.image_size is None else tuple(options.image_size),
        getattr(options, "text", None),
    )


def _exported(path: Path) -> Subject:
    """The Vision Transformer in an exported model, as `Classifier.subject` is that of a checkpoint."""
    found = load_exported(path)
    if not isinstance(found, ExportedClassifier) or not isinstance(found.model, VisionTransformer):
        raise InputError(f"{path} is a {found.describe()['kind']} model, but a Vision Transformer is needed here")
    size = ModelInput(found.image_size, found.fit)
    return Subject(ViT(found.model, str(path)), found.normalise, size.fit_image, found.class_names)


def read_names(path: Path) -> list[str]:
    """Names of classes, one a line."""
    if not path.is_file():
        raise InputError(f"there is no file {path} (option --classes)")
    try:
        return path.read_text(encoding="utf-8-sig").rstrip("\n").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file; --classes needs one class name per line") from error
