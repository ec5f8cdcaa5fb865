"""Small classifiers, their pages in Chromium, and what PyTorch says of what the page shows."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from visattn.data.inputs import to_tensor
from visattn.explain import Raw, Relevance, Rollout, ViT, rollout
from visattn.explain.relevance import contribution
from visattn.explain_page.model import runnable
from visattn.explain_page.page import explain_page
from visattn.explain_page.samples import Sample
from visattn.export import ExportedClassifier
from visattn.models import ConvolutionalStem, Normalise, VisionTransformer

NAMES = ["bear", "deer", "dog", "frog", "horse", "ship", "truck"]
ATTACK = "</script><img src=x onerror=alert(1)>\"'&\u2028.png"
# Of these the page may differ from PyTorch's by 1e-3; sums in another order differ by less than a hundredth of that.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def stem(patch, size):
    return ConvolutionalStem(patch, size, widths=(11,))


MODELS = {
    "patches": ((14, 22), {"patch": 2, "size": 35, "depth": 3, "heads": 5, "mlp_ratio": 1.4}),
    "stem": ((10, 14), {"patch": 2, "size": 26, "depth": 2, "heads": 13, "mlp_ratio": 1.5, "embed": stem}),
    "one": ((5, 15), {"patch": 5, "size": 17, "depth": 1, "heads": 1}),
}


def classifier(kind="patches", fit="crop", names=NAMES, seed=0):
    """Random weights, all of them large enough to matter."""
    size, options = MODELS[kind]
    torch.manual_seed(seed)
    model = VisionTransformer(len(names), size, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                torch.randn_like(parameter) * (0.7 if parameter.dim() < 2 else parameter[0].numel() ** -0.5)
            )
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    normalise = Normalise((0.43, 0.47, 0.53), (0.29, 0.23, 0.31))
    parts = {"model": {"class_path": "visattn.models.VisionTransformer", "init_args": dict(options)}}
    return ExportedClassifier(normalise, model, list(names), size, fit, parts)


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def png(image):
    stream = io.BytesIO()
    image.save(stream, format="png")
    return stream.getvalue()


def page_of(exported, pictures=(), title="Inside a model"):
    model = runnable(exported, "--checkpoint tiny")
    return model, explain_page(
        model, [Sample(f"p{n}", png(image), "made up") for n, image in enumerate(pictures)], title
    )


# ---------------------------------------------------------------------------------------------------------- the file


@contextmanager
def opener(browser: Any, path: Path) -> Iterator[Callable[..., Any]]:
    """Opens pages, written to `path`; they must not access the network, log errors, or open dialogs."""
    troubles, contexts = [], []

    def open_page(html, before="", **options):
        path.write_text(html, encoding="utf-8")
        contexts.append(browser.new_context(offline=True, **options))
        page = contexts[-1].new_page()
        page.add_init_script(before)
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        own = ("data:", "blob:", path.as_uri())
        page.on("request", lambda request: request.url.startswith(own) or troubles.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-run='1']")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not troubles


def input_of(page):
    h, w = page.evaluate("visattn.model.imageSize")
    return np.array(json.loads(page.evaluate("JSON.stringify([...visattn.input()])")), dtype=np.uint8).reshape(h, w, 3)


def until(page, expression):
    """Wait until an expression is true; playwright's own way of it evaluates text, which the page's policy forbids."""
    for _ in range(3000):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(10)
    raise AssertionError(f"never {expression}")


def settled(page):
    """Wait until the model has run on what is shown."""
    until(page, "!busy && !waiting")


def numbers(page, targets):
    """Logits, attention, rollout after each layer, and the relevance of some classes after each layer."""
    page.evaluate("visattn.state.method = 'relevance'")
    for target in targets:
        page.evaluate(f"visattn.state.target = {target}; visattn.render()")
        until(page, f"visattn.state.run.maps.relevances.has({target})")
    found = page.evaluate(
        """(targets) => {
            const { run } = visattn.state, { maps } = run, layers = [...Array(maps.depth).keys()];
            const tokens = [...Array(maps.count).keys()];
            return JSON.stringify({
                logits: [...run.logits], attention: [...maps.attention],
                mean: layers.map((layer) => [...maps.raw(layer, null, 0)]),
                rollout: layers.map((last) => tokens.map((query) => [...maps.rollout(last, query)])),
                relevance: targets.map((target) => layers.map((last) => [...maps.relevance(target, last)])),
            });
        }""",
        targets,
    )
    return {name: np.array(values) for name, values in json.loads(found).items()}


@torch.no_grad()
def expected(model, pixels, targets):
    """The same by PyTorch and `visattn.explain`."""
    exported = model.exported
    images, vit = exported.normalise(to_tensor(Image.fromarray(pixels))[None]), ViT(exported.model)
    maps = vit.maps(images)
    found = {
        "logits": exported.model(images)[0],
        "attention": torch.stack(maps).flatten(),
        "mean": torch.stack([layer.mean(1)[0, 0] for layer in maps]),
        "rollout": torch.stack([rollout(maps[: n + 1])[0] for n in range(len(maps))]),
        "relevance": torch.zeros(len(targets), len(maps), maps[0].shape[-1]),
    }
    for row, target in zip(found["relevance"], targets, strict=True):
        relevance = eye = torch.eye(maps[0].shape[-1])
        for n, (layer, gradient) in enumerate(vit.judged(images, torch.tensor([target])).layers):
            relevance = relevance + contribution(layer, gradient) @ relevance
            row[n] = (relevance - eye)[0, 0]
    # The last of each are the package's own maps.
    flat = {
        "rollout": Rollout()(vit, images),
        "mean": Raw()(vit, images),
        "relevance": Relevance()(vit, images, torch.tensor(targets[:1])),
    }
    for name, own in flat.items():
        whole = {"rollout": found["rollout"][-1, 0], "mean": found["mean"][-1], "relevance": found["relevance"][0, -1]}[
            name
        ]
        torch.testing.assert_close(whole[1:], own.flatten())
    return {name: values.numpy() for name, values in found.items()}


def compare(page, model, targets):
    ours, theirs = numbers(page, targets), expected(model, input_of(page), targets)
    for name, values in theirs.items():
        np.testing.assert_allclose(ours[name].reshape(values.shape), values, **TOLERANCE, err_msg=name)
