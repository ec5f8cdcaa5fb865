"""Classify images with a Vision Transformer and lay where it looked over their original pixels.

    uv run scripts/overlay.py --checkpoint runs/demo/vit/best.ckpt --output runs/overlays photo.jpg folder/

Writes to the output folder, for each image, a sheet with the attention rollout and the last layer's attention
(<stem>.png) and the maps themselves (<stem>.npz: `rollout` (H, W), `layers` (depth, heads, H, W), `probabilities`,
`classes`, and `geometry` (5, 2), see `visattn.geometry.Geometry`); and at the end `classes.json`, a list with an entry
for each image.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from visattn.checkpoints import load_model
from visattn.classifier import Classifier
from visattn.data.images import list_images, read_inputs
from visattn.files import write_npz, write_text
from visattn.overlay import classification_sheet, save_figure
from visattn.program import program


def overlay_images(
    checkpoint: Path,
    images: Iterable[Path],
    output: Path,
    scale: str = "shared",
    batch_size: int = 32,
    truths: Mapping[str, str] | None = None,
) -> list[dict]:
    """Classify the images in files and folders; see the head of this file for what is written.

    Args:
        checkpoint: a classifier trained by `visattn fit`.
        images: files and folders.
        output: folder for what is written; made where missing.
        scale: "shared" or "own", the maps' colour scale.
        batch_size: images classified at a time.
        truths: the true class by file stem, where known; the sheets then say whether the prediction is right.

    Returns:
        The entries of `classes.json`: image, class, probability, overlay (file name).
    """
    paths = list_images(images)
    model = load_model(checkpoint, Classifier)
    output.mkdir(parents=True, exist_ok=True)
    entries = []
    inputs = read_inputs(paths, model.image_size, model.fit)
    with tqdm(total=len(paths), desc="Looking", unit="image") as bar:
        while batch := list(itertools.islice(inputs, batch_size)):
            for item, found in zip(batch, model.classify(torch.stack([i.tensor for i in batch])), strict=True):
                order = np.argsort(-found.probabilities)
                top = [(model.class_names[i], float(found.probabilities[i])) for i in order[:5]]
                figure = classification_sheet(
                    item.original,
                    [
                        ("attention rollout", found.rollout),
                        ("last layer, mean of heads", found.layers[-1].mean(axis=0)),
                    ],
                    item.geometry,
                    label=top[0][0],
                    probability=top[0][1],
                    top=top,
                    truth=(truths or {}).get(item.name),
                    title=item.path.name,
                    scale=scale,
                )
                save_figure(figure, output / f"{item.name}.png")
                write_npz(
                    output / f"{item.name}.npz",
                    rollout=found.rollout,
                    layers=found.layers,
                    probabilities=found.probabilities,
                    classes=np.array(model.class_names),
                    geometry=item.geometry.to_array(),
                )
                label, probability = top[0]
                entries.append(
                    {
                        "image": str(item.path),
                        "class": label,
                        "probability": probability,
                        "overlay": f"{item.name}.png",
                    }
                )
                bar.update()
    write_text(output / "classes.json", json.dumps(entries, ensure_ascii=False, indent=1))
    return entries


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE|FOLDER", help="image files, and folders of them")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a classifier trained by 'visattn fit'")
    parser.add_argument("--output", type=Path, required=True, help="folder for what is written; made where missing")
    parser.add_argument(
        "--scale",
        choices=("shared", "own"),
        default="shared",
        help="one colour scale for all maps of an image, or one for each map (default: shared)",
    )
    parser.add_argument("--batch-size", type=int, default=32, help="images classified at a time (default: 32)")
    options = parser.parse_args(args)
    entries = overlay_images(
        options.checkpoint, options.images, options.output, scale=options.scale, batch_size=options.batch_size
    )
    for entry in entries:
        print(f"{entry['image']}: {entry['class']}, {entry['probability']:.0%}")
    print(f"overlays, maps and classes.json are in {options.output}")


if __name__ == "__main__":
    sys.exit(main())
