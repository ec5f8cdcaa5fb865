"""The viewer: the content of its file, and its behaviour in a browser."""

import base64
import hashlib
import json
import math
import re

import numpy as np
import pytest
from PIL import Image
from support.browsers import Parts
from support.viewing import caption_reading, class_reading, data_of, jpeg, picture, scenes, weights_of

from visattn.images import CellShift, Geometry, fit_geometry
from visattn.overlay import Answer, Queries, Scene, heatmap, shared_limits, viewer
from visattn.overlay.heatmap import cell_box, palette

ATTACKS = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'&amp;<!--",
    "a\u2028b\u2029c\x00d\ud800",
    "\u202eevil\u2066",
    "w" * 300,
    "",
)


# ---------------------------------------------------------------------------------------------------------- the file


def test_hostile_texts_are_data_and_nothing_else():
    geometry = Geometry.identity((11, 13))
    tame, hostile = (
        viewer(
            words[0],
            [words[1]],
            [
                Scene(
                    words[1],
                    picture(11, 13),
                    [caption_reading(geometry, words, others=[Answer(words[0], -9.0)])],
                )
            ],
        )
        for words in (["word"] * len(ATTACKS), ATTACKS)
    )
    assert Parts(hostile).tags == Parts(tame).tags
    assert Parts(hostile).tags.count("script") == 2
    assert not Parts(hostile).addresses
    assert "\u2028" not in hostile
    (scene,) = data_of(hostile)["scenes"]
    assert scene["readings"][0]["words"] == list(ATTACKS)
    assert scene["name"] == ATTACKS[1]
    hostile.encode()


def test_the_policy_allows_the_own_script_alone():
    html = viewer("t", ["m"], [Scene("p", picture(11, 13), [caption_reading(Geometry.identity((11, 13)))])])
    policy = re.search(r'"Content-Security-Policy" content="(.*?)"', html)[1]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["default-src"] == ["'none'"]
    assert rules["script-src"] == [f"'sha256-{digest}'"]
    assert rules["img-src"] == ["data:"]


def test_maps_come_back_within_the_error_that_the_page_states():
    geometry = Geometry.identity((11, 13))
    reading = class_reading(geometry)
    reading.maps["signed"] = np.linspace(-3, 5, 35).reshape(1, 1, 1, 5, 7)
    reading.maps["flat"] = np.full((1, 1, 1, 2, 3), 0.125)
    html = viewer("t", ["m"], [Scene("p", picture(11, 13), [reading])])
    stacks = {stack["name"]: stack for stack in data_of(html)["scenes"][0]["readings"][0]["maps"]}
    assert list(stacks) == list(reading.maps)
    for name, maps in reading.maps.items():
        assert weights_of(stacks[name]).shape == maps.shape
        span = np.ptp(maps, axis=(-2, -1), keepdims=True)
        assert np.all(np.abs(weights_of(stacks[name]) - maps) <= span / 510 + 1e-6 * np.abs(maps).max())
    assert "at most 1/510 of that range" in html


def test_a_large_picture_is_made_smaller_and_its_geometry_with_it():
    geometry = fit_geometry((1301, 997), (64, 64), "crop")
    reading = caption_reading(geometry, places=[None, 7, 14])
    data = data_of(viewer("t", ["m"], [Scene("p", picture(1301, 997), [reading])], side=211))
    (scene,) = data["scenes"]
    assert scene["size"] == [211, 162]
    assert jpeg(scene["picture"]).shape == (211, 162, 3)
    assert min(jpeg(scene["thumb"]).shape[:2]) == 96
    small = geometry.resized((211, 162))
    np.testing.assert_allclose(scene["readings"][0]["geometry"], small.to_array())
    # A place of the original is at the same place of the input, by either way.
    np.testing.assert_allclose(
        small.to_input(np.array([100.0, 50.0])),
        geometry.to_input(np.array([100.0 * 1301 / 211, 50.0 * 997 / 162])),
    )
    boxes = scene["readings"][0]["boxes"]
    assert boxes[0] is None
    np.testing.assert_allclose(np.array(boxes[1]) * (211, 162, 211, 162), cell_box(small, (3, 5), 7))


