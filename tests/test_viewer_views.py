"""The viewer's further views in a browser: all words at once, comparison, links, dark, print, and asked places."""

import io

import numpy as np
import pytest
from PIL import Image
from support.viewing import caption_reading, class_reading, data_of, jpeg, picture, scenes, weights_of

from visattn.errors import InputError
from visattn.explain.place import patch_at
from visattn.images import CellShift, fit_geometry
from visattn.overlay import Answer, Queries, Reading, Scene, heatmap, shared_limits, viewer
from visattn.overlay.heatmap import cell_box, robust_limits

SIZE = (311, 443)
TILES = ".tile canvas"


def difference(one, other):
    return np.abs(one.astype(int) - other).mean()


def view(seen):
    return seen.page.get_by_role("group", name="View").locator(":checked").get_attribute("value")


# ---------------------------------------------------------------------------------------------------- all words at once


def test_all_words_at_once_and_from_there_to_one(look):
    html = viewer("t", ["m"], scenes(2))
    scene = data_of(html)["scenes"][0]
    reading = scene["readings"][0]
    seen = look(html)
    seen.page.get_by_role("radio", name="All words").check(force=True)
    tiles = seen.page.get_by_role("region", name="All words").get_by_role("button")
    assert [tile.locator("bdi").inner_text() for tile in tiles.all()] == reading["words"]
    maps = weights_of(reading["maps"][0])[:, 0, 0]
    for t, weights in enumerate(maps):
        shown = seen.pixels(t, TILES)
        small = np.asarray(Image.fromarray(jpeg(scene["picture"])).resize(shown.shape[1::-1], Image.Resampling.BICUBIC))
        geometry = fit_geometry(SIZE, (64, 64), "crop").resized(shown.shape[:2])
        assert difference(shown, heatmap(small, weights, geometry, limits=shared_limits(maps))) < 1.5
    tiles.nth(2).click()
    assert (view(seen), seen.selected()) == ("picture", 2)
    seen.press("g")
    assert tiles.nth(2).get_attribute("aria-current") == "true"
    tiles.nth(2).focus()
    seen.press("ArrowRight")
    assert [tile.get_attribute("aria-current") for tile in tiles.all()] == [None, None, None, "true"]
    seen.press("Home", "Enter")
    assert (view(seen), seen.selected()) == ("picture", 0)
    assert seen.page.evaluate("document.activeElement.getAttribute('role')") == "option"
    seen.press("G", "ArrowDown")
    seen.page.wait_for_selector("html[data-shown='1']")
    assert tiles.first.inner_text() == "w1"
    seen.press("Escape")
    assert view(seen) == "picture"


def test_all_maps_of_a_classifier(look):
    reading = class_reading(fit_geometry(SIZE, (64, 64), "squash"))
    html = viewer("t", ["m"], [Scene("p", picture(*SIZE), [reading])])
    seen = look(html)
    seen.press("g")
    tiles = seen.page.locator(".tile")
    assert tiles.count() == 1 + 7
    assert "attention, layer 2" in tiles.nth(3).inner_text()
    assert seen.page.get_by_role("radio", name="All maps").is_checked()
    tiles.nth(3).click()
    layer = reading.maps["layers"][0, 2].mean(0)
    expected = heatmap(
        jpeg(data_of(html)["scenes"][0]["picture"]), layer, reading.geometry, limits=robust_limits([layer])
    )
    assert difference(seen.pixels(), expected) < 0.7
    assert seen.page.locator("#layer-value").inner_text() == "2 of 0–6"


# ------------------------------------------------------------------------------------------------------------ comparing


