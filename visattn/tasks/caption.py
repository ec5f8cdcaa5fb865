"""Caption images and overlay the attention of each word on the original pixels."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from visattn.attention import HardAttention
from visattn.attention.hard import Evaluation
from visattn.data.inputs import read_fitted, require_all
from visattn.decoding import Caption, Captioning, Search
from visattn.devices import choose_device
from visattn.errors import InputError
from visattn.explain import caption_relevance
from visattn.export.shipped import caption_model, is_exported
from visattn.files import guarded, protect
from visattn.images.reading import list_images
from visattn.overlay import Paper, Style
from visattn.precision import autocast, of_option
from visattn.results import CaptionExport, CaptionWriter
from visattn.results.workers import Workers, automatic_workers

Map = Literal["alpha", "relevance"]

MEANING: dict[Map, str] = {"alpha": "attention weight α", "relevance": "relevance for the word"}


def choose_places(model: nn.Module, evaluation: Evaluation, checkpoint: Path) -> None:
    """Set how a captioner with hard attention picks a place for a word.

    Raises:
        InputError: if its attention is not hard.
    """
    hard = [module for module in model.modules() if isinstance(module, HardAttention)]
    if not hard:
        raise InputError(f"{checkpoint} has no hard attention; leave out --places")
    for attention in hard:
        attention.evaluation = evaluation


@guarded()
def caption_images(
    checkpoint: Path,
    images: Iterable[Path],
    output: Path,
    batch_size: int = 16,
    places: Evaluation | None = None,
    search: Search | None = None,
    max_length: int | None = None,
    no_repeat: int | None = None,
    exports: Sequence[CaptionExport] = ("sheet", "npz"),
    style: Style = Style(),
    paper: Paper = Paper(),
    shown: Map = "alpha",
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    workers: int | None = 0,
) -> list[dict]:
    """Caption the images in files and folders; see `visattn caption --help` for the output.

    Args:
        checkpoint: a captioner trained by `visattn fit`, a folder written by `visattn export`, the name of an
            included one, or one on the hub, `hf:ORG/NAME[@REVISION]`.
        images: files and folders.
        output: output folder, created if missing.
        batch_size: images per batch.
        places: how hard attention picks a place for a word; None as in training.
        search: search method; None uses the checkpoint's.
        max_length: maximum length of a caption, in words; None as above.
        no_repeat: n-grams of this length occur at most once, 0 allows all; None as above.
        exports: formats to write for each caption.
        style: how maps are drawn.
        paper: size of the sheets.
        shown: map to show for each word.
        device: the device, as in `choose_device`.
        precision: the precision, as in `of_option`.
        seed: random seed for sampled words and places.
        workers: processes that draw while the model runs; 0 draws in this one, None is `automatic_workers`. Python
            imports the main module in each of them, so a program of your own needs `if __name__ == "__main__":`.

    Returns:
        The entries of `captions.json`, from `CaptionWriter.write`.

    Raises:
        InputError: if an option, the checkpoint or an image cannot be used; for an image after all others are done.
    """
    # First, so that invalid drawing options are reported before a model is loaded.
    paths = list_images(images)
    workers = Workers(automatic_workers(len(paths)) if workers is None else workers)
    writer = CaptionWriter(output, exports, style, paper, MEANING[shown], workers)
    protect([checkpoint, *paths])
    writer.check_overwriting(paths, search.best if search else 1)
    with workers:  # their start takes as long as the model's
        torch.manual_seed(seed)
        model = load(checkpoint).to(choose_device(device))
        precision = of_option(precision, model.device)
        if places is not None:
            choose_places(model, places, checkpoint)
        if search is not None:
            model.search = search
        elif model.search.best > 1:
            writer.check_overwriting(paths, model.search.best)
        model.check_search()
        model.no_repeat = model.no_repeat if no_repeat is None else no_repeat
        model.max_length = max_length or model.max_length
        output.mkdir(parents=True, exist_ok=True)
        entries: list[dict] = []
        bad: list[InputError] = []
        inputs = read_fitted(paths, model.input.fit_image, bad)
        with tqdm(total=len(paths), desc="Captioning", unit="image") as bar, autocast(precision, model.device):
            while batch := list(itertools.islice(inputs, batch_size)):
                images = torch.stack([item.tensor for item in batch])
                captions = model.caption(images)
                relevance = relevance_of(model, images, captions) if shown == "relevance" else [None] * len(batch)
                for item, found, maps in zip(batch, captions, relevance, strict=True):
                    entries.append(writer.write(item, found, maps))
                    bar.update()
    if entries:
        writer.finish(entries)
    require_all(bad, len(entries), output)
    return entries


def load(checkpoint: Path) -> Captioning:
    """The captioner in a checkpoint or an exported folder, an included one, or one on the hub."""
    if is_exported(checkpoint):
        return caption_model(checkpoint)
    from visattn.training.captioner import Captioner  # Lightning takes seconds, and only checkpoints need it
    from visattn.training.checkpoints import load_model

    return load_model(checkpoint, Captioner)


def relevance_of(
    model: Captioning, images: torch.Tensor, captions: Sequence[Sequence[Caption]]
) -> list[tuple[np.ndarray, ...]]:
    """Relevance of each place to each word, (T, H, W) for each caption of each image."""
    ranks = zip(*captions, strict=True)
    return list(zip(*(caption_relevance(model, images, [c.words for c in rank]) for rank in ranks), strict=True))
