"""The app: its models, its command, and its page in a browser with a real upload."""

import io
import json
import re
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from visattn.cli import main
from visattn.data.inputs import read_fitted
from visattn.errors import InputError
from visattn.explain import Raw, Relevance, Subject, ViT
from visattn.export.shipped import caption_model, load_exported
from visattn.images import fit_image
from visattn.images.reading import load_image
from visattn.overlay import heatmap, shared_limits
from visattn.overlay.heatmap import robust_limits
from visattn.tasks.app import readers, require_gradio
from visattn.tasks.app.readers import CaptionReader, ClassReader, draw, scale
from visattn.tasks.app.run import choose_reader, free_port

HOSTILE = "<img src=x onerror=alert(1)>${alert(2)}{{alert(3)}}"


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Photographs are shown with few pixels, for speed."""
    monkeypatch.setattr(readers, "SIDE", 160)


def captions(**options):
    return CaptionReader(caption_model("captioner-shapes"), "shapes", precision="32", **options)


def classes(name="vit"):
    exported = load_exported("vit-cifar10")

    def fit(image):
        return fit_image(image, exported.image_size, exported.fit)

    return ClassReader(Subject(ViT(exported.model, name), exported.normalise, fit, exported.class_names), name, "32")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "a scene.png"
    rng = np.random.default_rng(7)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    coarse.resize((149, 101), Image.Resampling.BICUBIC).save(path)
    return path


def data_of(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_captions_are_those_of_the_beam_and_their_maps_are_drawn(photo):
    reader, plain = captions(answers=3), caption_model("captioner-shapes")
    seen = reader.look(photo)
    assert 1 < len(seen.choices) <= 3
    first, second = (reader.choose(seen, number) for number in (0, 1))
    assert first.text != second.text
    assert seen.choices[0].startswith(first.text)
    (item,) = read_fitted([photo], plain.input.fit_image)
    (read,) = plain.read(item.tensor[None], [second.text.split()])
    np.testing.assert_allclose(second.maps, read.weights, atol=1e-5)
    assert list(second.steps) == read.words
    geometry = item.geometry.resized(seen.picture.shape[:2])
    expected = heatmap(seen.picture, second.maps[1], geometry, limits=shared_limits(second.maps))
    np.testing.assert_array_equal(draw(seen, second, 1), expected)
    assert re.fullmatch(r"probability \d+\.\d%", second.remarks[0])
    assert scale(seen, second, 1)[:2] == ("attention α", f"{np.max(second.maps):.3g}"), "all words have one scale"
    assert "per word" in reader.choices, "captions are not listed by their log-probabilities alone"


def test_parts_that_the_model_does_not_see_are_explained_beside_the_scale(photo):
    reader = classes()
    seen = reader.look(photo)
    answer = reader.choose(seen, 0)
    assert [scale(seen, answer, step)[0] for step in range(3)] == ["relevance", "attention", "attention"]
    assert "not seen" in scale(seen, answer, 0)[2], "wide photographs are cropped to their middle"
    high = robust_limits([answer.maps[1]])[1]
    assert scale(seen, answer, 1)[1].removeprefix("≥ ") == f"{high:.3g}"


def test_a_caption_of_the_users_is_read_word_by_word(photo):
    reader = captions()
    seen = reader.look(photo)
    answer = reader.read(seen, "A red ZEBRA above a zebra, a blue\ngnu!")
    assert list(answer.steps) == ["a", "red", "zebra", "above", "a", "zebra", "a", "blue", "gnu"]
    assert "“zebra” and “gnu”" in answer.note
    (expected,) = reader.model.read(seen.item.tensor[None], [list(answer.steps)])
    np.testing.assert_array_equal(answer.maps, expected.weights)
    np.testing.assert_allclose(np.sum(answer.maps, (1, 2)), 1, rtol=1e-5)
    assert reader.read(seen, "a red square").note == ""
    for text, said in (
        ("", "at least one word"),
        ("?!", "at least one word"),
        ("a " * 41, "41 words; type at most 40"),
    ):
        with pytest.raises(InputError, match=said):
            reader.read(seen, text)


def test_sheet_animation_and_viewer_page_are_written(photo, tmp_path):
    reader = captions(answers=3)
    seen = reader.look(photo)
    answer = reader.read(seen, "a red zebra")
    sheet, animation, page = reader.write(seen, answer, tmp_path)
    assert [path.name for path in (sheet, animation, page)] == ["a scene.png", "a scene.gif", "a scene.html"]
    with Image.open(sheet) as drawn, Image.open(animation) as frames:
        assert drawn.width > 149
        assert frames.n_frames >= 3
    (scene,) = data_of(page)["scenes"]
    (reading,) = scene["readings"]
    assert reading["words"] == ["a", "red", "zebra"]
    assert [further["answer"][0] for further in reading["further"]] == [caption.text for caption in seen.answers]


def test_classes_are_listed_and_explained(photo, tmp_path):
    reader = classes()
    seen = reader.look(photo)
    assert len(seen.choices) == 5
    chances = [int(re.search(r"(\d+)%$", line)[1]) for line in seen.choices]
    assert chances == sorted(chances, reverse=True)
    answer = reader.read(seen, " Frog ")
    assert answer.text == "frog"
    subject, image = reader.subject, load_image(photo)
    for step, method in (("relevance", Relevance()), ("last layer", Raw())):
        expected, geometry = subject.map(image, method, "frog")
        number = list(answer.steps).index(step)
        np.testing.assert_allclose(answer.maps[number], expected, atol=1e-6)
        picture = heatmap(seen.picture, answer.maps[number], geometry.resized(seen.picture.shape[:2]))
        np.testing.assert_array_equal(draw(seen, answer, number), picture)
    chosen = reader.choose(seen, 1)
    assert seen.choices[1].startswith(chosen.text)
    assert [path.name for path in reader.write(seen, chosen, tmp_path)] == ["a scene.png", "a scene.html"]
    with pytest.raises(InputError, match="has no class 'gnu'"):
        reader.read(seen, "gnu")


def test_a_file_that_is_no_photograph_is_named_without_its_place(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"^this photograph cannot be read"):
        captions().look(tmp_path / "text.jpg")


def options(**given):
    names = ("checkpoint", "model", "timm", "weights", "classes", "image_size")
    return SimpleNamespace(**dict.fromkeys(names) | {"device": "cpu", "precision": "32", "answers": 2} | given)


def test_models_are_chosen_as_overlay_does(photo):
    assert isinstance(choose_reader(options(checkpoint=Path("captioner-shapes"))), CaptionReader)
    assert isinstance(choose_reader(options(checkpoint=Path("vit-cifar10"))), ClassReader)
    reader = choose_reader(options(timm="test_vit", weights="random"))
    assert reader.name == "timm:test_vit"
    assert len(reader.look(photo).choices) == 5
    with pytest.raises(InputError, match="--classes needs --model or --timm"):
        choose_reader(options(checkpoint=Path("vit-cifar10"), classes=Path("names")))


def test_mistakes_are_sentences(monkeypatch, capsys):
    port = free_port("127.0.0.1", 0)
    assert free_port("127.0.0.1", port) == port
    for host in ("192.0.2.1", "no host", "a" * 300, "💥\u202e", "\udcff"):
        with pytest.raises(InputError, match="choose another --port or --host"):
            free_port(host, port)
    for host in ("", " "):  # not every address of the machine
        with pytest.raises(InputError, match="--host is empty"):
            free_port(host, 0)
    assert main(["app", "--port", "65536"]) == 2
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app"]) == 2
    assert "pip install 'visattn[app]'" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------- the page


@pytest.fixture
def visit(browser, tmp_path, monkeypatch):
    """Serve a reader and open its page, which must not use the network, log errors, or open dialogs."""
    pytest.importorskip("gradio", reason="the extra 'app' is not installed")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    require_gradio()
    from visattn.tasks.app.page import build, serve

    served, contexts, troubles = [], [], []

    def open_page(reader):
        served.append(build(reader, tmp_path))
        address = serve(served[-1], "127.0.0.1", free_port("127.0.0.1", 0))
        contexts.append(browser.new_context(accept_downloads=True))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        page.on(
            "request",
            lambda request: request.url.startswith((address, "data:", "blob:")) or troubles.append(request.url),
        )
        page.goto(address)
        return page, address

    yield open_page
    for context in contexts:
        context.close()
    for page in served:
        page.close(verbose=False)
    assert not troubles


def give(page, path):
    page.set_input_files("#photo input[type=file]", path)
    page.wait_for_selector("#steps input", state="attached")


def shown(page):
    """(H, W, 3) uint8: the map in the page."""
    with urllib.request.urlopen(page.locator("#map img").get_attribute("src")) as answer:
        return np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB"))


def until_shown(page, expected):
    for _ in range(60):
        if np.array_equal(shown(page), expected):
            return
        page.wait_for_timeout(100)
    np.testing.assert_array_equal(shown(page), expected)


@pytest.mark.filterwarnings("ignore")  # of Gradio and its libraries
def test_a_photograph_is_captioned_in_the_page(visit, photo, tmp_path, monkeypatch):
    reader = captions(answers=3)
    page, _ = visit(reader)
    give(page, photo)
    seen = reader.look(photo)
    first = reader.choose(seen, 0)
    assert page.locator("#says b").inner_text() == first.text
    assert page.locator("#steps label").all_inner_texts() == list(first.steps)
    until_shown(page, draw(seen, first, 0))
    page.locator("#steps label").nth(2).click()
    until_shown(page, draw(seen, first, 2))
    page.keyboard.press("ArrowRight")
    until_shown(page, draw(seen, first, 3))
    assert first.remarks[3] in page.locator("#remark").inner_text()
    meaning, high, _ = scale(seen, first, 3)
    assert page.locator("#scale p").inner_text().split() == [*meaning.split(), "0", high]
    assert page.locator("#scale i").bounding_box()["width"] > 100

    page.locator("#choices label").nth(1).click()
    second = reader.choose(seen, 1)
    until_shown(page, draw(seen, second, 0))
    assert page.locator("#says b").inner_text() == second.text

    page.fill("#typed input", "a red <b>zebra</b>")
    page.locator("#ask").click()
    page.wait_for_selector("#says p")
    assert "“b” and “zebra”" in page.locator("#says p").inner_text()
    read = reader.read(seen, "a red b zebra b")
    page.locator("#steps label").nth(3).click()
    until_shown(page, draw(seen, read, 3))

    def write(seen, answer, folder):
        paths = [folder / f"{seen.item.name}.{kind}" for kind in ("png", "gif", "html")]
        for path in paths:
            path.write_text(f"{path.suffix} of {answer.text}")
        return paths

    monkeypatch.setattr(reader, "write", write)
    page.locator("#prepare").click()
    page.wait_for_selector("#files a")
    for link, kind in zip(page.locator("#files a").all(), (".png", ".gif", ".html"), strict=True):
        with page.expect_download() as download:
            link.click()
        assert download.value.suggested_filename == f"a scene{kind}"
        assert Path(download.value.path()).read_text() == f"{kind} of a red b zebra b"


@pytest.mark.filterwarnings("ignore")
def test_nothing_that_is_uploaded_or_typed_becomes_part_of_the_page(visit, photo, tmp_path):
    reader = classes(name=HOSTILE)
    page, address = visit(reader)
    assert HOSTILE in page.locator("#head").inner_text()
    hostile = {"name": f"{HOSTILE}.png", "mimeType": "image/png", "buffer": photo.read_bytes()}
    give(page, hostile)
    page.fill("#typed input", HOSTILE)
    page.keyboard.press("Enter")
    page.wait_for_selector("#of-text p")
    assert f"has no class '{HOSTILE}'" in page.locator("#of-text").inner_text()
    page.fill("#typed input", "frog")
    page.locator("#ask").click()
    page.wait_for_selector("#says b:text-is('frog')")
    assert page.locator("#of-text p").count() == 0
    assert page.locator("img[src=x]").count() == 0

    damaged = {"name": "damaged.png", "mimeType": "image/png", "buffer": photo.read_bytes()[:60]}
    page.locator("#photo button:is([aria-label='Remove Image'], [aria-label=Clear], [title=Clear])").first.click()
    page.wait_for_selector("#result", state="detached")
    page.set_input_files("#photo input[type=file]", damaged)
    page.wait_for_selector("#of-photo p")
    assert "This photograph" in page.locator("#of-photo").inner_text()
    with urllib.request.urlopen(f"{address}config") as answer:
        config = json.loads(answer.read())
    assert config["analytics_enabled"] is False
    assert {dependency["api_visibility"] for dependency in config["dependencies"]} == {"private"}