@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1), (1, 1), (96, 96)])
def test_pictures_of_any_shape_have_a_thumbnail(shape):
    reading = caption_reading(Geometry.identity(shape))
    (scene,) = data_of(viewer("t", ["m"], [Scene("p", picture(*shape), [reading])]))["scenes"]
    assert max(jpeg(scene["thumb"]).shape) <= 192
    assert min(jpeg(scene["thumb"]).shape[:2]) > 0


def test_what_does_not_fit_is_refused():
    geometry, pixels = Geometry.identity((11, 13)), picture(11, 13)
    good = caption_reading(geometry)
    for readings, words in (
        ([good, good], "2 readings for 1 models"),
        ([good._replace(gates=np.ones(2))], "2 gates"),
        ([good._replace(maps={"alpha": good.maps["alpha"][:2]})], "must be"),
        ([good._replace(maps={"alpha": good.maps["alpha"] * np.nan})], "finite"),
        ([good._replace(geometry=Geometry.identity((13, 11)))], "image must be"),
        ([good._replace(queries=Queries([0], 3, (2, 3), np.zeros((1, 6, 5), np.uint8), np.ones((1, 6))))], "6, 6"),
        ([good._replace(queries=Queries([0], 3, (2, 3), np.zeros((1, 6, 6)), np.ones((1, 6))))], "bytes"),
    ):
        with pytest.raises(ValueError, match=words):
            viewer("t", ["m"], [Scene("p", pixels, readings)])


def test_a_hundred_captions_stay_small():
    geometry = fit_geometry((480, 640), (288, 288), "squash")
    reading = caption_reading(geometry, ["word"] * 10, (9, 9))
    rng = np.random.default_rng(0)
    noisy = Image.fromarray(rng.integers(0, 256, (80, 107, 3), dtype=np.uint8))  # more detail than most photographs
    pixels = np.asarray(noisy.resize((640, 480), Image.Resampling.BICUBIC))
    one = len(viewer("t", ["m"], [Scene("p", pixels, [reading])]))
    two = len(viewer("t", ["m"], [Scene("p", pixels, [reading])] * 2))
    assert 100 * (two - one) + one < 16e6


# ------------------------------------------------------------------------------------------------------- the browser


EVEN = (5.5, -3.25)
UNEVEN = CellShift((5.5, -3.25), (19.0, 11.0), ((0.0, 0.0), (57.0, 59.0)))  # what lies below 57 reaches no cell


@pytest.mark.parametrize(
    ("fit", "smooth", "cells"),
    [("crop", True, EVEN), ("pad", False, EVEN), ("squash", True, UNEVEN), ("pad", False, UNEVEN)],
)
def test_the_canvas_shows_what_heatmap_draws(look, fit, smooth, cells):
    size = (311, 443)
    geometry = fit_geometry(size, (67, 59), fit)._replace(cell_shift=cells)
    reading = caption_reading(geometry)
    html = viewer("t", ["m"], [Scene("p", picture(*size), [reading])])
    shown = jpeg(data_of(html)["scenes"][0]["picture"])
    seen = look(html)
    if not smooth:
        seen.page.get_by_label("blocky").check(force=True)
    for opacity, scale in ((0.85, "shared"), (0.5, "own")):
        seen.slide("Opacity", opacity)
        seen.page.get_by_label(scale, exact=True).check(force=True)
        for t, weights in enumerate(reading.maps["alpha"][:, 0, 0]):
            seen.words().nth(t).click()
            expected = heatmap(
                shown,
                weights,
                geometry,
                limits=shared_limits(reading.maps["alpha"] if scale == "shared" else [weights]),
                opacity=opacity,
                interpolation="bilinear" if smooth else "nearest",
            )
            difference = np.abs(seen.pixels().astype(int) - expected)
            assert difference.mean() < 0.7
            assert np.quantile(difference, 0.999) <= 8  # a level of the colours, where their opacity begins steeply
            seen.page.keyboard.press("Escape")