def test_two_maps_are_compared_by_wiping(look):
    html = viewer("t", ["one", "other"], scenes(readings=2))
    scene = data_of(html)["scenes"][0]
    seen = look(html)
    seen.words().nth(1).click()
    seen.press("w")
    wipe, frame = seen.page.get_by_role("slider", name="Wipe"), seen.page.locator(".frame")
    seen.page.get_by_label("Right map").select_option(label="3 · square", force=True)
    geometry, shown = fit_geometry(SIZE, (64, 64), "crop"), jpeg(scene["picture"])
    maps = weights_of(scene["readings"][0]["maps"][0])[:, 0, 0]
    high = max(one["maps"][0]["high"][t] for one in scene["readings"] for t in range(len(one["words"])))
    for side, t in enumerate((1, 2)):
        assert difference(seen.pixels(side), heatmap(shown, maps[t], geometry, limits=(0.0, high))) < 0.7
    pictures = {}
    for at in (0, 100, 30):
        wipe.fill(str(at))
        box = frame.bounding_box()
        file = seen.page.screenshot(clip={**box, "y": box["y"] + 40, "height": 0.3 * box["height"]})
        pictures[at] = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    width = pictures[30].shape[1]
    left, right = slice(2, int(0.28 * width)), slice(int(0.32 * width), width - 2)
    np.testing.assert_allclose(1.0 * pictures[30][:, left], pictures[100][:, left], atol=2)
    np.testing.assert_allclose(1.0 * pictures[30][:, right], pictures[0][:, right], atol=2)
    assert difference(pictures[0], pictures[100]) > 3
    wipe.focus()
    seen.press("ArrowLeft")
    assert wipe.input_value() == "29"
    box = frame.bounding_box()
    y = box["y"] + box["height"] / 2
    seen.page.mouse.move(box["x"] + 0.3 * box["width"], y)
    seen.page.mouse.down()
    seen.page.mouse.move(box["x"] + 0.7 * box["width"], y, steps=3)
    seen.page.mouse.up()
    assert int(wipe.input_value()) == pytest.approx(70, abs=1)
    seen.page.get_by_role("button", name="Swap").click()
    seen.press("ArrowRight")  # with the focus elsewhere, too
    assert int(wipe.input_value()) == pytest.approx(35, abs=1)
    assert seen.page.get_by_label("Left map").evaluate("e => e.selectedOptions[0].text") == "3 · square"
    seen.press("ArrowDown")  # in a picture of other words, the same numbers
    seen.page.wait_for_selector("html[data-shown='1']")
    assert view(seen) == "compare"
    seen.press("Escape")
    assert view(seen) == "picture"


def test_a_single_map_is_compared_with_the_picture(look):
    reading = caption_reading(fit_geometry(SIZE, (64, 64), "pad"), ("alone",), seed=4)
    seen = look(viewer("t", ["m"], [Scene("p", picture(*SIZE), [reading])]))
    bare = seen.pixels()
    seen.page.get_by_role("radio", name="Compare").check(force=True)
    assert difference(seen.pixels(0), bare) > 3
    np.testing.assert_array_equal(seen.pixels(1), bare)


# ---------------------------------------------------------------------------------------------------------------- links


def test_a_link_leads_to_the_very_word_and_back_again(look):
    html = viewer("t", ["m"], scenes(3))
    seen = look(html, fresh=True)
    page = seen.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    seen.words().nth(2).click()
    assert page.url.endswith("#picture=p0.jpg&word=3")
    seen.words().nth(1).click()
    seen.press("ArrowDown")
    page.wait_for_selector("html[data-shown='1']")
    page.go_back()
    page.wait_for_selector("html[data-shown='0']")
    assert seen.selected() == 1
    page.go_back()
    page.wait_for_selector(".words li:nth-child(3)[aria-selected=true]")
    page.go_forward()
    page.go_forward()
    page.wait_for_selector("html[data-shown='1']")
    assert seen.selected() == 0  # as the focus came to its words
    seen.press("ArrowRight", "l")  # steps leave no trace in the history, and are in the link
    page.get_by_text("Link copied").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.endswith("#picture=p1.jpg&word=2")
    page.wait_for_url(link)
    shown = seen.pixels()
    page.goto("about:blank")
    page.goto(link)
    page.wait_for_selector("html[data-shown='1']")
    assert seen.selected() == 1
    np.testing.assert_array_equal(seen.pixels(), shown)


