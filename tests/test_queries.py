"""visattn overlay --queries: where every patch attends, in 8 bits, in the results and in the viewer's page."""

import base64
import json
import re

import numpy as np
import pytest
import timm
import torch

from visattn.cli import overlay, view
from visattn.data.inputs import read_fitted
from visattn.errors import InputError
from visattn.explain import Layered, record
from visattn.explain import place as asking
from visattn.images.reading import list_images
from visattn.results import list_results
from visattn.training.checkpoints import load_model
from visattn.training.classifier import Classifier

WITHIN = 1.0001 / 510  # rounding of float32 beside that to bytes


def run(*words):
    return overlay.main([str(word) for word in words])


def results_of(checkpoint, photographs, output):
    words = ["--checkpoint", checkpoint, "--method", "raw", "--export", "npz", "--queries", "0,-1"]
    assert run(*words, "--output", output, photographs) == 0
    return output


def test_each_row_is_the_recorded_one_to_half_a_step(classifier_checkpoint, photographs, tmp_path, capsys):
    """In the .npz, in what is read of it, and in the page; rows of the patches, without the class token's column."""
    results = results_of(classifier_checkpoint, photographs, tmp_path / "out")
    assert "--queries adds 8 kB to each .npz" in capsys.readouterr().out
    assert view.main(["--output", str(tmp_path / "view.html"), str(results)]) == 0
    data = re.search(r'id="data">(.*?)</script>', (tmp_path / "view.html").read_text(), re.DOTALL)[1]
    scenes = {scene["name"]: scene["readings"][0]["queries"] for scene in json.loads(data)["scenes"]}
    listed = {item.image.stem: item.read().queries for item in list_results(results)}
    subject = load_model(classifier_checkpoint, Classifier).subject("vit")
    for item in read_fitted(list_images([photographs]), subject.see):
        with record(subject.vit.model) as attention, torch.no_grad():
            subject.vit.model.plain_forward(subject.normalise(item.tensor[None]))
        depth = len(attention)
        assert depth > 2
        expected = torch.stack([attention[n].weights()[0, :, 1:, 1:].mean(0) for n in (0, depth - 1)]).numpy()
        allowed = WITHIN * expected.max(-1, keepdims=True)
        with np.load(results / f"{item.name}.npz") as file:
            assert file["queries_layers"].tolist() == [0, depth - 1]
            cells, high = file["queries"], file["queries_high"]
            assert cells.dtype == np.uint8
            assert np.all(np.abs(cells / 255 * high[..., None] - expected) <= allowed)
        read, page = listed[item.name], scenes[item.path.name]
        assert (list(read.layers), read.depth, tuple(read.grid)) == ([0, depth - 1], depth, (8, 8))
        np.testing.assert_array_equal(read.cells, cells)
        assert (page["layers"], page["depth"], page["grid"]) == ([0, depth - 1], depth, [8, 8])
        bytes_ = np.frombuffer(base64.b64decode(page["cells"]), np.uint8).reshape(2, 64, 64)
        ends = np.reshape(page["high"], (2, 64, 1))
        assert np.all(np.abs(bytes_ / 255 * ends - expected) <= allowed)


def test_rows_are_the_same_in_pieces(classifier_checkpoint, photographs, monkeypatch):
    subject = load_model(classifier_checkpoint, Classifier).subject("vit")
    pixels = subject.normalise(torch.stack([i.tensor for i in read_fitted(list_images([photographs]), subject.see)]))

    def read():
        return subject.vit.read_together(pixels, list(asking.patch_queries(subject.vit, [1, 0]).values()))[1]

    whole = read()
    monkeypatch.setattr(asking, "AT_ONCE", 7 * 2 * 3 * 65)  # seven rows at once, or about
    for one, other in zip(whole, read(), strict=True):
        assert torch.allclose(one.float(), other.float(), rtol=1e-5, atol=1)
    assert whole[0].shape == (2, 2, 64, 64)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--queries", "99"], "has no layer 99"),
        (["--queries", "last"], "--queries is 'last'"),
        (["--queries", "all", "--export", "sheet"], "--queries writes to the .npz files"),
    ],
)
def test_mistakes_are_one_sentence(options, sentence, classifier_checkpoint, photographs, tmp_path, capsys):
    words = ["--checkpoint", classifier_checkpoint, "--output", tmp_path / "out", photographs, *options]
    assert run(*words) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_models_without_one_grid_are_refused():
    shape = {"img_size": 32, "window_size": 4, "depths": (1, 1), "embed_dim": 12, "num_heads": (2, 3)}
    model = timm.create_model("swin_tiny_patch4_window7_224", **shape).eval()
    with pytest.raises(InputError, match="which --queries needs"):
        asking.patch_queries(Layered(model, "swin", (32, 32)))


def test_damaged_files_are_named(classifier_checkpoint, photographs, tmp_path, capsys):
    results = results_of(classifier_checkpoint, photographs / "wide.jpg", tmp_path / "out")
    path = results / "wide.npz"
    with np.load(path) as file:
        arrays = dict(file)
    for damage in (
        {"queries": arrays["queries"][:, :5]},
        {"queries": arrays["queries"].astype(float)},
        {"queries_layers": np.array([0, 99])},
        {"queries_high": arrays["queries_high"] * np.nan},
    ):
        np.savez(path, **{**arrays, **damage})
        assert view.main(["--output", str(tmp_path / "view.html"), str(results)]) == 2
        assert "wide.npz does not contain the maps" in capsys.readouterr().err
    assert not (tmp_path / "view.html").exists()