def test_a_small_picture_is_enlarged_under_its_map(look):
    geometry = fit_geometry((61, 97), (64, 64), "crop")
    reading = caption_reading(geometry)
    html = viewer("t", ["m"], [Scene("p", picture(61, 97), [reading])])
    shown = jpeg(data_of(html)["scenes"][0]["picture"]).repeat(7, axis=0).repeat(7, axis=1)
    seen = look(html)
    seen.words().nth(1).click()
    expected = heatmap(
        shown,
        reading.maps["alpha"][1, 0, 0],
        geometry.resized((7 * 61, 7 * 97)),
        limits=shared_limits(reading.maps["alpha"]),
    )
    assert np.abs(seen.pixels().astype(int) - expected).mean() < 0.7


def test_hovering_shows_a_map_and_leaving_takes_it_away(look):
    seen = look(viewer("t", ["m"], scenes()))
    bare = seen.pixels()
    seen.words().nth(1).hover()
    red = seen.pixels()
    seen.words().nth(2).hover()
    square = seen.pixels()
    assert np.abs(red.astype(int) - bare).mean() > 3
    assert np.abs(red.astype(int) - square).mean() > 3
    seen.page.mouse.move(2, 2)
    np.testing.assert_array_equal(seen.pixels(), bare)
    seen.words().nth(1).click()
    seen.page.mouse.move(2, 2)
    np.testing.assert_array_equal(seen.pixels(), red)


