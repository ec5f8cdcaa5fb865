"""Drawing in other processes: the files, their order, and what goes wrong."""

import operator
import os

import numpy as np
import pytest

from visattn.cli import main
from visattn.errors import InputError
from visattn.images import Geometry
from visattn.overlay import Paper, Style
from visattn.results.captions import Drawing, encode
from visattn.results.workers import Workers, automatic_workers


@pytest.mark.parametrize("count", [0, 2])
def test_results_are_used_in_the_order_of_the_calls(count):
    used = []
    with Workers(count) as workers:
        for n in range(11):
            workers.run(pow, 3, n, then=used.append)
    assert used == [3**n for n in range(11)]


def test_another_process_draws_the_same_files():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (37, 53, 3), dtype=np.uint8)
    maps = rng.dirichlet(np.ones(15), 2).reshape(2, 3, 5)
    drawing = Drawing(
        image, ["a", "dog"], maps, Geometry.identity((37, 53)), [None, 7], [0.3, 0.9], "title", "attention"
    )
    forms, found = ["sheet", "svg", "words", "gif"], []
    with Workers(1) as workers:
        workers.run(encode, drawing, forms, Style(contour=(0.5,)), Paper(), then=found.extend)
    assert found == encode(drawing, forms, Style(contour=(0.5,)), Paper())
    assert [name for name, _ in found[2]] == ["01_a.png", "02_dog.png"]


@pytest.mark.parametrize("options", [[], ["--layers", "all", "--heads", "all"], ["--at", "31,29"]])
def test_overlay_writes_the_same_files_with_processes(options, photographs, tmp_path):
    for count in ("0", "1"):
        words = ["overlay", "--checkpoint", "vit-cifar10", "--export", "sheet,svg,npz", "--workers", count, *options]
        assert main([*words, "--output", str(tmp_path / count), str(photographs)]) == 0
    names = sorted(path.name for path in (tmp_path / "0").iterdir())
    assert len(names) == 7
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "0" / name).read_bytes()


def test_an_error_in_another_process_is_raised_here():
    used = []

    def divide(*numbers):
        with Workers(1) as workers:
            for n in numbers:
                workers.run(operator.floordiv, 6, n, then=used.append)

    with pytest.raises(ZeroDivisionError):
        divide(1, 0, 2)
    assert used == [6]


def test_a_process_that_dies_is_a_sentence():
    with pytest.raises(InputError, match="--workers"), Workers(1) as workers:
        workers.run(os._exit, 1, then=print)


def test_after_an_error_here_nothing_more_is_used():
    used = []

    def fail():
        with Workers(1) as workers:
            workers.run(pow, 2, 3, then=used.append)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert used == []


def test_numbers_of_workers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    assert [automatic_workers(n) for n in (1, 23, 24, 47, 1000)] == [0, 0, 2, 3, 5]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert automatic_workers(1000) == 0
    with pytest.raises(InputError, match="-1"):
        Workers(-1)
