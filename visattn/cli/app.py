"""A page in the browser: give it a photograph, and see the caption or class and where the model looked.

    visattn app                                              # with captioner-flickr8k, which is included
    visattn app --checkpoint runs/demo/captioner/best.ckpt
    visattn app --checkpoint hf:ORG/NAME
    visattn app --timm vit_small_patch16_224 --port 8080
    visattn app --model open_clip:ViT-B-16/openai

A photograph comes from disk, the clipboard or the camera. Each word of a caption is a button that shows its map over
the photograph; arrow keys step through them. The other captions of the beam search can be chosen, and a caption of your
own can be typed, to see how the model reads it. Of a Vision Transformer the buttons are its likeliest classes and the
methods relevance, rollout and the attention of the last layer; a model that compares images with texts (CLIP, SigLIP)
explains any text that is typed. Sheet, animation and viewer page can be downloaded.

The page is open to this machine alone, unless --host says otherwise; there is no password. Nothing is sent anywhere,
and photographs are deleted when the program ends. It needs the extra app: uv run --extra app visattn app.
"""

from collections.abc import Sequence

from visattn.cli.models import add_classifier_options, add_model_options
from visattn.cli.program import check_ranges, command_parser, parse, program

MOST_ANSWERS = 20


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("app", __doc__)
    add_classifier_options(parser, "captioner or classifier", default="captioner-flickr8k")
    parser.add_argument("--answers", type=int, default=5, help="captions of a photograph to choose from (default: 5)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to serve, such as 0.0.0.0 for the network (default: 127.0.0.1)"
    )
    parser.add_argument("--port", type=int, default=7860, help="port to serve; 0 for any (default: 7860)")
    add_model_options(parser)
    options = parse(parser, args)
    check_ranges(options, answers=(1, MOST_ANSWERS), port=(0, 65_535), image_size=(1, 4096))

    from visattn.tasks import app

    app.require_gradio()  # before PyTorch is loaded, which takes seconds

    from visattn.tasks.app.run import run

    run(options)
