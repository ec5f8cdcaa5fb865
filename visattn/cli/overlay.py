r"""Classify images, and overlay the attention or the scan path of the classifier on the original pixels.

    visattn overlay --checkpoint runs/demo/vit/best.ckpt --output runs/overlays photo.jpg folder/
    visattn overlay --checkpoint vit-cifar10 --output runs/overlays photo.jpg
    visattn overlay --timm vit_small_patch16_224 --method relevance --target "tabby" --output runs/cat cat.jpg
    visattn overlay --timm deit3_small_patch16_224 --weights FILE --method raw --layer 5 --head 2 \
        --method rollout --fusion max --discard 0.9 --output runs/deit photo.jpg
    visattn overlay --checkpoint … --output … --export pdf --width 12cm --points 8 --contour 0.5 photo.jpg
    visattn overlay --checkpoint runs/shapes_glimpse/best.ckpt --export sheet,gif,npz --output runs/scans scene.png

Methods: raw (attention of one layer), rollout (Abnar and Zuidema 2020), gradient-rollout (Gildenblat 2020) and
relevance (Chefer, Gur and Wolf 2021). The last two explain a class: the likeliest, or --target. Without --method,
rollout and the attention of the last layer are shown. All but raw need layers that attend over one grid; for other
transformers (Swin, PVT, CaiT …) raw shows any layer, laid over the whole image (docs/attention_maps.md).

For each image, the output folder receives the files selected by `--export`:

    sheet   <stem>.png: one panel per method, as pixels
    svg pdf <stem>.svg, <stem>.pdf: the same sheet, with text as text
    npz     <stem>.npz: the arrays: a map (H, W) for each method, named after it with _ for -, such as `rollout`;
            `layers` (depth, heads, H, W), the attention of every layer and head (the mean of the heads if their number
            differs between layers); `probabilities`, `classes`; `target`, the index of the class explained; and
            `geometry` (5, 2) or (8, 2), see `visattn.images.Geometry`

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

from visattn.cli.models import add_model_options
from visattn.cli.pictures import add_picture_options, exports_of, paper_of, style_of
from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.errors import InputError
from visattn.files import protect

METHODS = ("raw", "rollout", "gradient-rollout", "relevance")
FUSIONS = ("mean", "max", "min")
EXPORTS = ("sheet", "svg", "pdf", "gif", "npz")
MAX_SIDE = 4096  # of the model's input, in pixels


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("overlay", __doc__)
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE|FOLDER", help="image files, or folders of images"
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--checkpoint",
        type=Path,
        help="classifier or glimpse model trained by 'visattn fit', or the included vit-cifar10",
    )
    model.add_argument("--timm", metavar="NAME", help="Vision Transformer from timm, such as vit_small_patch16_224")
    parser.add_argument("--output", type=Path, required=True, help="output folder, created if missing")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights of the timm model: a file with timm's keys, or 'random' (default: pretrained, from timm's hub)",
    )
    parser.add_argument("--classes", type=Path, metavar="FILE", help="class names of the timm model, one per line")
    parser.add_argument(
        "--image-size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="input size of the timm model (default: from timm's configuration)",
    )
    parser.add_argument("--method", action="append", choices=METHODS, help="map to show, see above; can be repeated")
    parser.add_argument("--layer", type=int, help="layer shown by raw, from 0 (default: -1, the last)")
    parser.add_argument("--head", type=int, help="head shown by raw, from 0 (default: the mean of all)")
    parser.add_argument("--fusion", choices=FUSIONS, help="how rollout combines heads (default: mean)")
    parser.add_argument(
        "--discard", type=float, help="share of the smallest weights of a layer that rollout discards (default: 0)"
    )
    parser.add_argument("--target", metavar="CLASS", help="class to explain, by name or index (default: the likeliest)")
    add_picture_options(parser, EXPORTS, "own, since methods and layers differ", "robust")
    parser.add_argument("--batch-size", type=int, default=8, help="images per batch (default: 8)")
    add_model_options(parser)
    options = parse(parser, args, "output")
    check_ranges(options, batch_size=(1, 65_536), image_size=(1, MAX_SIDE))

    from visattn.images.reading import list_images
    from visattn.results import ClassWriter
    from visattn.tasks.overlay import choose_methods, choose_subject, overlay_images, without_rollout
    from visattn.tasks.scans import choose_glimpses, overlay_scans

    if (glimpses := choose_glimpses(options)) is not None:
        running = {"batch_size": options.batch_size, "device": options.device, "precision": options.precision}
        _report(
            overlay_scans(glimpses, options.images, options.output, exports_of(options), paper_of(options), **running),
            options,
        )
        return
    methods = choose_methods(options)
    style, paper = style_of(options, "own"), paper_of(options)
    exports, paths = exports_of(options), list_images(options.images)
    if "gif" in exports:
        raise InputError("--export gif is for glimpse models; a Vision Transformer looks once")
    protect(paths)
    ClassWriter(options.output, (), exports, style, paper).require_room(paths)  # before a model is downloaded
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
    _report(entries, options)


def _report(entries: Sequence[dict], options: argparse.Namespace) -> None:
    for entry in entries:
        print(f"{entry['image']}: {entry['class']}, {entry['probability']:.0%}" if "class" in entry else entry["image"])
    print(f"classes.json and {options.export} are in {options.output}")