def test_links_hold_views_layers_and_captions(look):
    geometry = fit_geometry(SIZE, (64, 64), "crop")
    several = caption_reading(geometry, further=[caption_reading(geometry, ("x", "y"), seed=3)])
    both = [Scene("same", picture(*SIZE), [several, class_reading(geometry)])] * 2
    html = viewer("t", ["m", "n"], both)
    seen = look(html, "#picture=2&model=2&caption=2&word=2&map=layers&layer=3&head=2")
    assert "2 of 2" in seen.page.locator("#place").inner_text()
    assert seen.selected() == 1
    assert seen.words().nth(1).inner_text().startswith("y")
    assert seen.page.locator("#layer-value").inner_text() == "2 of 0–6"
    assert seen.page.locator("#head-value").inner_text() == "1 of 0–1"
    seen.press("ArrowRight")
    seen.page.wait_for_url("**#picture=2&model=2&caption=2&word=2&map=layers&layer=4&head=2")
    seen = look(html, "#view=compare&sides=2.5,1.1&wipe=20")
    assert seen.page.get_by_role("slider", name="Wipe").input_value() == "20"
    assert seen.page.get_by_label("Left map").evaluate("e => e.selectedOptions[0].text") == "attention, layer 3"
    assert seen.page.get_by_label("Right map").input_value() == "1.1"


@pytest.mark.parametrize(
    "fragment",
    [
        "#picture=none.jpg&word=2",
        "#picture=99&word=99&caption=99&layer=0&head=-1&place=9.9&view=other",
        "#view=compare&sides=7.7,<img>&wipe=1e9&word=NaN&model=3&map=__proto__&place=1.x",
        "#%E0%A4%A&&&=",
    ],
)
def test_a_wrong_link_shows_the_page(look, fragment):
    seen = look(viewer("t", ["m"], scenes(2)), fragment)
    assert "1 of 2" in seen.page.locator("#place").inner_text()
    said = seen.page.locator("#notice").inner_text()
    assert said == ("The picture of this link is not in this page." if "none" in fragment or "99" in fragment else "")


# ----------------------------------------------------------------------------------------------------- dark and printed


def test_dark_follows_the_system_until_it_is_chosen_and_is_kept(look):
    seen = look(viewer("t", ["m"], scenes(1)), fresh=True, color_scheme="dark")
    page = seen.page
    light = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(251, 251, 250)"  # noqa: E731
    button = page.get_by_role("button", name="Dark colours")
    assert not light()
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert light()
    page.reload()
    assert light()
    seen.press("d")
    assert not light()
    page.emulate_media(color_scheme="light")
    page.wait_for_selector("#dark[aria-pressed=false]")
    assert light()


def test_printed_is_the_picture_with_its_map_and_all_words(look):
    html = viewer("t <b>", ["m"], scenes(2))
    seen = look(html, "#word=3&view=compare", fresh=True, color_scheme="dark")
    page = seen.page
    assert not page.locator("#paper").is_visible()
    page.emulate_media(media="print")
    page.locator("#paper .tile").first.wait_for()
    for selector in ("header", "nav", "main", "footer", "#notice"):
        assert not page.locator(f"body > {selector}").is_visible()
    assert page.locator("#paper button, #paper input, #paper select").count() == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("#paper h1").inner_text() == "t <b>"
    scene = data_of(html)["scenes"][0]
    assert page.locator("#paper .tile bdi").all_inner_texts() == scene["readings"][0]["words"]
    assert page.locator("#paper .said b").inner_text() == "square"
    maps = weights_of(scene["readings"][0]["maps"][0])[:, 0, 0]
    geometry = fit_geometry(SIZE, (64, 64), "crop")
    expected = heatmap(jpeg(scene["picture"]), maps[2], geometry, limits=shared_limits(maps))
    assert difference(seen.pixels(0, "#paper .lead .frame canvas"), expected) < 0.7
    assert page.pdf().startswith(b"%PDF")
    page.emulate_media(media="screen")
    assert page.locator("main").is_visible()


# ------------------------------------------------------------------------------------------------ where a place attends

GRID = (5, 7)
PATCHES = CellShift((0.0, 0.0), (12.0, 9.0), ((0.0, 0.0), (60.0, 63.0)))  # of 64 × 64 pixels; a rest is in no patch


