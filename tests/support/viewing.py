"""Pages of the viewer: sample readings, and the machine's own Chromium, without a network, to open them in."""

import base64
import io
import itertools
import json
import re
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from visattn.images import fit_geometry
from visattn.overlay import Answer, Reading, Scene

USUAL = {"viewport": {"width": 1280, "height": 720}}


def picture(height, width, seed=0):
    """A photograph's smoothness in all three colours."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def caption_reading(geometry, words=("a", "red", "square"), grid=(3, 5), seed=1, **more):
    rng = np.random.default_rng(seed)
    alpha = rng.dirichlet(np.full(grid[0] * grid[1], 0.5), len(words)).reshape(len(words), 1, 1, *grid)
    alpha[:1] = 1 / (grid[0] * grid[1])
    values = {
        "log_probs": -rng.random(len(words)),
        "gates": rng.random(len(words)),
        "entropies": rng.random(len(words)) * np.log(grid[0] * grid[1]),
    }
    answer = more.pop("answer", Answer(" ".join(words), -7.25))
    return Reading("caption", geometry, answer, {"alpha": alpha}, list(words), **{**values, **more})


def class_reading(geometry, seed=2):
    rng = np.random.default_rng(seed)
    maps = {"rollout": rng.random((1, 1, 1, 5, 3)), "layers": rng.random((1, 7, 2, 3, 5))}
    return Reading("class", geometry, Answer("cat", 0.75), maps, others=[Answer("dog", 0.2)])


def data_of(html):
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    return json.loads(found[1])


def jpeg(source):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGB"))


def weights_of(stack):
    cells = np.frombuffer(base64.b64decode(stack["cells"]), dtype=np.uint8).reshape(-1, *stack["shape"][-2:])
    low, high = (np.array(stack[end])[:, None, None] for end in ("low", "high"))
    return (low + cells / 255 * (high - low)).reshape(stack["shape"])


def scenes(count=3, readings=1, size=(311, 443)):
    geometry = fit_geometry(size, (64, 64), "crop")
    return [
        Scene(
            f"p{n}.jpg",
            picture(*size, seed=n),
            [
                caption_reading(geometry, (f"w{n}", "red", "square", "here")[: 4 - r], seed=n + 10 * r)
                for r in range(readings)
            ],
        )
        for n in range(count)
    ]


class Seen(NamedTuple):
    """An open page and what happened to it."""

    page: object
    troubles: list[str]

    def pixels(self, pane=0, canvas=".frame canvas"):
        """(H, W, 3) uint8: a canvas as it is."""
        return jpeg(self.page.locator(canvas).nth(pane).evaluate("canvas => canvas.toDataURL('image/png')"))

    def words(self, pane=0):
        return self.page.locator(".pane").nth(pane).get_by_role("option")

    def selected(self, pane=0):
        return [word.get_attribute("aria-selected") for word in self.words(pane).all()].index("true")

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def slide(self, name, value):
        self.page.get_by_role("slider", name=name).fill(str(value))

    def width(self):
        return self.page.evaluate("document.documentElement.scrollWidth")


class Tabs(NamedTuple):
    """A browser with an open page for each kind of screen, which a file's tests share.

    Attributes:
        browser: of Playwright.
        kept: the pages, by what they were opened with, and the addresses and texts that they must not have.
        folder: of the files that they show.
        numbers: of these files.
    """

    browser: object
    kept: dict
    folder: object
    numbers: object

    def open(self, options):
        """A page that must not access the network, log errors, or open dialogs; its troubles are collected."""
        troubles = []
        page = self.browser.new_context(**{**USUAL, **options}).new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        page.on(
            "request",
            lambda request: request.url.startswith(("data:", self.folder.as_uri())) or troubles.append(request.url),
        )
        return Seen(page, troubles)


@pytest.fixture(scope="module")
def tabs(browser, tmp_path_factory):
    return Tabs(browser, {}, tmp_path_factory.mktemp("pages"), itertools.count())


@pytest.fixture
def look(tabs):
    """Open a page, in a tab of its own with `fresh=True`, else in the one that was opened for such a screen before."""
    used = []

    def open_page(html, fragment="", fresh=False, **options):
        path = tabs.folder / f"view{next(tabs.numbers)}.html"
        path.write_text(html, encoding="utf-8")
        size = options.pop("viewport", USUAL["viewport"])
        kind = json.dumps(options, sort_keys=True)
        seen = tabs.open(options) if fresh or kind not in tabs.kept else tabs.kept[kind]
        if not fresh:
            tabs.kept[kind] = seen
        used.append((seen, fresh))
        seen.page.set_viewport_size(size)
        seen.page.mouse.move(2, 2)
        seen.page.goto(path.as_uri() + fragment)
        seen.page.wait_for_selector("html[data-shown]")
        return seen

    yield open_page
    troubles = [trouble for seen, _ in used for trouble in seen.troubles]
    for seen, fresh in used:
        seen.troubles.clear()
        if fresh:
            seen.page.context.close()
    assert not troubles
