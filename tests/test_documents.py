"""README and docs/: their links lead somewhere, their commands parse, their Python runs."""

import io
import itertools
import re
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from conftest import CONFIGS
from PIL import Image
from support.documents import PAGES, ROOT, commands, of_visattn
from support.parsers import parser_of

import visattn.explain
from visattn.cli import COMMANDS, TRAINING
from visattn.overlay import heatmap

ALL = [
    pytest.param(words, id=f"{page.stem}: {' '.join(words)[:60]}")
    for page in PAGES
    for words in map(of_visattn, commands(page))
    if words
]


def test_the_readme_can_be_read_in_minutes():
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r'src="([^"]+)"', text)
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_every_page_is_in_the_sites_navigation():
    listed = set(re.findall(r": ([\w/]+\.(?:md|py))$", (ROOT / ".mkdocs.yml").read_text(encoding="utf-8"), flags=re.M))
    pages = [page for kind in ("*.md", "learn/*.py") for page in (ROOT / "docs").rglob(kind)]
    listed = {name for name in listed if not name.startswith("source/")}  # made when the site is: test_annotated.py
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in pages}


@pytest.mark.parametrize("words", ALL)
def test_commands_are_those_of_the_program(words, monkeypatch):
    name, *options = words
    if name.startswith("-"):
        assert name in ("--help", "--version")
    elif name in TRAINING:  # whose parser takes seconds; tests of the program run every configuration
        given = [value for option, value in itertools.pairwise(options) if option == "--config"]
        names = [value.removeprefix("configs/").removesuffix(".yaml") for value in given]
        known = {str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.rglob("*.yaml")}
        assert set(names) <= known
    else:
        assert name in COMMANDS
        parser_of(name.replace("-", "_"), monkeypatch).parse_args(options)


def python_of(page: str) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.S)
    return block


def test_the_readmes_map_is_the_models(tmp_path, monkeypatch):
    photo = np.random.default_rng(11).integers(0, 256, (103, 157, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    made = visattn.explain.timm_subject
    monkeypatch.setattr(visattn.explain, "timm_subject", lambda *args, **more: made(*args, weights="random", **more))
    torch.manual_seed(7)
    names: dict = {}
    exec(python_of("README.md").replace("photo.jpg", "photo.png"), names)
    assert names["weights"].shape == (16, 16)
    model, blocks = names["subject"].vit.model, []
    attention = model.blocks[-2].attn
    attention.fused_attn = False
    attention.attn_drop.register_forward_hook(lambda _, __, out: blocks.append(out))
    fitted, _ = names["subject"].see(Image.fromarray(photo))
    pixels = torch.from_numpy(np.array(fitted)).permute(2, 0, 1)[None]
    with torch.no_grad():
        model(names["subject"].normalise(pixels))
    expected = blocks[0][0, :, 0, 1:].mean(0).reshape(16, 16).numpy()
    np.testing.assert_allclose(names["weights"], expected, rtol=1e-4, atol=1e-7)
    drawn = heatmap(photo, names["weights"], names["geometry"])
    assert np.array_equal(np.asarray(Image.open("map.png")), drawn)
    page = (ROOT / "docs" / "attention_maps.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.S):
        if "patch_at" in block or "principal_components" in block:  # they go on from there
            exec(block.replace("(212, 96,", "(112, 96,"), names)
    assert names["cell"] == 14 * 16 + 13  # 157×103 pixels, of which the middle 103 are seen
    assert names["coordinates"].shape == (16 * 16, 3)


def test_the_tours_numbers_are_what_it_prints():
    text = python_of("docs/attention.md")
    with redirect_stdout(io.StringIO()) as said:
        exec(text, {})
    shown = [float(number) for number in re.findall(r"\d\.\d{4}", text)]
    assert shown
    assert [float(number) for number in re.findall(r"\d\.\d{4}", said.getvalue())][: len(shown)] == shown
