"""Training logs drawn as curves over epochs."""

import numpy as np
import pytest

from visattn.cli import curves
from visattn.errors import InputError
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


def test_values_are_drawn_at_their_epoch(run):
    rows = work.read_metrics(run)
    epochs, values = work.line(rows, "val/accuracy", run)
    assert (epochs.tolist(), values.tolist()) == ([1.0, 2.0], [0.25, 0.75])
    epochs, values = work.line(rows, "train/loss", run)
    np.testing.assert_allclose(epochs, [2 / 7, 4 / 7, 11 / 7])
    assert values.tolist() == [0.5, 2.0, 1.5]


def test_of_the_values_of_a_step_the_last_log_s_counts(run):
    for version in (11, 10, 9, 2):
        log = run / "logs" / f"version_{version}"
        log.mkdir()
        (log / "metrics.csv").write_text(f"{HEAD}1,13,,0.{version}\n")
    _, values = work.line(work.read_metrics(run), "val/accuracy", run)
    assert values.tolist() == [0.25, 0.11]


def test_values_are_drawn_along_steps_or_seconds(run):
    rows = [*work.read_metrics(run), {"step": "6", "train/seconds": "21.0"}, {"step": "13", "train/seconds": "35.0"}]
    assert work.line(rows, "val/accuracy", run, "step")[0].tolist() == [7, 14]
    seconds, values = work.line(rows, "train/loss", run, "train/seconds")
    assert seconds.tolist() == [6.0, 12.0, 21.0 + 4 * 2.0]
    assert values.tolist() == [0.5, 2.0, 1.5]
    with pytest.raises(InputError, match="did not log 'train/seconds'; it logged"):
        work.line(work.read_metrics(run), "train/loss", run, "train/seconds")


def test_runs_that_differ_only_in_their_seed_are_averaged(run):
    one, other = (np.array([1.0, 2.0]), np.array([0.25, 0.75])), (np.array([1.5, 2.5]), np.array([0.5, 1.0]))
    found = work.mean_of_seeds({"hard": one, "hard_seed3": other, "hard_2": one})
    assert list(found) == ["hard", "hard_2"]
    assert [part.tolist() for part in found["hard"]] == [[1.25, 2.25], [0.375, 0.875]]
    with pytest.raises(InputError, match="seeds of 'hard'"):
        work.mean_of_seeds({"hard": one, "hard_seed3": tuple(part[:1] for part in one)})


def test_the_mean_of_an_epoch_is_drawn_at_its_end(run):
    rows = work.read_metrics(run)
    epochs, values = work.means(*work.line(rows, "train/loss", run))
    np.testing.assert_allclose(epochs, [1, 11 / 7])  # the second epoch's last loss was logged before its end
    assert values.tolist() == [1.25, 1.5]
    epochs, values = work.means(*work.line(rows, "val/accuracy", run))
    assert (epochs.tolist(), values.tolist()) == ([1.0, 2.0], [0.25, 0.75])


def test_a_figure_is_drawn(run, tmp_path):
    output = tmp_path / "new" / "a.png"
    words = [run, "--number", "val/accuracy", "--number", "train/loss", "--title", "Two epochs", "--output", output]
    assert not curves.main([str(word) for word in words])
    assert output.read_bytes().startswith(b"\x89PNG")
    assert not curves.main([str(word) for word in [*words, "--means"]])
    assert not curves.main([str(word) for word in [*words, "--along", "step", "--along", "epoch", "--seeds"]])
    assert curves.main([str(word) for word in [*words, "--means", "--along", "step"]]) == 2


def test_labels_stand_for_names(run, tmp_path, monkeypatch, capsys):
    sheets = []
    monkeypatch.setattr(work, "save_figure", lambda figure, path: sheets.append(figure))
    words = [run, "--number", "val/accuracy", "--number", "train/loss", "--output", tmp_path / "a.png"]
    words += ["--along", "epoch", "--along", "step", "--label", "run=a model", "--label", "train/loss=the loss"]
    assert not curves.main([str(word) for word in [*words, "--label", "step=steps = updates"]])
    panels = [axes for axes in sheets[0].axes if axes.axison]
    assert [axes.get_title("left") for axes in panels] == 2 * ["val/accuracy", "the loss"]
    assert [axes.get_xlabel() for axes in panels] == ["epoch", "epoch", "steps = updates", "steps = updates"]
    legends = [axes.get_legend() for axes in sheets[0].axes if axes.get_legend()]
    assert [text.get_text() for legend in legends for text in legend.get_texts()] == ["a model: 75%", "a model: 1.5"]
    for label, said in (("nothing=x", "nothing=… names nothing"), ("run", "must be NAME=TEXT")):
        assert curves.main([str(word) for word in [*words, "--label", label]]) == 2
        assert said in capsys.readouterr().err


def test_missing_logs_are_named(run, tmp_path):
    with pytest.raises(InputError, match=r"'val/CIDEr-D'.*train/loss, val/accuracy"):
        work.line(work.read_metrics(run), "val/CIDEr-D", run)
    with pytest.raises(InputError, match="has no logs"):
        work.read_metrics(tmp_path)
