"""What a reader can do with the page in which a Vision Transformer runs."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from support.explain_page import (
    ATTACK,
    NAMES,
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

from visattn.explain_page.model import runnable
from visattn.explain_page.page import explain_page
from visattn.explain_page.samples import of_photograph
from visattn.images import Geometry, fit_image
from visattn.overlay import heatmap


@pytest.fixture
def look(browser, tmp_path):
    with opener(browser, tmp_path / "page.html") as look:
        yield look


def test_what_is_no_picture_is_one_sentence(look, tmp_path):
    page = look(page_of(classifier(), [picture(31, 43)])[1])
    message = page.get_by_role("alert")
    for name, content, words in (
        ("<img src=x onerror=alert(1)>.png", b"no picture", "not a picture that this browser can read"),
        ("cut.png", png(picture(97, 101))[:99], "not a picture"),
        ("long.png", png(Image.new("RGB", (404, 4))), "404×4 pixels: one side is more than 100 times"),
        ("large.png", png(Image.new("RGB", (201, 307))), "million pixels"),
    ):
        page.evaluate(f"data.limits.pixels = {6e4 if name == 'large.png' else 8e7}")
        page.locator("#file").set_input_files({"name": name, "mimeType": "image/png", "buffer": content})
        message.filter(has_text=words).wait_for()
        assert message.inner_text().startswith(name)
        assert message.inner_text().count(". ") == 0
        assert page.evaluate("visattn.state.picture.name") == "p0"
    page.get_by_role("button", name="p0").click()
    message.wait_for(state="hidden")


def paste(page, kind, target, content):
    """Paste or drop a file."""
    page.evaluate(
        """([kind, target, content]) => {
            const transfer = new DataTransfer(), bytes = Uint8Array.from(atob(content), (sign) => sign.charCodeAt(0));
            transfer.items.add(new File([bytes], `${kind}.png`, { type: "image/png" }));
            const more = kind === "paste" ? { clipboardData: transfer } : { dataTransfer: transfer };
            const Kind = kind === "paste" ? ClipboardEvent : DragEvent;
            document.querySelector(target).dispatchEvent(new Kind(kind, { bubbles: true, cancelable: true, ...more }));
        }""",
        [kind, target, base64.b64encode(content).decode()],
    )
    until(page, f"visattn.state.picture.name === '{kind}.png'")


def test_pictures_are_pasted_dropped_and_drawn(look):
    exported = classifier()
    model, html = page_of(exported, [picture(31, 43)])
    page = look(html)
    for n, kind in enumerate(("paste", "drop")):
        image = picture(53, 71, 5 + n)
        paste(page, kind, "body", png(image))
        np.testing.assert_array_equal(input_of(page), np.asarray(fit_image(image, exported.image_size)[0]))
    page.get_by_role("button", name="white paper").click()
    until(page, "visattn.state.picture.name === 'white paper'")
    assert (input_of(page) == 255).all()
    assert page.get_by_role("radio", name="draw").is_checked()
    page.locator("#colour").fill("#204060")
    box = page.locator("#grid").bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.5 * box["height"], steps=3)
    page.mouse.up()
    settled(page)
    drawn = input_of(page)
    np.testing.assert_array_equal(drawn[7, 11], (32, 64, 96))
    assert (drawn[2] == 255).all()
    compare(page, model, [2])


def test_erased_pixels_are_neutral_and_probabilities_follow(look):
    model, html = page_of(classifier(), [picture(31, 43)])
    page = look(html)
    whole = input_of(page)
    page.get_by_role("radio", name="erase").check(force=True)
    box = page.locator("#grid").bounding_box()
    page.mouse.click(box["x"] + 5.5 / 22 * box["width"], box["y"] + 9.5 / 14 * box["height"])
    settled(page)
    changed = (input_of(page) != whole).any(-1)
    y, x = np.mgrid[:14, :22]
    np.testing.assert_array_equal(changed, np.hypot(y - 9, x - 5) <= 1.5)  # the brush's radius, 0.75 patches
    neutral = np.round(255 * np.array((0.43, 0.47, 0.53)))
    np.testing.assert_array_equal(input_of(page)[9, 5], neutral)
    assert page.evaluate("state.first !== state.run.probabilities")
    assert page.locator("#classes b:visible").count() == 7  # the marks of what it was
    page.get_by_role("button", name="Restore").click()
    until(page, "!visattn.state.picture.erased.includes(1)")
    settled(page)
    row = np.array(page.evaluate("[...visattn.currentRow()]"))[1:]
    page.get_by_role("button", name="Erase the brightest 10 patches").click()
    settled(page)
    gone = (input_of(page) == neutral).all(-1).reshape(7, 2, 11, 2).all((1, 3)).flatten()
    assert set(np.flatnonzero(gone)) == set(np.argsort(-row)[:10])
    compare(page, model, [4])


def test_the_canvas_shows_what_heatmap_draws(look):
    page = look(page_of(classifier(), [picture(531, 443)])[1])
    for opacity, smooth in ((0.85, True), (0.4, False)):
        page.evaluate(
            f"Object.assign(visattn.state, {{opacity: {opacity}, smooth: {str(smooth).lower()}}}); visattn.render()"
        )
        shown, view = (
            np.asarray(Image.open(io.BytesIO(base64.b64decode(page.evaluate(source).split(",")[1]))).convert("RGB"))
            for source in ("document.getElementById('canvas').toDataURL()", "visattn.state.picture.view.toDataURL()")
        )
        weights = np.array(page.evaluate("[...visattn.currentRow()]"))[1:].reshape(7, 11)
        geometry = Geometry(view.shape[:2], (14, 22), (14 / view.shape[0], 22 / view.shape[1]), (0.0, 0.0))
        drawn = heatmap(view, weights, geometry, opacity=opacity, interpolation="bilinear" if smooth else "nearest")
        difference = np.abs(shown.astype(int) - drawn)
        assert difference.mean() < 0.7
        assert np.quantile(difference, 0.999) <= 8


def test_the_keyboard_reaches_everything(look):
    page = look(page_of(classifier(), [picture(31, 43)])[1])

    def focused():
        return page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent")

    start = page.get_by_role("gridcell", name="row 4, column 6")
    start.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert focused().startswith("row 5, column 7")
    page.keyboard.press("Enter")
    assert page.evaluate("visattn.state.query") == 1 + 4 * 11 + 6
    assert page.locator("[role=gridcell][aria-selected=true]").count() == 1
    assert "patch in row 5, column 7" in page.locator("#readout").inner_text()
    page.keyboard.press("Escape")
    assert "class token" in page.locator("#readout").inner_text()
    for key, name, value in (("[", "layer", 0), ("h", "head", 0), ("m", "method", "rollout"), ("[", "layer", 1)):
        page.keyboard.press(key)
        assert page.evaluate(f"visattn.state.{name}") == value
    page.get_by_role("button", name="frog").press("Enter")
    until(page, "visattn.state.run.maps.relevances.has(3)")
    assert "Relevance for “frog”" in page.locator("#meaning").inner_text()
    assert page.get_by_role("button", name="frog").get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="layer 2, head 4").press("Enter")
    assert page.evaluate("[visattn.state.method, visattn.state.layer, visattn.state.head]") == ["raw", 1, 3]
    assert re.search(r"\w+ \d+%, .* and ", page.locator("#verdict").text_content())


def test_the_tour_has_eight_steps(look):
    page = look(page_of(classifier("stem"), [picture(31, 43)])[1])
    page.keyboard.press("t")
    titles = []
    for n in range(8):
        assert page.locator("#tour-count").inner_text() == f"Step {n + 1} of 8"
        assert page.evaluate("document.activeElement.id") == "tour-title"
        titles.append(page.locator("#tour-title").inner_text())
        page.get_by_role("button", name="Finish" if n == 7 else "Next").click()
    assert len(set(titles)) == 8
    assert not page.locator("#tour").is_visible()
    assert page.evaluate("document.activeElement.id") == "tour-open"
    settled(page)


def test_no_width_scrolls_sideways_and_names_have_room(look):
    names = ["w" * 60, ATTACK, "", *NAMES[3:]]
    model = runnable(classifier("stem", names=names), "--checkpoint x")
    html = explain_page(
        model, [of_photograph(ATTACK, picture(31, 43)), of_photograph("w" * 90, picture(31, 43))], ATTACK
    )
    page = look(html)
    page.keyboard.press("t")
    grounds = set()
    for width, scheme in ((360, "light"), (800, "dark"), (1280, "light")):
        page.set_viewport_size({"width": width, "height": 700})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2
    assert page.locator("#classes bdi").nth(1).text_content() == ATTACK
    assert page.locator("h1").text_content() == ATTACK
    settled(page)
