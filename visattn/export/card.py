"""Model cards: the README.md of an exported model on the hub, with the header that the hub reads."""

import json
import re
from collections.abc import Mapping
from typing import Any

from visattn.export.hub import Address

_KINDS = {
    "captioner": ("image-to-text", ["image-captioning"]),
    "classifier": ("image-classification", ["vision-transformer"]),
    "glimpses": ("image-classification", ["recurrent-attention"]),
}  # the hub's name of the task, and tags
_HEADER = re.compile(r"\A---[ \t]*\n(.*?\n)---[ \t]*(?:\n|\Z)", re.DOTALL)
_SHOWN = 20  # class names

_CAPTION = """visattn caption --checkpoint {address} photo.jpg      # writes a sheet of maps, one for each word
```

```python
from torchvision.transforms.functional import pil_to_tensor
from visattn.export.shipped import caption_model
from visattn.images.reading import load_image

model = caption_model("{address}")
image, geometry = model.input.fit_image(load_image("photo.jpg"))
((caption,),) = model.caption(pil_to_tensor(image)[None])  # caption.text, and caption.weights (words, H, W)
"""
_CLASSIFY = """visattn overlay --checkpoint {address} --output maps photo.jpg
```

```python
from torchvision.transforms.functional import pil_to_tensor
from visattn.export.shipped import load_exported
from visattn.images import fit_image
from visattn.images.reading import load_image

exported = load_exported("{address}")
image, geometry = fit_image(load_image("photo.jpg"), exported.image_size, exported.fit)
logits = exported.model(exported.normalise(pil_to_tensor(image)[None]))
"""


def model_card(
    described: Mapping[str, Any],
    address: Address,
    parameters: int,
    licence: str,
    picture: str | None = None,
    scores: Mapping[str, Any] | None = None,
    text: str | None = None,
) -> str:
    """Write a card.

    Args:
        described: the content of `model.json`.
        address: where the model will be.
        parameters: how many numbers the model has learnt, its encoder's included.
        licence: of the weights, as the hub names licences.
        picture: the address of an example image, or None.
        scores: what `visattn evaluate --output` writes, or None.
        text: the authors' own card, which is kept, with those keys of the header that it lacks.

    Returns:
        Markdown after a header in YAML.
    """
    task, tags = _KINDS[described["kind"]]
    header: dict[str, Any] = {
        "license": licence,
        "library_name": "visattn",
        "pipeline_tag": task,
        "tags": ["visattn", "attention", *tags, "explainability", "pytorch", "safetensors"],
    }
    if picture:
        header["widget"] = [{"src": picture, "example_title": "Example"}]
    if text is None:
        text = _body(described, address, parameters, picture, scores or {})
    own = _HEADER.match(text)
    known = set(re.findall(r"^([\w-]+)[ \t]*:", own[1], flags=re.MULTILINE)) if own else set()
    # JSON is YAML, whatever characters a value has.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in header.items() if key not in known]
    rest = text[own.end() :] if own else text
    return "".join(["---\n", own[1] if own else "", *lines, "---\n", "" if rest.startswith("\n") else "\n", rest])


def _body(
    described: Mapping[str, Any], address: Address, parameters: int, picture: str | None, scores: Mapping[str, Any]
) -> str:
    use = (_CAPTION if described["kind"] == "captioner" else _CLASSIFY).format(address=address)
    parts = [
        f"# {address.repository.partition('/')[2]}",
        _introduction(described, parameters),
        *([f"![An example]({picture})"] if picture else []),
        f"## Use\n\n```bash\npip install 'visattn[hub]'\n{use}```",
        *_scores(scores),
        "## Files\n\n`model.json` describes the model and `model.safetensors` holds its weights. Loading them runs no "
        f"code from this repository. Written by visattn {described['visattn']}.",
        "An attention map shows which places a model weighted, which alone does not say why it answered as it did: "
        "`visattn faithfulness` tests how much the answer depends on them.",
    ]
    return "\n\n".join(parts) + "\n"


def _introduction(described: Mapping[str, Any], parameters: int) -> str:
    height, width = described["image_size"]
    size = f"{parameters:,} parameters, images of {width}×{height} pixels"
    if described["kind"] == "captioner":
        encoder, decoder = described["encoder"], described["decoder"]
        attention = decoder.get("init_args", {}).get("attention") or {}
        backbone = _code(encoder.get("init_args", {}).get("backbone", _last(encoder)))
        rows, columns = described["grid"]
        said = (
            f"An image captioner that shows where it looks: every word comes with the attention weights of a "
            f"{rows}×{columns} grid. `{_last(decoder)}`{f' with `{_last(attention)}`' if attention else ''} over "
            f"{backbone}; {size}, {len(described['vocabulary']):,} words."
        )
        if described["search"] is not None:
            options = ", ".join(f"{name} {value}" for name, value in described["search"].get("init_args", {}).items())
            said += f" It decodes by `{_last(described['search'])}`{f' ({options})' if options else ''}."
        if described["encoder_weights"] == "pretrained":
            said += (
                f"\n\nThe weights of its encoder {backbone} are the public pretrained ones. They are not in this "
                "repository: visattn takes them from an installed package or from timm's hub."
            )
        return said
    names = described["class_names"]
    listed = ", ".join(map(_code, names[:_SHOWN])) + (" …" if len(names) > _SHOWN else "")
    how = (
        "An image classifier that looks at a sequence of glimpses and shows its path over the image."
        if described["kind"] == "glimpses"
        else "An image classifier whose attention can be laid over the original pixels."
    )
    return f"{how} `{_last(described['model'])}`; {size}.\n\nIts {len(names)} classes: {listed}."


def _scores(scores: Mapping[str, Any]) -> list[str]:
    """A table of the numbers in `scores`, and the signature that says what was scored."""
    rows = {
        name: value
        for name, value in scores.get("scores", scores).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    if not rows:
        return []
    table = "\n".join(f"| {_code(name)} | {value:.4g} |" for name, value in rows.items())
    signature = scores.get("signature")
    said = f"\n\n{_code(signature)}" if isinstance(signature, str) else ""
    return [f"## Scores\n\n| score | value |\n|---|---:|\n{table}{said}"]


def _last(blueprint: Mapping[str, Any]) -> str:
    return str(blueprint.get("class_path")).rpartition(".")[2]


def _code(text: Any) -> str:
    """Any text as a span of code, so that nothing in it is Markdown or HTML."""
    return f"`{' '.join(str(text).split()).replace('`', chr(39)).replace('|', '/') or ' '}`"