def test_a_tap_shows_a_map_on_a_phone_which_does_not_scroll_sideways(look):
    for readings in (1, 2):
        html = viewer("t", ["m", "n"][:readings], scenes(readings=readings))
        seen = look(html, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
        assert seen.width() == 390
        for pane in range(readings):
            bare = seen.pixels(pane)
            seen.words(pane).nth(1).tap()
            assert seen.selected(pane) == 1
            assert np.abs(seen.pixels(pane).astype(int) - bare).mean() > 3


def test_arrow_keys_move_between_words(look):
    seen = look(viewer("t", ["m"], scenes()))
    bare = seen.pixels()
    seen.press("ArrowRight")
    assert seen.selected() == 0
    seen.press("ArrowRight", "ArrowRight", "ArrowLeft")
    assert seen.selected() == 1
    second = seen.pixels()
    seen.press("End")
    assert seen.selected() == 3
    seen.press("ArrowRight")
    assert seen.selected() == 3
    seen.press("Home", "ArrowRight")
    np.testing.assert_array_equal(seen.pixels(), second)
    seen.press("Escape")
    np.testing.assert_array_equal(seen.pixels(), bare)
    seen.press("ArrowDown")
    seen.page.wait_for_selector("html[data-shown='1']")
    assert seen.words().nth(0).inner_text().startswith("w1")
    assert seen.page.locator("#gallery [aria-current]").get_attribute("aria-current") == "true"
    assert "2 of 3" in seen.page.locator("#place").inner_text()
    seen.press("ArrowUp", "ArrowUp")
    seen.page.wait_for_selector("html[data-shown='0']")
    seen.press("?")
    assert seen.page.get_by_role("dialog").is_visible()
    seen.press("ArrowDown")
    assert "1 of 3" in seen.page.locator("#place").inner_text()
    seen.press("Escape")
    assert not seen.page.get_by_role("dialog").is_visible()


def test_the_space_bar_plays_and_stops(look):
    seen = look(viewer("t", ["m"], scenes()), fresh=True)
    seen.page.clock.install(time=0)
    seen.page.clock.pause_at(1000)  # else a slow machine's seconds count, too
    seen.press(" ")
    assert seen.selected() == 0
    assert seen.page.get_by_role("button", name="Stop").is_visible()
    seen.page.clock.run_for(1000)
    assert seen.selected() == 1
    seen.press(" ")
    seen.page.clock.run_for(5000)
    assert seen.selected() == 1
    seen.press(" ")
    seen.page.clock.run_for(5000)
    assert seen.selected() == 3
    assert seen.page.get_by_role("button", name="Play").is_visible()


def test_all_is_reached_by_the_tabulator_and_fields_keep_their_arrows(look):
    seen = look(viewer("t", ["m"], scenes()))
    reached = []
    for _ in range(14):
        seen.press("Tab")
        reached.append(
            seen.page.evaluate("[document.activeElement].map(e => e.id || e.getAttribute('role') || e.name)[0]")
        )
        assert seen.page.evaluate(
            "document.activeElement === document.body || document.activeElement.matches(':focus-visible')"
        )
    assert {"ask", "play", "opacity", "scale", "cells", "option"} <= set(reached)
    assert seen.selected() == 0  # to come to the words by keyboard shows the first
    seen.page.locator("#opacity").focus()
    seen.press("ArrowLeft")
    assert seen.page.locator("#opacity-value").inner_text() == "80%"
    assert seen.selected() == 0


def test_layers_heads_and_maps_of_a_classifier(look):
    size = (311, 443)
    geometry = fit_geometry(size, (64, 64), "squash")
    reading = class_reading(geometry)
    html = viewer("t", ["m"], [Scene("p", picture(*size), [reading])])
    shown = jpeg(data_of(html)["scenes"][0]["picture"])
    seen = look(html)

    def check(weights, limits):
        expected = heatmap(shown, weights, geometry, limits=limits)
        assert np.abs(seen.pixels().astype(int) - expected).mean() < 0.7

    layers = reading.maps["layers"][0]
    check(reading.maps["rollout"][0, 0, 0], shared_limits(reading.maps["rollout"]))
    assert not seen.page.locator("#layer").is_visible()
    seen.page.select_option("#map", "layers")
    check(layers[6].mean(0), shared_limits([layers[6].mean(0)]))
    seen.slide("Layer", 3)
    check(layers[2].mean(0), shared_limits([layers[2].mean(0)]))
    seen.slide("Head", 2)
    check(layers[2, 1], shared_limits([layers[2, 1]]))
    seen.page.get_by_label("shared").check(force=True)
    check(layers[2, 1], shared_limits(layers))
    seen.page.locator("body").click(position={"x": 3, "y": 3})
    seen.press("ArrowRight")
    check(layers[3, 1], shared_limits(layers))
    assert seen.page.locator("#layer-value").inner_text() == "3 of 0–6"
    assert "cat" in seen.page.get_by_role("list", name="Likeliest classes").inner_text()


def test_two_models_stand_side_by_side_and_walk_by_themselves(look):
    seen = look(viewer("t", ["one", "other"], scenes(readings=2)), viewport={"width": 1280, "height": 800})
    boxes = [seen.page.locator(".frame canvas").nth(n).bounding_box() for n in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert [boxes[0][side] for side in ("width", "height")] == [boxes[1][side] for side in ("width", "height")]
    assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"]
    bare = seen.pixels(1)
    np.testing.assert_array_equal(seen.pixels(0), bare)
    seen.press("ArrowRight")
    assert seen.selected(0) == 0
    np.testing.assert_array_equal(seen.pixels(1), bare)
    seen.press("2", "ArrowRight", "ArrowRight")
    assert (seen.selected(0), seen.selected(1)) == (0, 1)
    assert np.any(seen.pixels(1) != bare)
    assert [h.inner_text() for h in seen.page.locator(".pane h2").all()] == ["one", "other"]


def test_the_drawn_place_is_framed(look):
    size = (311, 443)
    geometry = fit_geometry(size, (64, 64), "pad")
    seen = look(viewer("t", ["m"], [Scene("p", picture(*size), [caption_reading(geometry, places=[None, 7, 0])])]))
    box, frame = seen.page.locator(".frame .box"), seen.page.locator(".frame canvas").bounding_box()
    seen.press("ArrowRight")
    assert not box.is_visible()
    seen.press("ArrowRight")
    found = box.bounding_box()
    top, left, bottom, right = cell_box(geometry, (3, 5), 7)
    share = frame["width"] / size[1]
    for side, value in (("x", left), ("width", right - left)):
        assert found[side] - (frame["x"] if side == "x" else 0) == pytest.approx(value * share, abs=1.5)
    assert found["height"] == pytest.approx((bottom - top) * share, abs=1.5)
    assert "the one place used" in seen.page.locator("#legend").inner_text()
    assert "not seen" not in seen.page.locator("#legend").inner_text()


def test_values_next_to_the_words(look):
    geometry = fit_geometry((311, 443), (64, 64), "crop")
    reading = caption_reading(geometry, others=[Answer("another one", -8.5)])
    seen = look(viewer("t", ["m"], [Scene("p", picture(311, 443), [reading])]))
    text = seen.words().nth(1).inner_text()
    assert f"{reading.gates[1]:.2f}" in text
    assert f"{reading.entropies[1]:.2f}" in text
    assert f"entropy {reading.entropies[1]:.2f}" in seen.words().nth(1).get_attribute("aria-label")
    chance = f"{math.exp(reading.log_probs[1]):.0%}"
    assert chance in text
    assert f"probability {chance}" in seen.words().nth(1).get_attribute("aria-label")
    main = seen.page.locator("main")
    assert "the probability of the word" in main.inner_text()
    assert "Log-probability of the caption −7.25" in main.inner_text()
    seen.page.get_by_text("1 other caption").click()
    assert "another one" in main.inner_text()
    assert "−8.50" in main.inner_text()
    assert "not seen by the model" in main.inner_text()
    assert "gate" in main.inner_text()
    without = [Scene("p", picture(311, 443), [reading._replace(gates=None)])]
    assert "gate" not in look(viewer("t", ["m"], without)).page.locator("main").inner_text()


def test_each_of_several_captions_has_its_maps(look):
    """By a tap or a key; one scale for all, and the other model's words stay as they were."""
    geometry = fit_geometry((311, 443), (64, 64), "crop")
    further = [
        caption_reading(geometry, ("two", "words"), seed=5, gates=None, answer=Answer("two words", -8.5)),
        caption_reading(geometry, ("three", "more", "words", "here"), seed=7),
    ]
    reading = caption_reading(geometry, further=further, others=[Answer("another one", -9.5)])
    other = caption_reading(geometry, ("x", "y"), seed=5)
    html = viewer("t", ["m", "n"], [Scene("p", picture(311, 443), [reading, other])])
    scene = data_of(html)["scenes"][0]
    seen = look(html)
    pane = seen.page.locator(".pane").first
    assert pane.locator(".ranks button").count() == 3
    assert seen.page.locator(".pane").nth(1).locator(".ranks").count() == 0
    assert "3 captions" in pane.inner_text()
    assert "1 other caption, without maps" in pane.inner_text()
    high = reading.maps["alpha"].max()  # of the caption that is about to be hidden
    assert high > max(one.maps["alpha"].max() for one in (*further, other))
    pane.locator(".ranks button").nth(1).click()
    assert pane.locator(".words .word").all_inner_texts() == ["two", "words"]
    assert pane.locator(".ranks [aria-current]").inner_text().split("\n")[0] == "two words"
    assert seen.page.evaluate("document.activeElement.getAttribute('aria-current')") == "true"
    seen.press("ArrowRight", "ArrowRight")
    weights = weights_of(scene["readings"][0]["further"][0]["maps"][0])[1, 0, 0]
    expected = heatmap(jpeg(scene["picture"]), weights, geometry, limits=(0.0, high))
    assert np.abs(seen.pixels().astype(int) - expected).mean() < 0.7
    seen.press("C")
    assert pane.locator(".words .word").all_inner_texts() == ["three", "more", "words", "here"]
    seen.press("2", "c", "1", "c")
    assert pane.locator(".words .word").all_inner_texts() == ["a", "red", "square"]
    assert seen.page.locator(".pane").nth(1).locator(".words .word").all_inner_texts() == ["x", "y"]


def test_the_keyboard_keeps_its_place_where_words_are_replaced(look):
    geometry = fit_geometry((311, 443), (64, 64), "crop")
    empty = caption_reading(geometry, ())
    several = caption_reading(geometry, further=[empty, caption_reading(geometry)], others=[Answer("another", -9.5)])
    readings = [[several], [several], [empty]]
    seen = look(viewer("t", ["m"], [Scene("p", picture(311, 443), one) for one in readings]))
    focused = lambda: seen.page.evaluate("document.activeElement.closest('.words, .ranks, summary')?.className")  # noqa: E731
    seen.page.locator(".ranks button").nth(2).click()
    seen.press("ArrowDown")
    assert focused() == "ranks"
    seen.page.locator("summary").click()
    seen.press("c")
    assert seen.page.locator("details").get_attribute("open") is not None
    assert seen.page.evaluate("document.activeElement.tagName") == "SUMMARY"
    seen.press("c", "ArrowRight")
    seen.words().first.focus()
    seen.press("ArrowUp")
    assert focused() == "words"
    seen.press("c")  # a caption without words: what stands for them
    assert focused() == "ranks"


def test_hostile_texts_stay_text(look):
    geometry = fit_geometry((311, 443), (64, 64), "crop")
    further = [caption_reading(geometry, ATTACKS[::-1])]
    reading = caption_reading(geometry, ATTACKS, others=[Answer(ATTACKS[0], -1.0)], further=further)
    html = viewer(ATTACKS[0], [ATTACKS[1], ATTACKS[0]], [Scene(ATTACKS[1], picture(311, 443), [reading] * 2)])
    for width in (390, 1280):
        seen = look(html, viewport={"width": width, "height": 800})
        seen.page.get_by_text("1 other caption").first.click()
        seen.press(*["ArrowRight"] * len(ATTACKS))
        assert seen.selected() == len(ATTACKS) - 1
        words = [word.locator(".word").evaluate("e => e.textContent") for word in seen.words().all()]
        assert words[:3] == list(ATTACKS[:3])
        assert words[4:] == [*ATTACKS[4:6], "(empty)"]
        assert seen.page.locator("script").count() == 2
        assert seen.page.locator("img").count() == 1  # the thumbnail
        assert seen.width() == width


def test_a_caption_without_words_and_a_flat_map(look):
    geometry = fit_geometry((311, 443), (64, 64), "crop")
    empty = caption_reading(geometry, ())
    zero = class_reading(geometry)._replace(maps={"nothing": np.zeros((1, 1, 1, 3, 5))})
    html = viewer("t", ["m", "n"], [Scene("p", picture(311, 443), [empty, zero])])
    seen = look(html)
    assert "has no words" in seen.page.locator("main").inner_text()
    seen.press("ArrowRight", " ", "End")
    expected = heatmap(jpeg(data_of(html)["scenes"][0]["picture"]), np.zeros((3, 5)), geometry, limits=(0.0, 0.0))
    assert np.abs(seen.pixels(1).astype(int) - expected).mean() < 0.7


def test_the_palette_is_the_overlays():
    numbers = palette()
    assert np.shape(numbers["table"]) == (256, 4)
    low, high = numbers["table"][0], numbers["table"][-1]
    assert low[3] == 0
    assert high[3] == 1
    json.dumps(numbers, allow_nan=False)
