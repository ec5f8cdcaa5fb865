"""Caption images and overlay the attention of each word on the original pixels.

    visattn caption photo.jpg folder/                   # with captioner-flickr8k, which is included
    visattn caption --checkpoint runs/demo/captioner/best.ckpt --output runs/mine scene.png
    visattn caption --checkpoint hf:ORG/NAME photo.jpg  # from the hub
    visattn caption --beam 5 --n-best 3 photo.jpg
    visattn caption --decode sample --top-p 0.9 --n-best 5 --seed 1 photo.jpg
    visattn caption --export gif,pdf --width 8.5cm --points 8 photo.jpg
    visattn caption --map relevance photo.jpg

For each image, the output folder receives the files selected by `--export`:

    sheet   <stem>.png: one panel per word, as pixels
    svg pdf <stem>.svg, <stem>.pdf: the same sheet, with text as text
    words   <stem>_words/01_a.png …: the original image under each word's map, at its own resolution
    gif     <stem>.gif: an animation that steps through the caption
    npz     <stem>.npz: the arrays: `words` (T,); `alpha` (T, H, W); `focus` (T, H, W), the weights that actually
            multiplied the annotation vectors (with hard attention one place per word, framed in the images); `beta`
            (T,), the gate on the context vector; `log_probs` (T,) of the words; `geometry` (5, 2), see
            `visattn.images.Geometry`. `--map relevance` adds `relevance` (T, H, W), the contribution of each place
            to the word (`visattn.explain.word_relevance`), and the images show it instead of α

`--n-best` writes several captions per image: a beam search's best first, samples in the order drawn. Files of the
second and later captions are <stem>_captions/2.png, <stem>_captions/2.npz ….

`captions.json` lists every image with its caption and files.
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.decoding import add_decoding_options
from visattn.cli.models import EXPORTED, add_model_options
from visattn.cli.pictures import add_picture_options, add_worker_options, exports_of, paper_of, style_of
from visattn.cli.program import add_image_argument, check_ranges, command_parser, parse, program

MAPS = ("alpha", "relevance")
EXPORTS = ("sheet", "svg", "pdf", "words", "gif", "npz")
PLACES = ("argmax", "sample", "expected")


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("caption", __doc__)
    add_image_argument(parser, "+")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=Path("captioner-flickr8k"),
        help=f"captioner trained by 'visattn fit', {EXPORTED} (default: captioner-flickr8k, which is included)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/captions"),
        help="output folder, created if missing (default: runs/captions)",
    )
    parser.add_argument(
        "--map",
        choices=MAPS,
        default="alpha",
        help="map to show for each word: its attention, or the relevance of each place to it (default: alpha)",
    )
    add_picture_options(
        parser, EXPORTS, "shared; own for relevance, whose values are tiny for words that are nearly certain", "max"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="images per batch (default: 16)")
    add_decoding_options(parser)
    parser.add_argument("--n-best", type=int, help="captions per image (default: the checkpoint's, usually 1)")
    parser.add_argument(
        "--places",
        choices=PLACES,
        help="with hard attention: use the likeliest place, a sampled one, or the weighted mean of all "
        "(default: as trained)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed for sampled words and places (default: 0)")
    add_worker_options(parser)
    add_model_options(parser)
    options = parse(parser, args, "output")
    check_ranges(
        options,
        batch_size=(1, 65_536),
        max_length=(1, 1000),
        no_repeat=(0, 1000),
        n_best=(1, 1000),
        seed=(0, 2**32 - 1),
        workers=(0, 256),
    )
    exports, style = exports_of(options), style_of(options, "own" if options.map == "relevance" else "shared")

    from visattn.tasks.caption import caption_images
    from visattn.tasks.decoding import choose_search

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
        workers=options.workers,
    )
    for entry in entries:
        for caption in entry.get("captions", [entry]):
            print(f"{entry['image']}: {caption['caption']}")
    print(f"captions.json and overlays ({options.export.replace(',', ', ')}) are in {options.output}")
