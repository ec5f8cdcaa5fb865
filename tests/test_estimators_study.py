"""`visattn estimators`: what is measured and written."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from visattn.cli import estimators
from visattn.figures import Estimates, estimates_sheet
from visattn.studies.estimators import METHODS, compare_gradients, half_trained, make_scenes, pointing
from visattn.studies.learning import Progress, learn
from visattn.vocabulary import SPECIALS, START


def test_a_caption_names_the_marked_symbols_in_order():
    scenes = make_scenes(101, torch.Generator().manual_seed(2))
    symbols, marks = scenes.values[..., :5].argmax(-1), scenes.values[..., 5:].argmax(-1)
    assert (scenes.tokens[:, 0] == START).all()
    for t in (0, 1):
        assert (marks.gather(1, scenes.places[:, t : t + 1]) == t + 1).all()
        assert ((marks == t + 1).sum(1) == 1).all()
        assert (symbols.gather(1, scenes.places[:, t : t + 1])[:, 0] + len(SPECIALS) == scenes.tokens[:, t + 1]).all()


def test_half_trained_means_half_of_the_attention_at_the_true_places():
    decoder, steps = half_trained()
    assert 0 < steps < 600
    assert pointing(decoder, make_scenes(101, torch.Generator().manual_seed(9))) == pytest.approx(0.5, abs=0.06)
    assert half_trained(limit=0)[1] == 0


def test_bias_and_variance_of_gradients_that_are_known():
    torch.manual_seed(0)
    exact = torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64)
    noise = torch.randn(5003, 3, dtype=torch.float64)
    found = compare_gradients(1.2 * exact + noise, exact)
    assert found["bias"] == pytest.approx(0.2, abs=3 * found["bias_error"])
    assert found["bias_error"] == pytest.approx(1 / 5 / 5003**0.5, rel=0.05)
    assert found["bias_norm"] == pytest.approx(0.2, abs=0.02)
    assert found["variance"] == pytest.approx(3 / 25, rel=0.05)
    assert found["deviation"] > 20
    assert compare_gradients(exact + noise, exact)["deviation"] < 3


def test_a_table_a_figure_and_numbers_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("visattn.tasks.estimators.half_trained", lambda seed: half_trained(seed, limit=0))
    words = ["--methods", "enumeration", "rloo", "rebar", "gumbel", "--draws", "3", "--warmup", "2", "--scenes", "2"]
    output = tmp_path / "out"
    assert estimators.main([*words, "--output", str(output)]) == 0
    results = json.loads((output / "results.json").read_text())
    assert [row["method"] for row in results["stages"][0]["results"]] == ["enumeration", "rloo", "rebar", "gumbel"]
    for stage in results["stages"]:
        exact = stage["results"][0]
        assert abs(exact["bias"]) < 1e-4
        assert exact["variance"] < 1e-6
        assert exact["passes"] == 81
    text = (output / "estimators.md").read_text()
    assert METHODS["rebar"].title in text
    assert text.strip() in capsys.readouterr().out
    with Image.open(output / "estimators.png") as figure:
        assert figure.width == 1800
    assert estimators.main([*words, "--output", str(output)]) == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--methods", "rlo"], "'rlo'"), (["--draws", "2"], "--draws is 2"), (["--scenes", "0"], "--scenes is 0")],
)
def test_what_cannot_be_is_one_sentence(words, said, tmp_path, capsys):
    assert estimators.main([*words, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("error: ") == 1


def test_a_figure_of_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing to draw"):
        estimates_sheet([Estimates("none", [])])


def test_learning_curves_reach_both_the_time_and_the_steps():
    run = learn(METHODS["rloo"], seconds=0.0, steps=21, seed=0)
    assert run.steps.tolist() == [0, 10, 20, 30]
    assert (np.diff(run.seconds) > 0).all()
    longer = learn(METHODS["rloo"], seconds=run.seconds[-1] + 0.01, steps=1, seed=0)
    assert longer.seconds[-1] >= run.seconds[-1] + 0.01
    count = min(len(run.steps), len(longer.steps))
    assert longer.pointing[:count].tolist() == run.pointing[:count].tolist()  # the same training
    assert run.at("pointing", "steps", 5.0) == pytest.approx(run.pointing[:2].mean())


def test_exact_gradients_learn_where_to_look():
    run = learn(METHODS["enumeration"], seconds=0.0, steps=150, seed=1)
    assert run.pointing[0] < 0.2 < 0.6 < run.pointing[-1]
    assert run.right[-1] > 0.8


def test_when_a_level_is_reached():
    run = Progress(np.array([0, 10, 20]), np.array([0.0, 0.5, 0.75]), np.array([0.1, 0.95, 0.9]), np.zeros(3))
    assert (run.until(0.9, "steps"), run.until(0.9, "seconds"), run.until(0.99, "steps")) == (10, 0.5, np.inf)


def test_curves_are_written(tmp_path, capsys):
    output = tmp_path / "out"
    words = ["--curves", "0.01", "--steps", "10", "--seeds", "3", "5", "--methods", "rloo", "reinmax"]
    assert estimators.main([*words, "--output", str(output)]) == 0
    results = json.loads((output / "curves.json").read_text())
    assert [len(results["results"][name]) for name in ("rloo", "reinmax")] == [2, 2]
    text = (output / "curves.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert "pointing after 0.01 s" in text
    assert "not reached (0 of 2)" in text
    with Image.open(output / "curves.png") as figure:
        assert figure.width > 1000
    assert estimators.main([*words, "--output", str(output)]) == 2