def asked_scene(fit="crop", layers=(1, 4)):
    geometry = fit_geometry(SIZE, (64, 64), fit)._replace(cell_shift=PATCHES)
    rng = np.random.default_rng(3)
    weights = rng.dirichlet(np.full(35, 0.3), (len(layers), 35))
    high = weights.max(-1)
    cells = np.round(weights / high[..., None] * 255).astype(np.uint8)
    maps = {"layers": rng.random((1, 6, 2, *GRID)), "raw": rng.random((1, 1, 1, *GRID))}
    reading = class_reading(geometry)._replace(maps=maps, queries=Queries(layers, 6, GRID, cells, high))
    return Scene("p", picture(*SIZE), [reading]), weights


def test_a_click_asks_where_a_place_attends(look):
    scene, weights = asked_scene()
    reading = scene.readings[0]
    html = viewer("t", ["m"], [scene])
    shown = jpeg(data_of(html)["scenes"][0]["picture"])
    seen = look(html, viewport={"width": 1280, "height": 800})
    page, readout = seen.page, seen.page.locator(".readout")
    base = seen.pixels()
    assert "to see where it attends" in readout.inner_text()
    box = page.locator(".frame").bounding_box()
    scale = box["width"] / SIZE[1]

    def click(x, y):
        page.mouse.click(box["x"] + (x + 0.5) * scale, box["y"] + (y + 0.5) * scale)

    refused = []
    for x, y in ((100, 13), (221, 155), (376, 291), (80, 200), (300, 306), (20, 100), (440, 3)):
        click(x, y)
        try:
            cell = patch_at(x, y, reading.geometry, GRID, "p")
        except InputError:
            inside = 0 <= reading.geometry.to_input(np.array([y + 0.5, x + 0.5]))[1] < 64
            refused.append("in no patch" if inside else "outside the crop")
            assert refused[-1] in readout.inner_text()
            np.testing.assert_array_equal(seen.pixels(), base)
            continue
        row, column = divmod(cell, 7)
        assert f"Row {row + 1}, column {column + 1} attends most to " in readout.inner_text()
        mine = weights[1, cell]
        expected = heatmap(shown, mine.reshape(GRID), reading.geometry, limits=robust_limits([mine]))
        assert difference(seen.pixels(), expected) < 0.7
        frame = page.locator(".frame .box").bounding_box()
        top, left, bottom, _ = cell_box(reading.geometry, GRID, cell)
        assert frame["x"] - box["x"] == pytest.approx(left * scale, abs=1.5)
        assert frame["height"] == pytest.approx((bottom - top) * scale, abs=1.5)
    assert set(refused) == {"outside the crop", "in no patch"}
    click(221, 155)
    cell = patch_at(221, 155, reading.geometry, GRID, "p")
    page.get_by_label("Layer in which the place attends").select_option(label="1 of 0–5")
    mine = weights[0, cell]
    expected = heatmap(shown, mine.reshape(GRID), reading.geometry, limits=robust_limits([mine]))
    assert difference(seen.pixels(), expected) < 0.7
    row, column = divmod(cell, 7)
    page.wait_for_url(f"**&place={row + 1}.{column + 1}&asking=1")
    link = page.url
    page.locator("header").click(position={"x": 3, "y": 3})
    seen.press("Escape")
    np.testing.assert_array_equal(seen.pixels(), base)
    assert not page.locator(".frame .box").is_visible()
    seen = look(html, link[link.index("#") :])
    assert difference(seen.pixels(), expected) < 0.7


def test_places_are_asked_with_the_keyboard_alone(look):
    scene, weights = asked_scene("squash", layers=(3,))
    html = viewer("t", ["m"], [scene])
    seen = look(html)
    base = seen.pixels()
    frame = seen.page.get_by_role("application")
    assert "arrow keys" in frame.get_attribute("aria-label")
    frame.focus()
    seen.press("ArrowLeft")
    said = seen.page.locator(".readout")
    assert said.get_attribute("aria-live") == "polite"
    assert said.inner_text().startswith("Row 3, column 4 attends most to")
    seen.press("ArrowUp", "ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft")
    assert said.inner_text().startswith("Row 2, column 1 ")
    mine = weights[0, 7]
    expected = heatmap(jpeg(data_of(html)["scenes"][0]["picture"]), mine.reshape(GRID), scene.readings[0].geometry)
    assert difference(seen.pixels(), expected) < 0.7
    assert not seen.page.locator("#asking").is_visible()  # one layer only
    seen.press("w")  # and a place can be compared
    assert seen.page.get_by_label("Left map").evaluate("e => e.selectedOptions[0].text") == "row 2, column 1"
    assert difference(seen.pixels(0), expected) < 0.7
    seen.press("Escape")
    seen.page.get_by_role("button", name="Back to the map").click()
    np.testing.assert_array_equal(seen.pixels(), base)


