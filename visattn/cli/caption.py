"""Caption images and lay what each word attended to over their original pixels.

    visattn caption photo.jpg folder/                   # by captioner-flickr8k, which comes with visattn
    visattn caption --checkpoint runs/demo/captioner/best.ckpt --output runs/mine scene.png
    visattn caption --beam 5 --n-best 3 photo.jpg
    visattn caption --decode sample --top-p 0.9 --n-best 5 --seed 1 photo.jpg
    visattn caption --export gif,pdf --width 8.5cm --points 8 photo.jpg
    visattn caption --map relevance photo.jpg

Writes to the output folder, for each image, what `--export` names:

    sheet   <stem>.png: a panel for each word, in pixels
    svg pdf <stem>.svg, <stem>.pdf: the same sheet, in which text is text
    words   <stem>_words/01_a.png …: the original picture under each word's map, pixel for pixel
    gif     <stem>.gif: one moving picture that walks through the caption
    npz     <stem>.npz: the maps themselves: `words` (T,), `alpha` (T, H, W), and `focus` (T, H, W), what really
            multiplied the annotation vectors: with hard attention one place a word, which the pictures frame; `beta`
            (T,), what the decoder multiplied what it saw by; `log_probs` (T,) of the words; `geometry` (5, 2), see
            `visattn.images.Geometry`; with `--map relevance` also `relevance` (T, H, W), which the pictures then
            show in place of α: how much each place speaks for the word (`visattn.explain.word_relevance`)

With `--n-best` there are several captions of an image, of a beam search the best first, drawn ones as they were drawn:
what belongs to the second and further ones is in <stem>_captions/2.png, <stem>_captions/2.npz ….

At the end `captions.json`, a list with an entry for each image and what was written of it.
"""

import argparse
import gc
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from tqdm import tqdm

from visattn.attention import HardAttention
from visattn.attention.hard import Evaluation
from visattn.captioner import Captioner
from visattn.checkpoints import load_model
from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.data.inputs import read_inputs
from visattn.decoding import BeamSearch, Caption, Greedy, Sampling, Search
from visattn.errors import InputError
from visattn.files import guarded, protect
from visattn.images.reading import list_images
from visattn.overlay.arguments import add_picture_options, exports_of, look_of, paper_of
from visattn.results import CaptionExport, CaptionWriter

Map = Literal["alpha", "relevance"]

MEANING: dict[Map, str] = {"alpha": "attention weight α", "relevance": "relevance for the word"}


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


