"""Caption images and lay what each word attended to over their original pixels.

    uv run scripts/caption.py --checkpoint runs/demo/captioner/best.ckpt --output runs/captions photo.jpg folder/

Writes to the output folder, for each image, a sheet with a panel for each word (<stem>.png) and the maps themselves
(<stem>.npz: `words` (T,), `alpha` (T, H, W), and `focus` (T, H, W), what really multiplied the annotation vectors: with
hard attention one place a word, which the sheet frames); and at the end `captions.json`, a list with an entry for each
image.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from tqdm import tqdm

from visattn.attention import HardAttention
from visattn.attention.hard import Evaluation
from visattn.captioner import Captioner
from visattn.checkpoints import load_model
from visattn.data.images import list_images, read_inputs
from visattn.errors import InputError
from visattn.files import write_npz, write_text
from visattn.overlay import caption_sheet, save_figure
from visattn.program import program


def choose_places(model: Captioner, evaluation: Evaluation, checkpoint: Path) -> None:
    """Set how a captioner with hard attention picks a place for a word.

    Raises:
        InputError: where its attention is not hard.
    """
    hard = [module for module in model.modules() if isinstance(module, HardAttention)]
    if not hard:
        raise InputError(f"{checkpoint} has no hard attention; leave out --places")
    for attention in hard:
        attention.evaluation = evaluation


def caption_images(
    checkpoint: Path,
    images: Iterable[Path],
    output: Path,
    scale: str = "shared",
    batch_size: int = 16,
    places: Evaluation | None = None,
) -> list[dict]:
    """Caption the images in files and folders; see the head of this file for what is written.

    Args:
        checkpoint: a captioner trained by `visattn fit`.
        images: files and folders.
        output: folder for what is written; made where missing.
        scale: "shared" or "own", the maps' colour scale.
        batch_size: images captioned at a time.
        places: how hard attention picks a place for a word; None leaves it as trained.

    Returns:
        The entries of `captions.json`: image, caption, words, log_prob (of the whole caption), overlay (file name).
    """
    paths = list_images(images)
    model = load_model(checkpoint, Captioner)
    if places is not None:
        choose_places(model, places, checkpoint)
    output.mkdir(parents=True, exist_ok=True)
    entries = []
    inputs = read_inputs(paths, model.image_size, model.fit)
    with tqdm(total=len(paths), desc="Captioning", unit="image") as bar:
        while batch := list(itertools.islice(inputs, batch_size)):
            for item, caption in zip(batch, model.caption(torch.stack([i.tensor for i in batch])), strict=True):
                geometry = item.geometry._replace(cell_shift=model.cell_shift)
                figure = caption_sheet(
                    item.original,
                    caption.words,
                    caption.weights,
                    geometry,
                    scale=scale,
                    title=item.path.name,
                    drawn=caption.places,
                )
                save_figure(figure, output / f"{item.name}.png")
                write_npz(
                    output / f"{item.name}.npz",
                    words=np.array(caption.words),
                    alpha=caption.weights,
                    focus=caption.focus,
                )
                entries.append(
                    {
                        "image": str(item.path),
                        "caption": " ".join(caption.words),
                        "words": caption.words,
                        "log_prob": caption.log_prob,
                        "overlay": f"{item.name}.png",
                    }
                )
                bar.update()
    write_text(output / "captions.json", json.dumps(entries, ensure_ascii=False, indent=1))
    return entries


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE|FOLDER", help="image files, and folders of them")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a captioner trained by 'visattn fit'")
    parser.add_argument("--output", type=Path, required=True, help="folder for what is written; made where missing")
    parser.add_argument(
        "--scale",
        choices=("shared", "own"),
        default="shared",
        help="one colour scale for all words of a caption, or one for each word (default: shared)",
    )
    parser.add_argument("--batch-size", type=int, default=16, help="images captioned at a time (default: 16)")
    parser.add_argument(
        "--places",
        choices=get_args(Evaluation),
        help="with hard attention: the likeliest place, a drawn one, or all by their weights (default: as trained)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of drawn places (default: 0)")
    options = parser.parse_args(args)
    torch.manual_seed(options.seed)
    entries = caption_images(
        options.checkpoint,
        options.images,
        options.output,
        scale=options.scale,
        batch_size=options.batch_size,
        places=options.places,
    )
    for entry in entries:
        print(f"{entry['image']}: {entry['caption']}")
    print(f"overlays, maps and captions.json are in {options.output}")


if __name__ == "__main__":
    sys.exit(main())
