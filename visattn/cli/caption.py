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

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.models import add_model_options
from visattn.cli.pictures import add_picture_options, exports_of, paper_of, style_of
from visattn.cli.program import check_ranges, command_parser, parse, program

MAPS = ("alpha", "relevance")
EXPORTS = ("sheet", "svg", "pdf", "words", "gif", "npz")
PLACES = ("argmax", "sample", "expected")


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
        choices=MAPS,
        default="alpha",
        help="what pictures show of each word: what was attended to, or what speaks for it (default: alpha)",
    )
    add_picture_options(
        parser, EXPORTS, "shared; own for relevance, of which words that are nearly certain have little", "max"
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
        choices=PLACES,
        help="with hard attention: the likeliest place, a drawn one, or all by their weights (default: as trained)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of drawn words and places (default: 0)")
    add_model_options(parser)
    options = parse(parser, args, "output")
    check_ranges(options, batch_size=(1, 65_536), max_length=(1, 1000), n_best=(1, 1000), seed=(0, 2**32 - 1))
    exports, style = exports_of(options), style_of(options, "own" if options.map == "relevance" else "shared")

    from visattn.tasks.caption import caption_images, choose_search

    search = choose_search(options)
    entries = caption_images(
        options.checkpoint,
        options.images,
        options.output,
        batch_size=options.batch_size,
        places=options.places,
        search=search,
        max_length=options.max_length,
        no_repeat=options.no_repeat,
        exports=exports,
        style=style,
        paper=paper_of(options),
        shown=options.map,
        device=options.device,
        precision=options.precision,
        seed=options.seed,
    )
    for entry in entries:
        for caption in entry.get("captions", [entry]):
            print(f"{entry['image']}: {caption['caption']}")
    print(f"captions.json and {options.export} are in {options.output}")