def test_no_view_scrolls_sideways_at_360_pixels(look):
    for html in (viewer("t" * 60, ["m" * 50, "n"], scenes(readings=2)), viewer("t", ["m"], [asked_scene()[0]])):
        seen = look(html, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
        for name in ("Picture", "All", "Compare"):
            seen.page.get_by_role("radio", name=name).check(force=True)
            assert seen.width() == 360
        seen.page.get_by_role("button", name="Keys").tap()
        assert seen.page.get_by_role("dialog").bounding_box()["width"] <= 360
        seen.press("Escape")


# -------------------------------------------------------------------------------------------------------------- scans


def scan_reading(geometry, said=("cat", "dog", "dog"), sure=(0.25, 0.5, 0.9375)):
    sharp = np.zeros((len(said), 1, 1, 8, 8))
    frames = []
    for t in range(len(said)):
        sharp[t, 0, 0, t : t + 3, 1:4] = 1
        frames.append([10 * t, 20, 10 * t + 31, 64])
    maps = {"glimpse": sharp, "so_far": np.maximum.accumulate(sharp)}
    more = {"log_probs": np.log(sure), "frames": np.array(frames)}
    return Reading("scan", geometry, Answer(said[-1]), maps, list(said), **more)


def test_a_scan_plays_fixation_by_fixation(look):
    reading = scan_reading(fit_geometry(SIZE, (64, 64), "squash"))
    html = viewer("t", ["m"], [Scene("p", picture(*SIZE), [reading])])
    seen = look(html)
    steps = seen.page.get_by_role("listbox", name="Fixations of m").get_by_role("option")
    assert [step.inner_text().split()[:2] for step in steps.all()] == [["cat", "25%"], ["dog", "50%"], ["dog", "94%"]]
    assert seen.page.locator("#all").inner_text() == "All fixations"
    seen.press("ArrowRight", "ArrowRight")
    assert "fixation 2 of 3 · probability 50%" in seen.page.locator(".readout").inner_text()
    frame, box = (seen.page.locator(name).bounding_box() for name in (".frame", ".frame .box"))
    top, left = (box[side] - frame[side] for side in ("y", "x"))
    assert top / frame["height"] == pytest.approx(10 / SIZE[0], abs=0.01)
    assert left / frame["width"] == pytest.approx(20 / SIZE[1], abs=0.01)
    limits = shared_limits(reading.maps["glimpse"][:, 0, 0])
    pixels = jpeg(data_of(html)["scenes"][0]["picture"])
    expected = heatmap(pixels, reading.maps["glimpse"][1, 0, 0], reading.geometry, limits=limits)
    assert difference(seen.pixels(), expected) < 0.7
    seen.page.locator("#map").select_option("so_far")
    expected = heatmap(pixels, reading.maps["so_far"][1, 0, 0], reading.geometry, limits=limits)
    assert difference(seen.pixels(), expected) < 0.7
    steps.first.click()
    seen.page.locator("#play").click()
    seen.page.locator("#play", has_text="Stop").wait_for()
    seen.page.locator("#play", has_text="Play").wait_for()
    assert seen.selected() == 2
    legend = seen.page.locator("#legend").inner_text()
    assert "sharp square" in legend
    assert "entropy" not in legend


def test_frames_must_match_the_fixations():
    reading = scan_reading(fit_geometry(SIZE, (64, 64), "squash"))
    with pytest.raises(ValueError, match="3 words, but 2 frames"):
        viewer("t", ["m"], [Scene("p", picture(*SIZE), [reading._replace(frames=reading.frames[:2])])])
