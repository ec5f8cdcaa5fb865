"""Models of other libraries, each with its own preprocessing, class names and geometry."""

import importlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from visattn.errors import InputError
from visattn.explain.subject import Subject
from visattn.explain.texts import checked_texts

log = logging.getLogger(__name__)

LIBRARIES = {"timm": "timm", "hf": "transformers", "torchvision": "torchvision", "open_clip": "open_clip"}
"""By the prefix of a model's name, the module that loads it."""
READ_TEXTS = ("hf", "open_clip")
"""Those with models that compare images with texts."""


def subject_of(
    name: str,
    weights: str | Path = "pretrained",
    class_names: Sequence[str] | None = None,
    image_size: int | Sequence[int] | None = None,
    texts: Sequence[str] | None = None,
) -> Subject:
    """A model of another library, in evaluation mode, on the CPU. The library is imported now.

    Args:
        name: LIBRARY:NAME, such as timm:vit_small_patch16_224, hf:facebook/dinov2-small, hf:FOLDER,
            torchvision:vit_b_16 or open_clip:ViT-B-32/openai.
        weights: "pretrained", "random", or, except for hf, a file with the library's keys.
        class_names: of its classes; None takes those that come with the model.
        image_size: (h, w) of the input, or the side of a square; None takes the model's own.
        texts: what images are compared with, for a model of transformers or OpenCLIP that does that; they take the
            place of classes.

    Raises:
        InputError: if the library is not known or not installed, or reads no texts where some are given; or as its own
            function, such as `timm_subject`.
    """
    library, _, rest = name.partition(":")
    if library not in LIBRARIES or not rest:
        known = ", ".join(f"{prefix}:NAME" for prefix in LIBRARIES)
        raise InputError(f"'{name}' names no model of a known library; give {known} or hf:FOLDER")
    if texts is not None and library not in READ_TEXTS:
        raise InputError(f"{name} reads no texts; give a model that does, such as open_clip:ViT-B-32/openai (--text)")
    texts = None if texts is None else checked_texts(texts)  # before a model is fetched
    module = importlib.import_module(f"visattn.explain.libraries.{LIBRARIES[library]}")
    load: Callable[..., Subject] = getattr(module, f"{LIBRARIES[library]}_subject")
    with torch.random.fork_rng(devices=[]):  # models are made on the CPU
        torch.default_generator.manual_seed(0)  # so that random weights are the same in every run
        found = load(rest, weights, class_names, image_size)
    if weights == "random":
        log.warning("%s has random weights: its classes and maps mean nothing", name)
    return found if texts is None else found.comparing(texts)
