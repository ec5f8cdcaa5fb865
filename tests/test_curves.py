"""What a training has logged, drawn along its epochs."""

import numpy as np
import pytest
from conftest import assert_nothing_overlaps

from visattn.cli import curves
from visattn.errors import InputError
from visattn.overlay import Curves, curves_sheet
from visattn.tasks import curves as work

HEAD = "epoch,step,train/loss,val/accuracy\n"


@pytest.fixture
def run(tmp_path):
    """Two epochs of seven steps; the second epoch was resumed, and is in a log of its own."""
    folder = tmp_path / "run"
    for version, rows in enumerate([",1,0.5,\n0,3,2.0,\n0,6,,0.25\n", "1,10,1.5,\n1,13,,0.75\n"]):
        log = folder / "logs" / f"version_{version}"
        log.mkdir(parents=True)
        (log / "metrics.csv").write_text(HEAD + rows)
    return folder


def test_a_number_stands_at_its_epoch(run):
    rows = work.read_metrics(run)
    epochs, values = work.line(rows, "val/accuracy", run)
    assert (epochs.tolist(), values.tolist()) == ([1.0, 2.0], [0.25, 0.75])
    epochs, values = work.line(rows, "train/loss", run)
    np.testing.assert_allclose(epochs, [2 / 7, 4 / 7, 11 / 7])
    assert values.tolist() == [0.5, 2.0, 1.5]


def test_the_mean_of_an_epoch_stands_at_its_end(run):
    rows = work.read_metrics(run)
    epochs, values = work.means(*work.line(rows, "train/loss", run))
    np.testing.assert_allclose(epochs, [1, 11 / 7])  # the second epoch's last loss was logged before its end
    assert values.tolist() == [1.25, 1.5]
    epochs, values = work.means(*work.line(rows, "val/accuracy", run))
    assert (epochs.tolist(), values.tolist()) == ([1.0, 2.0], [0.25, 0.75])


@pytest.mark.parametrize(
    ("values", "heights"),
    [([64.7, 93.2], list(range(60, 100, 5))), ([0.02, 0.98], [0, 0.2, 0.4, 0.6, 0.8, 1.0]), ([3.0, 3.0], None)],
)
def test_heights_are_round_and_enclose_the_values(values, heights):
    found = work.heights(np.array(values))
    assert heights is None or found == heights
    assert found[0] <= min(values) <= max(values) <= found[-1]
    assert found[0] < found[-1]


def test_a_figure_is_drawn(run, tmp_path):
    output = tmp_path / "new" / "a.png"
    words = [run, "--number", "val/accuracy", "--number", "train/loss", "--title", "Two epochs", "--output", output]
    assert not curves.main([str(word) for word in words])
    assert output.read_bytes().startswith(b"\x89PNG")
    assert not curves.main([str(word) for word in [*words, "--means"]])


def test_a_line_goes_through_its_values_and_says_its_last_one():
    epochs = np.array([1.0, 2.0, 3.0])
    lines = {"one": (epochs, np.array([0.0, 5.0, 7.0])), "another": (epochs, np.array([1.0, 2.0, 3.0]))}
    figure = curves_sheet([Curves("a number", lines, (0, 5, 10))], title="A title", note="a note")
    (axes,) = figure.axes
    drawn = [item for item in axes.lines if len(item.get_xdata()) == 3]
    assert [item.get_ydata().tolist() for item in drawn] == [[0, 5, 7], [1, 2, 3]]
    assert {"A title", "a note", "a number", "one", "another", "7", "3"} <= {text.get_text() for text in figure.texts}


def test_last_values_that_are_close_are_written_apart():
    epochs = np.array([1.0, 2.0])
    last = {"a": 5.0, "b": 5.1, "c": 9.0, "d": 4.95, "e": 5.0}
    lines = {name: (epochs, np.array([0.0, value])) for name, value in last.items()}
    figure = curves_sheet([Curves("a number", lines, (0, 10), "{:.2f}")])
    assert_nothing_overlaps(figure)
    heights = {text.get_text(): text.get_position()[1] for text in figure.texts}
    lines = {f"a run with a long name, {n}": (epochs, np.array([1.0, 0.0])) for n in range(7)}
    assert_nothing_overlaps(curves_sheet([Curves("a number", lines, (0, 10))]))  # nor do they run into the legend
    plain = curves_sheet([Curves("a number", lines, (0, 1), "{:g} %", "{:.1f} %")])
    assert {"1 %", "0.0 %"} <= {text.get_text() for text in plain.texts}  # digits alike beside each other
    assert heights["9.00"] > heights["5.10"] > heights["5.00"] > heights["4.95"]


def test_what_is_not_there_is_named(run, tmp_path):
    with pytest.raises(InputError, match="did not log 'val/CIDEr-D'; it logged train/loss, val/accuracy"):
        work.line(work.read_metrics(run), "val/CIDEr-D", run)
    with pytest.raises(InputError, match="has no logs"):
        work.read_metrics(tmp_path)
    with pytest.raises(ValueError, match="the line of 'one' in 'a number'"):
        curves_sheet([Curves("a number", {"one": (np.arange(3), np.arange(2))}, (0, 1))])
