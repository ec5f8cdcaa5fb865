"""The comparison as a user runs it, its table and its figure."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import FAST, SMALL_SHAPES, assert_nothing_overlaps, pixels_of
from matplotlib.patches import Rectangle
from PIL import Image

from visattn.cli import compare
from visattn.data import ShapesCaptions
from visattn.errors import InputError
from visattn.figures import Comparison, Row, comparison_sheet
from visattn.images import Geometry
from visattn.overlay import encode_figure
from visattn.studies.comparison import step_times, table
from visattn.tasks.compare import MECHANISMS, SOURCES, Trial, summarised, train
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import load_model


def test_compare_writes_all_documented_files(tmp_path, capsys):
    output = tmp_path / "compare"
    words = ["--output", str(output), "--mechanisms", "hard", "transformer", "--scenes", "1"]
    words += ["--jobs", "1", "--options", *FAST, *SMALL_SHAPES]
    assert compare.main(words) == 0
    results = json.loads((output / "results.json").read_text())
    hard, transformer = (results["results"][name] for name in ("hard", "transformer"))
    assert hard["title"] == "Hard, leave one out"
    assert hard["step"] == 1  # "soft" is not among them, so the first is the measure
    assert transformer["step_ms"] > 0
    assert transformer["parameters"] != hard["parameters"]
    assert {"CIDEr-D", "grounding_pointing", "ground_truth_grounding_pointing", "attention_entropy"} <= set(
        hard["metrics"]
    )
    written = (output / "compare.md").read_text()
    scores = f"| {hard['metrics']['CIDEr-D']:.2f} | {hard['metrics']['BLEU-4']:.3f} | {hard['metrics']['true']:.1%} |"
    assert scores in written
    assert "| a place at random |" in written
    assert written in capsys.readouterr().out
    assert "±" not in written.split("\n\n")[0]
    with Image.open(output / "compare.png") as figure:
        assert figure.width > 1000

    trained = (output / "transformer" / "last.ckpt").stat().st_mtime_ns
    words[words.index("hard") : words.index("--scenes")] = ["transformer", "--seeds", "0", "3"]
    assert compare.main(words) == 0
    assert (output / "transformer" / "last.ckpt").stat().st_mtime_ns == trained  # not trained twice
    both = json.loads((output / "results.json").read_text())["results"]["transformer"]
    assert both["seeds"]["0"] == transformer["metrics"]
    assert both["seeds"]["3"]["CIDEr-D"] != both["seeds"]["0"]["CIDEr-D"]
    assert " ± " in (output / "compare.md").read_text()
    assert "Seed set to 3" in (output / "transformer_seed3.log").read_text()


def test_a_failed_run_is_named_with_its_reason(karpathy_root, tmp_path, capsys):
    words = ["--data", "flickr8k", "--output", str(tmp_path / "out"), "--mechanisms", "local_p"]
    assert compare.main(words) == 2
    assert "--root is missing" in capsys.readouterr().err
    options = ["--data.init_args.image_size=64", "--data.init_args.min_count=1", "--data.init_args.workers=0"]
    options += ["--model.init_args.encoder.init_args.weights=random", *FAST]
    assert compare.main([*words, "--root", str(karpathy_root), "--options", *options]) == 2
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "training 'local_p' failed" in sentence
    assert "window is 2, so it covers 5×5 places, but the grid has 2×2" in sentence


def test_the_minutes_of_an_interrupted_training_count(tmp_path, monkeypatch):
    (folder := tmp_path / "soft").mkdir()
    clock = iter(60 * minute for minute in (2, 5, 20, 31))

    def fit(*_, **__):
        (folder / "last.ckpt").touch()
        return SimpleNamespace(returncode=0 if (folder / "minutes_so_far.txt").exists() else 1)

    monkeypatch.setattr("subprocess.run", fit)
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    with pytest.raises(InputError, match="'soft' failed"):
        train(Trial("soft", 0), SOURCES["shapes"], tmp_path, (), 1)
    train(Trial("soft", 0), SOURCES["shapes"], tmp_path, (), 1)
    assert {path.name for path in folder.iterdir()} == {"last.ckpt", "minutes.txt"}
    assert float((folder / "minutes.txt").read_text()) == 3 + 11


def test_timing_leaves_a_model_as_it_was(captioner_checkpoint):
    model = load_model(captioner_checkpoint, Captioner)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = next(iter(ShapesCaptions(train_size=23).train_dataloader()))
    times = step_times({"soft": model}, batch, rounds=2)
    assert times["soft"] > 0
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_numbers_of_jobs_and_scenes(tmp_path, capsys):
    for option in ("--jobs", "--scenes"):
        assert compare.main([option, "0", "--output", str(tmp_path)]) == 2
        assert f"{option} is 0; it must be at least 1" in capsys.readouterr().err


def test_a_folder_is_not_ignored(tmp_path, capsys):
    assert compare.main(["--root", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "use --data flickr8k" in capsys.readouterr().err


def result(**metrics):
    return {"title": "T", "parameters": 1234, "step": 1.0, "metrics": {"CIDEr-D": 1.0, "BLEU-4": 0.5, **metrics}}


def test_the_table_omits_columns_without_data():
    plain = table({"soft": result(attention_entropy=1.5)})
    assert plain.splitlines()[0] == "| mechanism | CIDEr-D | BLEU-4 | entropy | decoder's parameters | time per step |"
    assert len(plain.splitlines()) == 3
    true = {"true": 0.875, "complete": 0.625, "relation": 0.375}
    lines = table({"soft": result(**true), "hard": result(true=0.125)}).splitlines()
    assert lines[0].startswith("| mechanism | CIDEr-D | BLEU-4 | true | complete | relation | decoder's parameters |")
    assert "| 87.5% | 62.5% | 37.5% |" in lines[2]
    assert "| 12.5% | – | – |" in lines[3]
    places = {f"grounding_pointing{control}": 0.25 for control in ("", "_uniform", "_centre")}
    head = table({"soft": result(**places, true=0.5)}).splitlines()[0]
    assert (
        head == "| mechanism | CIDEr-D | BLEU-4 | true | pointing, own words | decoder's parameters | time per step |"
    )
    names = [f"{kind}_{what}" for kind in ("grounding", "ground_truth_grounding") for what in ("pointing", "mass")]
    full = {f"{n}{c}": 0.25 for n in names for c in ("", "_uniform", "_centre")}
    lines = table({"soft": result(**full), "hard": result()}).splitlines()
    assert lines[2].count("25.0%") == 4
    assert lines[3].count("–") == 4
    assert lines[4].startswith("| a place at random |  |  | 25.0% |")
    assert len({line.count("|") for line in lines}) == 1
    assert "true" not in lines[0]  # places may be known where truth is not


def test_several_seeds_are_a_mean_and_a_standard_deviation():
    seeds = {
        0: {"true": 0.5, "CIDEr-D": 2.0, "BLEU-4": 0.5},
        3: {"true": 0.7, "CIDEr-D": 4.0, "BLEU-4": 0.5, "odd": 1.0},
    }
    found = summarised(seeds)
    assert found["metrics"] == pytest.approx({"true": 0.6, "CIDEr-D": 3.0, "BLEU-4": 0.5})
    assert found["sd"] == pytest.approx({"true": 0.02**0.5, "CIDEr-D": 2.0**0.5, "BLEU-4": 0.0})
    assert found["seeds"] == seeds
    assert summarised({7: seeds[0]}) == {"metrics": seeds[0], "sd": {}, "seeds": {7: seeds[0]}}
    line = table({"soft": result() | found}).splitlines()[2]
    assert line.startswith("| T | 3.00 ± 1.41 | 0.500 ± 0.000 | 60.0% ± 14.1% | 1,234 |")


def test_seeds_that_repeat_or_do_not_exist_are_refused(tmp_path, capsys):
    for seeds in (["3", "3"], ["-1"], [str(2**32)]):
        assert compare.main(["--seeds", *seeds, "--output", str(tmp_path)]) == 2
        assert "--seeds" in capsys.readouterr().err


GEOMETRY = Geometry((40, 60), (40, 60), (1.0, 1.0), (0.0, 0.0))


def comparison(**changes):
    maps = np.zeros((2, 2, 3))
    maps[0, 1, 2] = 1.0
    maps[1, 0, 0] = 0.5
    row = Row("soft $x_1$", "says: “a <b>”", maps, [None, 0])
    picture = np.full((40, 60, 3), 128, dtype=np.uint8)
    return Comparison(picture, ["dog", "犬"], GEOMETRY, [row._replace(**changes)])


def test_a_comparison_shows_the_weights_where_they_are():
    figure = comparison_sheet([comparison()])
    encode_figure(figure)
    texts = [text.get_text() for text in figure.texts]
    assert {"dog", "soft $x_1$", "scale to 1"} <= set(texts)
    pictures = [pixels.astype(int) for pixels in pixels_of(figure)]
    original, first = pictures[0], pictures[1]
    assert np.all(original == 128)
    colour = np.abs(first - first.mean(-1, keepdims=True)).sum(-1)
    cell = tuple(int(i) for i in np.unravel_index(colour.argmax(), colour.shape))
    assert cell[0] > first.shape[0] / 2
    assert cell[1] > 2 * first.shape[1] / 3
    assert len([artist for artist in figure.artists if isinstance(artist, Rectangle)]) == 2  # one frame, of two lines


def test_the_picture_is_visible_under_an_even_map():
    """The mean vector's row was one bright colour."""
    even = np.full((2, 5, 7), 1 / 35)
    figure = comparison_sheet([comparison(maps=even)])
    encode_figure(figure)
    assert "scale to 0.11" in {text.get_text() for text in figure.texts}
    panel = pixels_of(figure)[1].astype(int)
    assert panel.max() < 170


@pytest.mark.parametrize("size", [(40, 60), (40, 400), (400, 40)])
def test_long_names_do_not_overlap(size):
    image = np.full((*size, 3), 128, dtype=np.uint8)
    row = Row("a mechanism with a very long name " * 3, "says: " + "and more " * 30, np.ones((2, 2, 3)), [None, 0])
    figure = comparison_sheet([Comparison(image, ["dog", "w" * 99], Geometry.identity(size), [row] * 3)] * 2)
    assert_nothing_overlaps(figure)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"maps": np.ones((3, 2, 3))}, "2 words, but 'soft .*' has 3 maps"), ({"drawn": [None]}, "has 1 drawn cells")],
)
def test_what_does_not_fit_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        comparison_sheet([comparison(**changes)])
    with pytest.raises(ValueError, match="at least one picture"):
        comparison_sheet([])


def test_every_recurrent_row_states_its_order():
    """The default is Luong's for Shapes and Xu's for Flickr8k, so a row without an order would be ambiguous."""
    orders = {name: set(row.overlays) & {"xu", "luong"} for name, row in MECHANISMS.items()}
    assert orders.pop("transformer") == set()
    assert all(order == ({"xu"} if name.endswith("_xu") else {"luong"}) for name, order in orders.items())
