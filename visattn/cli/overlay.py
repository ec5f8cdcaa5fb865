r"""Classify images with a Vision Transformer and lay where it looked over their original pixels.

    visattn overlay --checkpoint runs/demo/vit/best.ckpt --output runs/overlays photo.jpg folder/
    visattn overlay --checkpoint vit-cifar10 --output runs/overlays photo.jpg
    visattn overlay --timm vit_small_patch16_224 --method relevance --target "tabby" --output runs/cat cat.jpg
    visattn overlay --timm deit3_small_patch16_224 --weights FILE --method raw --layer 5 --head 2 \
        --method rollout --fusion max --discard 0.9 --output runs/deit photo.jpg
    visattn overlay --checkpoint … --output … --export pdf --width 12cm --points 8 --contour 0.5 photo.jpg

Methods, each by --method: raw (a layer's attention), rollout (Abnar and Zuidema 2020), gradient-rollout (Gildenblat
2020) and relevance (Chefer, Gur and Wolf 2021); the last two explain a class, the likeliest or --target. Without any,
rollout and the last layer are shown. Rollout and the methods that explain a class need layers that all attend over one
grid; of other transformers (Swin, PVT, CaiT …) raw shows any layer, laid over the whole image (docs/attention_maps.md).

Writes to the output folder, for each image, what `--export` names:

    sheet   <stem>.png: a panel for each method, in pixels
    svg pdf <stem>.svg, <stem>.pdf: the same sheet, in which text is text
    npz     <stem>.npz: the maps themselves: for each method its name with _ for -, (H, W), such as `rollout`; `layers`
            (depth, heads, H, W), what is attended to in every layer and head (the mean of heads where their number
            differs between layers); `probabilities`, `classes`; `target`, the number of the class explained; and
            `geometry` (5, 2) or (8, 2), see `visattn.images.Geometry`

and at the end `classes.json`, a list with an entry for each image.
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.models import add_model_options
from visattn.cli.pictures import add_picture_options, exports_of, paper_of, style_of
from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.files import protect

METHODS = ("raw", "rollout", "gradient-rollout", "relevance")
FUSIONS = ("mean", "max", "min")
EXPORTS = ("sheet", "svg", "pdf", "npz")
MAX_SIDE = 4096  # of an input, in pixels


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("overlay", __doc__)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE|FOLDER", help="image files, and folders of them")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--checkpoint",
        type=Path,
        help="a classifier trained by 'visattn fit', or vit-cifar10, which comes with visattn",
    )
    model.add_argument("--timm", metavar="NAME", help="a Vision Transformer of timm, such as vit_small_patch16_224")
    parser.add_argument("--output", type=Path, required=True, help="folder for what is written; made where missing")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="of the timm model: a file with timm's keys, or 'random' (default: pretrained, from timm's hub)",
    )
    parser.add_argument("--classes", type=Path, metavar="FILE", help="names of the timm model's classes, one a line")
    parser.add_argument(
        "--image-size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the timm model's input (default: as timm's configuration says)",
    )
    parser.add_argument("--method", action="append", choices=METHODS, help="may be given several times; see above")
    parser.add_argument("--layer", type=int, help="of raw, from 0 (default: -1, the last)")
    parser.add_argument("--head", type=int, help="of raw, from 0 (default: the mean of all)")
    parser.add_argument("--fusion", choices=FUSIONS, help="of heads in a rollout (default: mean)")
    parser.add_argument(
        "--discard", type=float, help="share of a layer's weights that a rollout leaves out, the smallest (default: 0)"
    )
    parser.add_argument("--target", metavar="CLASS", help="to explain: a name or number (default: the likeliest)")
    add_picture_options(parser, EXPORTS, "shared, or own where a method explains a class, since units then differ")
    parser.add_argument("--batch-size", type=int, default=8, help="images at a time (default: 8)")
    add_model_options(parser)
    options = parse(parser, args, "output")
    check_ranges(options, batch_size=(1, 65_536), image_size=(1, MAX_SIDE))

    from visattn.images.reading import list_images
    from visattn.results import ClassWriter
    from visattn.tasks.overlay import choose_methods, choose_subject, overlay_images, usual_scale, without_rollout

    methods = choose_methods(options)
    style, paper = style_of(options, usual_scale(methods)), paper_of(options)
    exports, paths = exports_of(options), list_images(options.images)
    protect(paths)
    ClassWriter(options.output, (), exports, style, paper).require_room(paths)  # before a model is fetched
    subject = choose_subject(options)
    entries = overlay_images(
        subject,
        paths,
        options.output,
        methods if options.method else without_rollout(methods, subject.vit),
        options.target,
        options.batch_size,
        exports=exports,
        style=style,
        paper=paper,
        device=options.device,
        precision=options.precision,
    )
    for entry in entries:
        print(f"{entry['image']}: {entry['class']}, {entry['probability']:.0%}" if "class" in entry else entry["image"])
    print(f"classes.json and {options.export} are in {options.output}")
