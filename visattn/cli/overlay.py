r"""Classify images, and overlay the attention or the scan path of the classifier on the original pixels.

    visattn overlay --checkpoint runs/demo/vit/best.ckpt --output runs/overlays photo.jpg folder/
    visattn overlay --checkpoint vit-cifar10 --output runs/overlays photo.jpg
    visattn overlay --timm vit_small_patch16_224 --method relevance --target "tabby" --output runs/cat cat.jpg
    visattn overlay --model hf:facebook/dinov2-small --output runs/dinov2 photo.jpg
    visattn overlay --timm deit3_small_patch16_224 --weights FILE --method raw --layer 5 --head 2 \
        --method rollout --fusion max --discard 0.9 --output runs/deit photo.jpg
    visattn overlay --timm vit_small_patch14_dinov2 --weights FILE --at 212,96 --output runs/here photo.jpg
    visattn overlay --checkpoint … --output … --export pdf --width 12cm --points 8 --contour 0.5 photo.jpg
    visattn overlay --checkpoint runs/shapes_glimpse/best.ckpt --export sheet,gif,npz --output runs/scans scene.png

--model reads transformers (hf:NAME, or hf:FOLDER that save_pretrained wrote), torchvision:NAME, open_clip:NAME/WEIGHTS
and timm:NAME, each with its own preprocessing and class names; --timm NAME is short for --model timm:NAME. hf and
open_clip need the extras transformers and open_clip.

Methods, the same for every class: raw (attention of one layer), value-norm (that times the size of what is attended to;
Kobayashi et al. 2020) and rollout (Abnar and Zuidema 2020). Methods that explain a class, the likeliest or --target:
gradient-rollout (Gildenblat 2020), relevance (Chefer, Gur and Wolf 2021), legrad (Bousselham et al. 2024), lrp
(conservative LRP; Ali et al. 2022), integrated-gradients (Sundararajan et al. 2017) and grad-cam (Selvaraju et al.
2017); lrp and integrated-gradients are signed, and what speaks against the class is drawn as 0. `visattn rank` compares
them. Without --method, rollout and the attention of the last layer are shown. All but raw, lrp and integrated-gradients
need layers that attend over one grid, but rollout works for Swin, SAM and Hiera, too; for other transformers (Swin,
PVT, CaiT …) raw shows any layer, laid over the whole image (docs/attention_maps.md).

Models that compare images with texts (CLIP, SigLIP and the like of hf and open_clip) explain texts in place of classes:
each --text has its own map, of the logit of image and text. The cosine of their features is printed and stands below
the map. Without --method it is relevance that is shown, or lrp for models whose layers do not share one grid.

    visattn overlay --model open_clip:ViT-B-16/openai --text "a cat" --text "a dog" --output runs/clip photo.jpg
    visattn overlay --model hf:google/siglip-base-patch16-224 --text "a cat" --output runs/siglip photo.jpg

In some models a few patches of no content have norms many times those of the others, and draw attention (docs/
attention_maps.md). --test-time-registers moves those norms onto an extra token before maps are made.

With --at, the maps are where the patch at that pixel attends, instead of the class token; the patch is framed.

--heads and --layers show raw attention of several heads and layers: all heads of one layer side by side, the means of
several layers, or a wall with a row for each layer and a column for each head.

    visattn overlay --model hf:FOLDER --heads all --output runs/heads photo.jpg
    visattn overlay --model hf:FOLDER --layers all --heads all --output runs/wall photo.jpg

--queries carries where every patch attends in some layers, the mean of their heads with 8 bits a weight, so that in the
page that `visattn view` makes of the results a click on the picture asks the patch there. For N patches that adds N²
bytes a layer and image to the .npz and 4/3 N² to the page: 66 kB and 87 kB for 16×16 patches, 1.9 MB and 2.5 MB for
37×37. The size is printed.

    visattn overlay --timm vit_small_patch14_dinov2 --weights FILE --image-size 224 224 --queries 5,8,11 \
        --output runs/dinov2 photo.jpg && visattn view --output dinov2.html runs/dinov2

For each image, the output folder receives the files selected by `--export`:

    sheet   <stem>.png: one panel per method, as pixels
    svg pdf <stem>.svg, <stem>.pdf: the same sheet, with text as text
    npz     <stem>.npz: the arrays: a map (H, W) for each method, named after it with _ for -, such as `rollout`;
            `layers` (depth, heads, H, W), the attention of every layer and head (the mean of the heads if their number
            differs between layers); `probabilities`, `classes`; `target`, the index of the class explained; `asked`,
            with --at, the patch, counted row by row; with --queries, `queries` (L, H W, H W) uint8, `queries_high`
            (L, H W) and `queries_layers` (L,), where patch n of a layer attends: queries[n] / 255 * queries_high[n];
            with --text, `texts` (T,) and `cosines` (T,), and of several texts maps such as `relevance_0`;
            and `geometry` (5, 2) or (8, 2), see `visattn.images.Geometry`

Of a glimpse model the sheet shows the scan path, numbered, with the frames of each glimpse's squares, and what was seen
at each fixation, with the likeliest class after it. It has no attention maps, so --method, --layer and the like are
errors. The exports are the same, and

    gif     <stem>.gif: the path so far beside what the model sees, one fixation after the other
    npz     <stem>.npz: `locations` (T, 2), (y, x) in original pixels; `squares` (K,), their sides in input pixels;
            `glimpses` (T, K, size, size, 3); `predicted` (T,) and `confidence` (T,); `classes`; `geometry`

`classes.json` lists every image with its classes and files.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from visattn.cli.models import add_classifier_options, add_model_options, add_register_option
from visattn.cli.pictures import add_picture_options, add_worker_options, exports_of, paper_of, style_of
from visattn.cli.program import add_image_argument, check_ranges, command_parser, parse, program
from visattn.errors import InputError
from visattn.files import protect

METHODS = (
    *("raw", "value-norm", "rollout", "gradient-rollout", "relevance", "legrad", "lrp", "integrated-gradients"),
    "grad-cam",
)
FUSIONS = ("mean", "max", "min")
EXPORTS = ("sheet", "svg", "pdf", "gif", "npz")
MAX_SIDE = 4096  # of the model's input, in pixels


def pixel(text: str) -> tuple[int, int]:
    """Two numbers from a text such as "31,29"."""
    x, y = text.split(",")
    return int(x), int(y)


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("overlay", __doc__)
    add_image_argument(parser, "+")
    add_classifier_options(parser, "classifier or glimpse model")
    parser.add_argument("--output", type=Path, required=True, help="output folder, created if missing")
    parser.add_argument("--method", action="append", choices=METHODS, help="map to show, see above; can be repeated")
    parser.add_argument("--layer", type=int, help="layer shown by raw and value-norm, from 0 (default: -1, the last)")
    parser.add_argument("--head", type=int, help="head shown by raw and value-norm, from 0 (default: the mean of all)")
    parser.add_argument("--layers", metavar="all|LIST", help="layers shown by raw, such as 0,5,11, in place of --layer")
    parser.add_argument("--heads", metavar="all|LIST", help="heads shown by raw, such as 0,3, in place of --head")
    parser.add_argument("--fusion", choices=FUSIONS, help="how rollout combines heads (default: mean)")
    parser.add_argument(
        "--discard", type=float, help="share of the smallest weights of a layer that rollout discards (default: 0)"
    )
    parser.add_argument("--target", metavar="CLASS", help="class to explain, by name or index (default: the likeliest)")
    parser.add_argument(
        "--text",
        action="append",
        help="text to explain, for models that compare images with texts (CLIP, SigLIP); can be repeated",
    )
    parser.add_argument(
        "--at",
        type=pixel,
        metavar="X,Y",
        help="show where the patch at this pixel of the original image attends; column and row from 0",
    )
    parser.add_argument(
        "--queries",
        metavar="all|LIST",
        help="layers of which visattn view shows where any patch attends, on a click; see above for the size they add",
    )
    add_register_option(parser)
    add_picture_options(parser, EXPORTS, "own, since methods and layers differ", "robust")
    parser.add_argument("--batch-size", type=int, default=8, help="images per batch (default: 8)")
    add_worker_options(parser)
    add_model_options(parser)
    options = parse(parser, args, "output")
    given = {name for name, value in vars(options).items() if value != parser.get_default(name)}
    ranges = {"batch_size": (1, 65_536), "image_size": (1, MAX_SIDE), "workers": (0, 256)}
    check_ranges(options, **ranges, test_time_registers=(1, 10_000))

    from visattn.images.reading import list_images
    from visattn.results import ClassWriter
    from visattn.tasks.overlay import (
        choose_methods,
        choose_queries,
        choose_wall,
        defined,
        overlay_images,
    )
    from visattn.tasks.registers import choose_registered
    from visattn.tasks.scans import choose_glimpses, overlay_scans

    if (glimpses := choose_glimpses(options, given)) is not None:
        running = {"batch_size": options.batch_size, "device": options.device, "precision": options.precision}
        _report(
            overlay_scans(glimpses, options.images, options.output, exports_of(options), paper_of(options), **running),
            options,
        )
        return
    wall, methods = choose_wall(options), choose_methods(options)
    style, paper = style_of(options, "own"), paper_of(options)
    exports, paths = exports_of(options), list_images(options.images)
    if "gif" in exports:
        raise InputError("--export gif is for glimpse models; a Vision Transformer has no scan path")
    queries = choose_queries(options, exports)
    protect(paths)
    ClassWriter(options.output, (), exports, style, paper).check_overwriting(paths)  # before a model is downloaded
    subject = choose_registered(options, paths)
    entries = overlay_images(
        subject,
        paths,
        options.output,
        methods if options.method or wall else defined(methods, subject.vit),
        options.target,
        options.batch_size,
        exports=exports,
        style=style,
        paper=paper,
        device=options.device,
        precision=options.precision,
        wall=wall,
        at=options.at,
        queries=queries,
        workers=options.workers,
    )
    _report(entries, options)


def _report(entries: Sequence[dict], options: argparse.Namespace) -> None:
    from visattn.overlay.layout import percent

    for entry in entries:
        said = [f"{entry['class']}, {percent(entry['probability'])}"] if "class" in entry else []
        said += [f"cosine {cosine:.3f} with '{text}'" for text, cosine in entry.get("cosines", {}).items()]
        print(": ".join(filter(None, (entry["image"], "; ".join(said)))))
    if sizes := [entry["queries"] for entry in entries if "queries" in entry]:
        file, page = _size(max(sizes)), _size(4 * max(sizes) / 3)
        print(f"--queries adds {file} to each .npz, before compression, and {page} an image to visattn view's page")
    print(f"classes.json and overlays ({options.export.replace(',', ', ')}) are in {options.output}")


def _size(count: float) -> str:
    return f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"