def choose_search(options: argparse.Namespace) -> Search | None:
    """The search that the options ask for; None where they ask for none.

    Raises:
        InputError: where an option belongs to another search, or is out of its range.
    """
    kind = options.decode or (None if options.beam is None else "beam")
    owners = {"beam": "beam", "length_penalty": "beam", "temperature": "sample", "top_k": "sample", "top_p": "sample"}
    given = {name: value for name, value in vars(options).items() if name in owners and value is not None}
    for name in given:
        if owners[name] != kind:
            raise InputError(f"--{name.replace('_', '-')} is for --decode {owners[name]}; give that, too")
    for name, least in (("n_best", 1), ("batch_size", 1), ("max_length", 1), ("no_repeat", 0)):
        if (value := getattr(options, name)) is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}")
    check_ranges(options, batch_size=(1, 65_536), max_length=(1, 1000), n_best=(1, 1000), seed=(0, 2**32 - 1))
    if kind == "beam":
        size = given.pop("beam", max(5, options.n_best))
        if options.n_best > size > 0:
            raise InputError(
                f"--n-best {options.n_best} is more than a beam of {size} has; set --beam {options.n_best}"
            )
        return BeamSearch(size, best=options.n_best, **given)
    if kind == "sample":
        return Sampling(options.n_best, **given)
    if options.n_best > 1:
        raise InputError("--n-best needs --decode beam or --decode sample")
    return Greedy() if kind == "greedy" else None


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
    look: Mapping[str, Any] | None = None,
    paper: Mapping[str, Any] | None = None,
    shown: Map = "alpha",
) -> list[dict]:
    """Caption the images in files and folders; see the head of this file for what is written.

    Args:
        checkpoint: a captioner trained by `visattn fit`, or the name of one that comes with visattn.
        images: files and folders.
        output: folder for what is written; made where missing.
        batch_size: images captioned at a time.
        places: how hard attention picks a place for a word; None leaves it as trained.
        search: how to choose the words; None takes the checkpoint's own.
        max_length: of a caption, in words; likewise.
        no_repeat: no run of so many words occurs twice in a caption, 0 allows all; likewise.
        exports: what to write of each caption.
        look: how maps are drawn: scale, colour_map, opacity, interpolation, contour of `caption_sheet`.
        paper: the size of its sheets: width, points, columns of `caption_sheet`.
        shown: which map of each word the pictures show.

    Returns:
        The entries of `captions.json`, as `CaptionWriter.write` has them.
    """
    # First, since an option that cannot be drawn with is told before a model is loaded.
    writer = CaptionWriter(output, exports, look or {}, {"meaning": MEANING[shown], **(paper or {})})
    paths = list_images(images)
    protect([checkpoint, *paths])
    writer.require_room(paths, search.best if search else 1)
    model = load_model(checkpoint, Captioner)
    if places is not None:
        choose_places(model, places, checkpoint)
    if search is not None:
        model.search = search
    elif model.search.best > 1:
        writer.require_room(paths, model.search.best)
    model.no_repeat = model.no_repeat if no_repeat is None else no_repeat
    model.max_length = max_length or model.max_length
    output.mkdir(parents=True, exist_ok=True)
    entries = []
    inputs = read_inputs(paths, model.image_size, model.fit)
    with tqdm(total=len(paths), desc="Captioning", unit="image") as bar:
        while batch := list(itertools.islice(inputs, batch_size)):
            images = torch.stack([item.tensor for item in batch])
            captions = model.caption(images)
            relevance = relevance_of(model, images, captions) if shown == "relevance" else [None] * len(batch)
            for item, found, maps in zip(batch, captions, relevance, strict=True):
                item = item._replace(geometry=item.geometry._replace(cell_shift=model.cell_shift))
                entries.append(writer.write(item, found, maps))
                bar.update()
                if len(entries) % max(1, batch_size // len(found)) == 0:
                    gc.collect()  # figures refer to themselves: left alone, Python lets hundreds of them pile up
    writer.finish(entries)
    return entries


def relevance_of(
    model: Captioner, images: torch.Tensor, captions: Sequence[Sequence[Caption]]
) -> list[tuple[np.ndarray, ...]]:
    """How much each place speaks for each word, (T, H, W) for each caption of each image."""
    ranks = zip(*captions, strict=True)
    return list(zip(*(model.relevance(images, [c.words for c in rank]) for rank in ranks), strict=True))


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("caption", __doc__)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE|FOLDER", help="image files, and folders of them")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=Path("captioner-flickr8k"),
        help="a captioner trained by 'visattn fit', or one that comes with visattn: captioner-flickr8k or "
        "captioner-shapes (default: captioner-flickr8k)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/captions"),
        help="folder for what is written; made where missing (default: runs/captions)",
    )
    parser.add_argument(
        "--map",
        choices=get_args(Map),
        default="alpha",
        help="what pictures show of each word: what was attended to, or what speaks for it (default: alpha)",
    )
    add_picture_options(
        parser, get_args(CaptionExport), "shared; own for relevance, of which words that are nearly certain have little"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="images captioned at a time (default: 16)")
    parser.add_argument(
        "--decode",
        choices=("greedy", "beam", "sample"),
        help="how to choose the words: the likeliest of each step, a beam search, or drawn ones (default: as the "
        "checkpoint has it, which is greedy for most; beam where --beam is given)",
    )
    parser.add_argument("--beam", type=int, help="captions that a beam search follows at once (default: 5)")
    parser.add_argument(
        "--length-penalty",
        type=float,
        help="a beam search compares captions by log p / n^PENALTY, n their words and the end: 0 favours short ones "
        "(default: 0.7)",
    )
    parser.add_argument("--n-best", type=int, default=1, help="captions to write for each image (default: 1)")
    parser.add_argument(
        "--temperature", type=float, help="of drawn words: below 1 likelier ones, above 1 any (default: 1)"
    )
    parser.add_argument("--top-k", type=int, help="draw from so many likeliest words (default: 0, all)")
    parser.add_argument("--top-p", type=float, help="draw from the likeliest words that have this share (default: 1)")
    parser.add_argument(
        "--no-repeat", type=int, metavar="N", help="no N words in a row twice, 0 for off (default: as the checkpoint)"
    )
    parser.add_argument("--max-length", type=int, help="words of a caption at most (default: as in training)")
    parser.add_argument(
        "--places",
        choices=get_args(Evaluation),
        help="with hard attention: the likeliest place, a drawn one, or all by their weights (default: as trained)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of drawn words and places (default: 0)")
    options = parse(parser, args, "output")
    search = choose_search(options)
    torch.manual_seed(options.seed)
    entries = caption_images(
        options.checkpoint,
        options.images,
        options.output,
        batch_size=options.batch_size,
        places=options.places,
        search=search,
        max_length=options.max_length,
        no_repeat=options.no_repeat,
        exports=exports_of(options),
        look=look_of(options, "own" if options.map == "relevance" else "shared"),
        paper=paper_of(options),
        shown=options.map,
    )
    for entry in entries:
        for caption in entry.get("captions", [entry]):
            print(f"{entry['image']}: {caption['caption']}")
    print(f"captions.json and {options.export} are in {options.output}")
