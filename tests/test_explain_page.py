"""The page in which a Vision Transformer runs: its file, and its numbers, which are PyTorch's."""

import base64
import hashlib
import re

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from support.browsers import Parts
from support.explain_page import (
    ATTACK,
    MODELS,
    classifier,
    compare,
    input_of,
    opener,
    page_of,
    picture,
    png,
    settled,
    until,
)

from visattn.attention import MultiHeadSelfAttention
from visattn.cli import main
from visattn.errors import InputError
from visattn.explain_page.model import runnable
from visattn.explain_page.page import explain_page
from visattn.explain_page.samples import Sample, samples
from visattn.export.shipped import load_shipped
from visattn.images import fit_image, load_image
from visattn.models import GlimpseModel
from visattn.overlay.document import json_source
from visattn.tasks.export import export


def test_hostile_names_are_data_and_the_policy_allows_nothing_else():
    model = runnable(classifier(names=[ATTACK] * 7), "--checkpoint x")
    tame = explain_page(runnable(classifier(), "--checkpoint x"), [], "title")
    html = explain_page(model, [Sample(ATTACK, png(picture(7, 11)), ATTACK)], ATTACK)
    assert Parts(html).tags == Parts(tame).tags
    assert not Parts(html).addresses
    html.encode()
    policy = re.search(r'"Content-Security-Policy" content="(.*?)"', html)[1]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["default-src"] == ["'none'"]
    assert rules["script-src"] == [f"'sha256-{digest}'", "'wasm-unsafe-eval'"]
    assert set(rules["img-src"]) == {"data:", "blob:"}
    assert rules["worker-src"] == ["blob:"]
    assert "connect-src" not in rules
    assert json_source(ATTACK) in html


class Other(MultiHeadSelfAttention):
    """Computes something else."""


def test_drawings_of_the_classes_come_first():
    names = [sample.name for sample in samples(["truck", "ship"])]
    assert names[:2] == ["drawn ship", "generated shapes"]
    assert sorted(names[-2:]) == ["drawn airplane", "drawn automobile"]


def test_what_the_page_cannot_run_is_refused(monkeypatch):
    other, large, deep = classifier(), classifier(), classifier()
    other.model.blocks[1].attn = Other(35, 5)
    with torch.no_grad():
        large.model.head.weight[0, 0] = 1e6
        deep.model.head.bias[0] = torch.nan
    glimpses = classifier()._replace(model=GlimpseModel(7, (32, 32)))
    for exported, words in (
        (other, "has a Other .*blocks.1.attn"),
        (glimpses, "is a GlimpseModel"),
        (large, "half precision"),
        (deep, "not finite"),
    ):
        with pytest.raises(InputError, match=f"--checkpoint tiny.*{words}"):
            runnable(exported, "--checkpoint tiny")
    monkeypatch.setattr("visattn.explain_page.model.MOST_BYTES", 1000)
    with pytest.raises(InputError, match=r"--checkpoint tiny.* too many"):
        runnable(classifier(), "--checkpoint tiny")


def test_the_command_writes_pages_and_refuses_captioners(tmp_path, capsys):
    exported = classifier("one")
    exported.parts["model"]["init_args"] = MODELS["one"][1]
    export(exported, tmp_path / "folder", torch.zeros(2, 3, 5, 15, dtype=torch.uint8))
    picture(31, 43).save(tmp_path / "<b>.png")
    page = tmp_path / "new" / "page.html"
    command = ["explain-page", "--output", str(page), "--checkpoint"]
    assert main([*command, str(tmp_path / "folder"), "--images", str(tmp_path / "<b>.png")]) == 0
    change = float(re.search(r"at most (\S+)", capsys.readouterr().out)[1])
    assert 0 < change < 0.01
    assert "<h1>Inside folder</h1>" in page.read_text(encoding="utf-8")
    assert '"name":"\\u003cb\\u003e.png"' in page.read_text(encoding="utf-8")
    model = {path: path.read_bytes() for path in (tmp_path / "folder").iterdir()}
    for path in model:
        assert main(["explain-page", "--checkpoint", str(tmp_path / "folder"), "--output", str(path)]) == 2
        assert f"{path} is an input" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "folder").iterdir()} == model
    assert main([*command, "captioner-shapes"]) == 2
    assert "--checkpoint captioner-shapes is a captioner" in capsys.readouterr().err
    assert main([*command, str(tmp_path)]) == 2
    assert f"--checkpoint {tmp_path} cannot be used" in capsys.readouterr().err
    assert main([*command, "timm:vit_tiny_patch16_224"]) == 2
    assert "visattn app --model timm:vit_tiny_patch16_224" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- the browser


