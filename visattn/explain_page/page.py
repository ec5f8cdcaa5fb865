"""The page: a Vision Transformer that runs in the browser, its pictures and its maps, in one HTML file.

The scripts are plain functions in one scope, in files of `script/`, put together here: those of `engine/` become the
body of one function, which the page starts in a worker; those of `page/` draw and listen. Nothing is fetched.
"""

import base64
from collections.abc import Sequence
from importlib.resources import files
from string import Template

from visattn.explain_page.model import Runnable
from visattn.explain_page.samples import Sample
from visattn.images.reading import MAX_PIXELS, MAX_RATIO
from visattn.overlay.document import document, escaped, json_source, picture_source
from visattn.overlay.heatmap import palette

ENGINE = ("weights", "algebra", "simd", "embedding", "transformer", "messages")
PAGE = ("fit", "maps", "colours", "elements", "picture", "state", "stage", "panels", "tour", "main")


def explain_page(runnable: Runnable, samples: Sequence[Sample], title: str) -> str:
    """Make the page.

    Args:
        runnable: the model.
        samples: pictures to begin with; the first is shown.
        title: of the page.

    Returns:
        The HTML; write it with `visattn.files.write_text`.
    """
    sizes = runnable.sizes
    data = {
        "model": sizes,
        "palette": palette(),
        "limits": {"pixels": MAX_PIXELS, "ratio": MAX_RATIO},
        "samples": [{"name": s.name, "credit": s.credit, "source": picture_source(s.content)} for s in samples],
    }
    (h, w), (rows, columns) = sizes["imageSize"], sizes["grid"]
    layers, heads = (
        f"{n} {noun}{'' if n == 1 else 's'}" for n, noun in ((sizes["depth"], "layer"), (sizes["heads"], "head"))
    )
    here = files("visattn.explain_page")
    body = Template((here / "page.html").read_text(encoding="utf-8")).substitute(
        title=escaped(title),
        about=escaped(
            f"A Vision Transformer of {runnable.parameters / 1e6:.1f} million weights, {layers} of {heads}. "
            "It runs in this page, and nothing leaves it."
        ),
        input=escaped(f"What the model sees: {w}×{h} pixels, {_FITS[sizes['fit']]}, in {columns}×{rows} patches."),
        widest=4 * sizes["patch"],
        notes=escaped(
            "Weights are in half precision, everything is computed in single precision. Maps are visattn’s: raw "
            "attention, rollout, relevance." + (_STEM if sizes["halvings"] else "")
        ),
        data=json_source(data),
        weights=base64.b64encode(runnable.weights).decode(),
    )
    return document(title, (here / "page.css").read_text(encoding="utf-8"), body, script(), _ALLOWED)


_FITS = {"crop": "cropped to its middle", "pad": "with margins", "squash": "squeezed to fit"}
_STEM = (
    " This model’s tokens come from convolutions, so that each also knows its neighbourhood: a map shows which tokens "
    "are attended to, and not that only the pixels under them count."
)
# Pictures chosen from disk; the worker, which is made of the page's own script; WebAssembly, assembled by it.
_ALLOWED = {"img-src": "data: blob:", "worker-src": "blob:", "script-src": "'wasm-unsafe-eval'"}


def script() -> str:
    """The page's script."""
    answers = f"/** The model; `send` is given its answers. */\nfunction engine(send) {{\n{_joined('engine', ENGINE)}"
    return f'"use strict";\n\n{answers}\nreturn receive;\n}}\n\n{_joined("page", PAGE)}'


def _joined(folder: str, names: Sequence[str]) -> str:
    here = files("visattn.explain_page") / "script" / folder
    return "\n".join((here / f"{name}.js").read_text(encoding="utf-8") for name in names)
