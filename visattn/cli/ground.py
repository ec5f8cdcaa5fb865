r"""Is the attention where the word says? Scores a trained captioner on photographs whose things are outlined.

    visattn ground --checkpoint runs/flickr8k_soft/best.ckpt --root data/coco \
        --annotations annotations/captions_val2017.json --instances annotations/instances_val2017.json \
        --images val2017 --output runs/grounding.json

A word is scored where it names one of COCO's categories that is outlined in its image (`visattn.data.coco_words`). Two
rows: words of freely generated captions, and words of the references, given the true words before them. For each the
share of words whose largest weight points at the thing and the share of the weight that lies on it, beside what a
uniform and a centred map would get. Of a caption file with splits it takes the test images, or the validation images
where there are none; of a file without splits, such as COCO's own, all images. They should be no images that the
captioner was trained on.
"""

import json
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lightning import Trainer

from visattn.captioner import Captioner
from visattn.checkpoints import load_model
from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.data import CaptionedImage, Photographs
from visattn.data.coco_words import categories
from visattn.files import protect, require_file, write_text
from visattn.images import Fit
from visattn.metrics import Grounding

ROWS = {"generated": "test/grounding_", "ground truth": "test/ground_truth_grounding_"}
NOTES = {
    "generated": "no generated word names an annotated thing",
    "ground truth": "no reference's word names an annotated thing",
}


class Unseen(Photographs):
    """Photographs to test on: the test split, else the validation split, else all."""

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
) -> dict:
    """Score where a captioner's attention is; see the head of this file.

    Args:
        checkpoint: a captioner trained by `visattn fit`.
        root: folder of the data set; the next three are relative to it or absolute.
        annotations: the caption file, in one of the layouts of `visattn.data.annotations`.
        instances: COCO's file of instances.
        images: folder of the pictures.
        fit: how a photograph becomes an input; None does as in training.
        limit: at most so many images, the first of the file.
        batch_size: images at a time.

    Returns:
        What the file holds: `rows` (for each the fields of `Grounding`; None in place of a share where no word was
        scored), `categories` (how many of the references' scored words name each), `unknown_words` (how many more
        the model's vocabulary lacks, which are not scored), `captions` (scores of the generated ones), `images` (how
        many were tested, and how many have a scored reference), and what was tested.

    Raises:
        InputError: where a file or an option cannot be used.
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
        trainer = Trainer(devices=1, logger=False, enable_checkpointing=False, enable_model_summary=False)
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
    }


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


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("ground", __doc__)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help="a captioner trained by 'visattn fit', or one that comes with visattn",
    )
    parser.add_argument("--root", type=Path, required=True, help="folder of the photographs' data set")
    parser.add_argument("--annotations", required=True, help="caption file, relative to --root or absolute")
    parser.add_argument("--instances", required=True, help="COCO's file of instances, likewise")
    parser.add_argument("--images", default="images", help="folder of the pictures, likewise (default: images)")
    parser.add_argument(
        "--fit", choices=("crop", "pad", "squash"), help="how a photograph becomes an input (default: as in training)"
    )
    parser.add_argument("--limit", type=int, help="at most so many images, the first of the file")
    parser.add_argument("--batch-size", type=int, default=32, help="images at a time (default: 32)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json", help="file for all numbers")
    options = parse(parser, args, "output")
    check_ranges(options, batch_size=(1, 65_536), limit=(1, 2**31))
    protect(options.root / name for name in (options.annotations, options.instances))
    protect(path for path in (options.root / options.images).rglob("*"))
    require_file(options.output)
    result = ground(
        options.checkpoint,
        options.root,
        options.annotations,
        options.instances,
        options.images,
        fit=options.fit,
        limit=options.limit,
        batch_size=options.batch_size,
    )
    write_text(options.output, json.dumps(result, ensure_ascii=False, indent=1))
    print(table(result["rows"]))
    for name, row in result["rows"].items():
        if not row["words"]:
            print(NOTES[name])
    if result["categories"]:
        most = ", ".join(f"{name} {count}" for name, count in list(result["categories"].items())[:8])
        print(f"the references' words name most often: {most}")
    if result["unknown_words"]:
        print(f"{result['unknown_words']} more of the references' words are unknown to the model and are not scored")
    tested, scored = result["images"].values()
    print(f"{tested} images, {scored} of them with a reference that was scored; all numbers are in {options.output}")