@pytest.fixture
def look(browser, tmp_path):
    with opener(browser, tmp_path / "page.html") as look:
        yield look


@pytest.mark.parametrize("kind", MODELS)
def test_logits_and_maps_are_those_of_pytorch(look, kind):
    model, html = page_of(classifier(kind), [picture(37, 53)])
    compare(look(html), model, [3, 0, 5])


def test_the_included_model_runs(look):
    model = runnable(load_shipped("vit-cifar10"), "--checkpoint vit-cifar10")
    html = explain_page(model, samples(["ship", "airplane", "automobile"]), "Inside vit-cifar10")
    assert len(html.encode()) < 16e6
    page = look(html)
    for name in ("automobile", "airplane", "ship"):
        page.get_by_role("button", name=f"drawn {name}").click()
        until(page, f"document.querySelector('#classes .best bdi')?.textContent === '{name}'")
    compare(page, model, [8, 3])
    page.evaluate("visattn.state.method = 'raw'; visattn.render()")
    grid, times = page.locator("#grid").bounding_box(), []
    for n in range(8):
        page.mouse.click(grid["x"] + (n + 0.5) * grid["width"] / 8, grid["y"] + 0.3 * grid["height"])
        times.append(page.evaluate("visattn.timings.map"))
        assert page.evaluate("visattn.state.query") == 1 + 2 * 8 + n
    assert page.evaluate("visattn.state.vectors")
    assert min(times) < 100  # milliseconds; the rest is other work of this machine


def test_without_workers_and_webassembly_the_numbers_are_the_same(look):
    model, html = page_of(classifier("stem"), [picture(37, 53)])
    broken = "class { constructor() { setTimeout(() => this.onerror()); } postMessage() {} }"
    for before in ("delete window.Worker; delete window.WebAssembly", f"window.Worker = {broken}"):
        page = look(html, before)
        assert page.evaluate("visattn.state.vectors") == ("delete" not in before)
        compare(page, model, [1])


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_pixels_are_those_that_pillow_makes(look, tmp_path, fit):
    exported = classifier("stem", fit)
    page = look(page_of(exported)[1])
    # Before version 13, Pillow began with the rows of tall pictures, too.
    sizes = [(61, 97), (333, 500), (7, 9), (10, 14), *([(97, 31), (641, 113)] if PIL.__version__ >= "13" else [])]
    for n, (height, width) in enumerate(sizes):
        image = Image.fromarray(np.random.default_rng(n).integers(0, 256, (height, width, 3), dtype=np.uint8))
        image.save(tmp_path / f"{n}.png")
        page.locator("#file").set_input_files(tmp_path / f"{n}.png")
        until(page, f"visattn.state.picture.name === '{n}.png'")
        np.testing.assert_array_equal(input_of(page), np.asarray(fit_image(image, exported.image_size, fit)[0]))
    settled(page)


def test_photographs_are_upright_and_transparency_is_white(look, tmp_path):
    exported = classifier()
    page = look(page_of(exported)[1])
    turned, clear = picture(61, 97), picture(61, 97, 1)
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    clear.putalpha(Image.fromarray(np.linspace(0, 255, 61 * 97).reshape(61, 97).astype(np.uint8)))
    clear.save(tmp_path / "clear.png")
    for name in ("turned.jpg", "clear.png"):
        page.locator("#file").set_input_files(tmp_path / name)
        until(page, f"visattn.state.picture.name === '{name}'")
        theirs = np.asarray(fit_image(load_image(tmp_path / name), exported.image_size, "crop")[0])
        assert np.abs(input_of(page).astype(int) - theirs).max() <= 3
    settled(page)
