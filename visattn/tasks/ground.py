"""Test whether attention is on the object that a word names."""

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer

from visattn.data import CaptionedImage, Photographs
from visattn.data.coco_words import categories
from visattn.devices import choose_device
from visattn.images import Fit
from visattn.metrics import Grounding, hallucination_scores
from visattn.precision import of_option
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import load_model
from visattn.training.evaluation import EvaluatedImage
from visattn.vocabulary import Vocabulary

ROWS = {"generated": "test/grounding_", "ground truth": "test/ground_truth_grounding_"}
NOTES = {
    "generated": "no generated word names an annotated thing",
    "ground truth": "no reference's word names an annotated thing",
}


class Unseen(Photographs):
    """Photographs for test: the test split, else the validation split, else all."""

    def examples(self, split: str) -> Sequence[CaptionedImage]:
        if split != "test":
            return []
        return super().examples("test") or super().examples("val") or super().examples("train")


def ground(
    checkpoint: Path,
    root: Path,
    annotations: str,
    instances: str,
    images: str = "images",
    fit: Fit | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    device: str = "auto",
    precision: str = "auto",
) -> dict:
    """Score where a captioner's attention is; see `visattn ground --help`.

    Args:
        checkpoint: a captioner trained by `visattn fit`.
        root: folder of the data set; the next three are relative to it or absolute.
        annotations: the caption file, in one of the layouts of `visattn.data.annotations`.
        instances: COCO's file of instances.
        images: folder of the pictures.
        fit: how a photograph becomes an input; None does as in training.
        limit: at most so many images, the first of the file.
        batch_size: images at a time.
        device: where the model runs, as `choose_device` takes it.
        precision: in which, as `of_option` takes it.

    Returns:
        The content of the file: `rows` (for each the fields of `Grounding`; None instead of a share where no word was
        scored), `categories` (how many of the references' scored words name each), `unknown_words` (how many more
        the model's vocabulary lacks, which are not scored), `captions` (scores of the generated ones), `objects` (see
        `objects`), `images` (how many were tested, and how many have a scored reference), and what was tested.

    Raises:
        InputError: if a file or an option cannot be used.
    """
    model = load_model(checkpoint, Captioner)
    data = Unseen(
        root,
        annotations,
        images,
        instances=instances,
        image_size=model.image_size,
        fit=fit or model.fit,
        val_fraction=0,
        limit=limit,
        eval_batch_size=batch_size,
        max_length=model.max_length,
        max_left_out=1,
    )
    data.tokens, data.vocabulary = model.vocabulary.tokens.spec, list(model.vocabulary.words)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers")
        warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)")  # Lightning 2.6 with PyTorch 2.15
        place = choose_device(device)
        trainer = Trainer(
            accelerator=place.type,
            devices=1 if place.index is None else [place.index],
            precision={"32": "32-true", "bf16": "bf16-mixed"}[of_option(precision, place)],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        (metrics,) = trainer.test(model, datamodule=data, verbose=False)
    rows = {
        name: {field: metrics.get(f"{prefix}{field}", math.nan) for field in Grounding._fields}
        for name, prefix in ROWS.items()
    }
    scored, known = scored_words(data), model.vocabulary.ids
    return {
        "checkpoint": str(checkpoint),
        "annotations": str(data.annotations),
        "instances": str(data.instances),
        "fit": data.fit,
        "images": {"tested": len(data.examples("test")), "scored": len({image for image, *_ in scored})},
        "rows": {
            name: {f: None if math.isnan(v) else v for f, v in row.items()}
            | {"words": 0 if math.isnan(row["words"]) else int(row["words"])}
            for name, row in rows.items()
        },
        "categories": dict(Counter(category for _, word, category in scored if word in known).most_common()),
        "unknown_words": sum(word not in known for _, word, _ in scored),
        "captions": {name: metrics[f"test/{name}"] for name in ("BLEU-4", "ROUGE-L", "CIDEr-D")},
        "objects": objects(model.evaluated.images, model.vocabulary),
    }


def objects(images: Mapping[str, EvaluatedImage], vocabulary: Vocabulary) -> dict[str, Any]:
    """Whether the objects that generated captions of these tokens name are in the photographs.

    Returns:
        The scores of `hallucination_scores`; `images`, how many were checked, which are those in the instances file;
        and `absent`, the captions that name what is not there.
    """
    checked = {name: image for name, image in images.items() if image.mentions is not None}
    absent = [
        {"image": name, "caption": vocabulary.join(image.words), "absent": list(image.mentions.absent)}
        for name, image in checked.items()
        if image.mentions.absent
    ]
    scores = hallucination_scores([image.mentions for image in checked.values()]) if checked else {}
    return scores | {"images": len(checked), "absent": absent}


def scored_words(data: Photographs) -> list[tuple[str, str, str]]:
    """(image, word, category) of each of the references' words that has a region."""
    return [
        (example.id, word, category)
        for example in data.examples("test")
        for words in (caption[: data.max_length] for caption in example.captions)
        for word, category, region in zip(words, categories(words), data.regions(example.id, words), strict=True)
        if region is not None
    ]


def table(rows: dict[str, dict]) -> str:
    """The rows as aligned text."""
    lines = [["", *Grounding._fields]]
    for name, row in rows.items():
        shares = ["–" if row[field] is None else f"{row[field]:.1%}" for field in Grounding._fields[1:]]
        lines.append([name, str(row["words"]), *shares])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )
