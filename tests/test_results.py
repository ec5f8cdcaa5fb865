"""Folders of results, and the program that makes a page of them."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from visattn.cli import view
from visattn.errors import InputError
from visattn.files import write_npz
from visattn.images import fit_geometry
from visattn.metrics import entropy
from visattn.results import list_results

SIZES = {"a.png": (37, 53), "b.png": (61, 43), "c.png": (41, 41)}


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n, (name, size) in enumerate(SIZES.items()):
        pixels = np.random.default_rng(n).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def captions(folder, pictures, names=("a.png", "b.png"), said="a dog", **arrays):
    """A folder as `caption.py` writes it."""
    folder.mkdir()
    words, entries, rng = said.split(), [], np.random.default_rng(3)
    for name in names:
        alpha = rng.dirichlet(np.ones(15), len(words)).reshape(len(words), 3, 5).astype(np.float32)
        write_npz(
            folder / f"{name[0]}.npz",
            **{
                "words": np.array(words),
                "alpha": alpha,
                "focus": alpha,
                "beta": rng.random(len(words), dtype=np.float32),
                "log_probs": -rng.random(len(words), dtype=np.float32),
                "geometry": fit_geometry(SIZES[name], (64, 64)).to_array(),
                **arrays,
            },
        )
        entries.append(
            {
                "image": str(pictures / name),
                "caption": said,
                "words": words,
                "log_prob": -3.5,
                "overlay": f"{name[0]}.png",
                "captions": [{"caption": said, "log_prob": -3.5}, {"caption": "a cat", "log_prob": -4.5}],
            }
        )
    (folder / "captions.json").write_text(json.dumps(entries))
    return folder


def classes(folder, pictures, names=("a.png",), **arrays):
    """A folder as `overlay.py` writes it."""
    folder.mkdir()
    rng = np.random.default_rng(4)
    for name in names:
        write_npz(
            folder / f"{name[0]}.npz",
            **{
                "rollout": rng.random((7, 5)),
                "layers": rng.random((2, 3, 7, 5)),
                "probabilities": np.array([0.1, 0.2, 0.7]),
                "classes": np.array(["x", "y", "z"]),
                "geometry": fit_geometry(SIZES[name], (64, 64)).to_array(),
                **arrays,
            },
        )
    entries = [{"image": str(pictures / n), "class": "z", "probability": 0.7, "overlay": f"{n[0]}.png"} for n in names]
    (folder / "classes.json").write_text(json.dumps(entries))
    return folder


def test_a_caption_comes_back_whole(tmp_path, pictures):
    focus = np.zeros((2, 3, 5))
    focus[0, 1, 2] = 1
    focus[1] = 1 / 15
    folder = captions(tmp_path / "r", pictures, focus=focus, relevance=np.ones((2, 4, 7)), other=np.ones((9, 3, 5)))
    first, _ = list_results(folder)
    assert first.image == pictures / "a.png"
    reading = first.read()
    with np.load(folder / "a.npz") as arrays:
        np.testing.assert_array_equal(reading.maps["alpha"][:, 0, 0], arrays["alpha"])
        np.testing.assert_array_equal(reading.gates, arrays["beta"])
        np.testing.assert_array_equal(reading.log_probs, arrays["log_probs"])
        np.testing.assert_allclose(reading.entropies, entropy(arrays["alpha"].reshape(2, -1)))
    assert list(reading.maps) == ["alpha", "relevance"]  # what is not of words is no map of theirs
    assert reading.maps["relevance"].shape == (2, 1, 1, 4, 7)
    assert reading.words == ["a", "dog"]
    assert reading.places == [7, None]
    assert reading.geometry == fit_geometry(SIZES["a.png"], (64, 64))
    assert reading.answer == ("a dog", -3.5)
    assert reading.others == [("a cat", -4.5)]


def with_further(folder, pictures, name="b_captions/2.npz", **arrays):
    """Results in which the first picture's second caption has maps of its own."""
    captions(folder, pictures)
    alpha = np.random.default_rng(5).dirichlet(np.ones(15), 3).reshape(3, 3, 5)
    (folder / "b_captions").mkdir()
    geometry = fit_geometry(SIZES["a.png"], (64, 64)).to_array()
    values = {"words": np.array(["one", "fat", "cat"]), "alpha": alpha, "geometry": geometry, **arrays}
    write_npz(folder / "b_captions" / "2.npz", **values)
    entries = json.loads((folder / "captions.json").read_text())
    further = {"caption": "one fat cat", "log_prob": -4.75, "files": ["b_captions/2.png", name]}
    entries[0]["captions"].insert(1, further)
    (folder / "captions.json").write_text(json.dumps(entries))
    return values


def test_further_captions_come_back_with_their_maps(tmp_path, pictures):
    values = with_further(tmp_path / "r", pictures)
    reading, other = (item.read() for item in list_results(tmp_path / "r"))
    (further,) = reading.further
    assert further.answer == ("one fat cat", -4.75)
    assert further.words == values["words"].tolist()
    np.testing.assert_array_equal(further.maps["alpha"][:, 0, 0], values["alpha"])
    assert reading.others == [("a cat", -4.5)]  # which has none
    assert not further.others
    assert not other.further
    assert view.main(["--output", str(tmp_path / "view.html"), str(tmp_path / "r")]) == 0


def test_these_programs_need_no_pytorch(tmp_path, pictures):
    """view, evaluate, check-data and curves, in a Python that has neither PyTorch nor Lightning."""
    captions(tmp_path / "r", pictures)
    said = [{"image_id": 1, "id": 1, "caption": "a red circle"}]
    (tmp_path / "candidates.json").write_text(json.dumps(said))
    listed = {"images": [{"id": 1, "file_name": "a.png", "width": 53, "height": 37}], "annotations": said}
    (tmp_path / "captions.json").write_text(json.dumps(listed))
    log = tmp_path / "run" / "logs" / "version_0" / "metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_text("epoch,step,val/loss\n0,1,2.0\n1,3,1.0\n")
    options = ["--root", ".", "--images", "pictures", "--annotations", "captions.json", "--max-unknown", "1"]
    lines = [
        ["view", "--output", "view.html", "r"],
        ["evaluate", "--references", "captions.json", "--candidates", "candidates.json"],
        ["check-data", *options, "--workers", "0"],
        ["check-data", *options, "--workers", "2"],
        ["curves", "run", "--number", "val/loss", "--output", "curve.png"],
        ["prepare-coco", "--help"],
    ]
    code = f"""
import sys
for name in ("torch", "torchvision", "torchmetrics", "lightning", "timm"):
    sys.modules[name] = None
from visattn.cli import main
for words in {lines}:
    try:
        print(words[0], main(words), file=sys.stderr)
    except SystemExit as end:
        print(words[0], end.code, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    ends = [line for line in done.stderr.splitlines() if line.startswith(tuple(words[0] for words in lines))]
    assert ends == [f"{words[0]} 0" for words in lines], done.stderr


@pytest.mark.parametrize("name", ["../r/b_captions/2.npz", "{}/b_captions/2.npz", "gone/2.npz"])
def test_further_maps_are_looked_for_in_the_folder_alone(name, tmp_path, pictures):
    with_further(tmp_path / "r", pictures, name.format(tmp_path / "r"))
    with pytest.raises(InputError, match=r"2\.npz, with the maps of a\.png, is missing"):
        list_results(tmp_path / "r")[0].read()


def test_further_maps_of_another_picture_are_refused(tmp_path, pictures):
    with_further(tmp_path / "r", pictures, geometry=fit_geometry(SIZES["b.png"], (64, 64)).to_array())
    with pytest.raises(InputError, match=r"2\.npz and .*a\.npz .*same image"):
        list_results(tmp_path / "r")[0].read()


def test_missing_parts_are_left_out(tmp_path, pictures):
    first, _ = list_results(captions(tmp_path / "r", pictures, beta=np.ones(2)))
    assert first.read().gates is None
    (item,) = list_results(captions(tmp_path / "silent", pictures, ("a.png",), ""))
    reading = item.read()
    assert reading.words == []
    assert reading.maps["alpha"].shape == (0, 1, 1, 3, 5)


def test_a_class_comes_back_with_every_map(tmp_path, pictures):
    folder = classes(tmp_path / "r", pictures, relevance=np.ones((7, 5)))
    (item,) = list_results(folder)
    reading = item.read()
    assert {name: maps.shape for name, maps in reading.maps.items()} == {
        "rollout": (1, 1, 1, 7, 5),
        "layers": (1, 2, 3, 7, 5),
        "relevance": (1, 1, 1, 7, 5),
    }
    assert reading.answer == ("z", 0.7)
    assert reading.others == [("y", 0.2), ("x", 0.1)]


def test_a_model_without_classes_has_maps_all_the_same(tmp_path, pictures):
    folder = classes(tmp_path / "r", pictures, probabilities=np.zeros(0), classes=np.zeros(0))
    (folder / "classes.json").write_text(json.dumps([{"image": str(pictures / "a.png"), "overlay": "a.png"}]))
    reading = list_results(folder)[0].read()
    assert reading.answer == ("", None)
    assert list(reading.maps) == ["rollout", "layers"]


def test_maps_are_those_that_the_list_names(tmp_path, pictures):
    folder = captions(tmp_path / "r", pictures, ("a.png",))
    (entry,) = json.loads((folder / "captions.json").read_text())
    for files in (["a.gif", "a.npz"], ["../a.npz"]):
        (folder / "captions.json").write_text(json.dumps([entry | {"overlay": None, "files": files}]))
        assert list_results(folder)[0].read().words == ["a", "dog"]
    (folder / "captions.json").write_text(json.dumps([entry | {"files": ["a.gif"]}]))
    with pytest.raises(InputError, match="--export npz"):
        list_results(folder)


def test_of_two_programs_in_one_folder_the_later_has_the_maps(tmp_path, pictures):
    folder = captions(tmp_path / "r", pictures)
    later = classes(tmp_path / "later", pictures)
    for file in later.iterdir():
        shutil.copy(file, folder / file.name)
    assert list_results(folder)[0].read().kind == "class"


def test_maps_are_never_read_from_outside_the_folder(tmp_path, pictures):
    folder = captions(tmp_path / "r", pictures)
    entries = json.loads((folder / "captions.json").read_text())
    entries[0]["overlay"] = "../../a.png"
    (folder / "captions.json").write_text(json.dumps(entries))
    assert list_results(folder)[0].maps == folder / "a.npz"


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"geometry": np.zeros((5, 2))}, "geometry is 5 or 8 pairs"),
        ({"alpha": np.full((2, 3, 5), np.nan)}, "finite numbers"),
        ({"alpha": -np.ones((2, 3, 5))}, "non-negative"),
        ({"alpha": np.ones((3, 3, 5))}, "2 maps are expected"),
        ({"alpha": np.array(["x", "y"])}, "2 maps are expected"),
        ({"beta": np.ones(3)}, "'beta' is (3,)"),
        ({"words": np.array([1, 2])}, "list of strings"),
    ],
)
def test_invalid_maps_are_named(arrays, sentence, tmp_path, pictures):
    first, _ = list_results(captions(tmp_path / "r", pictures, **arrays))
    with pytest.raises(InputError) as error:
        first.read()
    assert sentence in str(error.value)
    assert str(tmp_path / "r" / "a.npz") in str(error.value)
    assert "\n" not in str(error.value)


def run(capsys, *words):
    """Exit status and the last line of what is said."""
    status = view.main([*map(str, words)])
    out, err = capsys.readouterr()
    return status, (err if status else out).strip().splitlines()[-1]


def test_view_makes_one_page(tmp_path, pictures, capsys):
    soft, other = captions(tmp_path / "soft", pictures), captions(tmp_path / "other", pictures, ("b.png", "c.png"))
    page = tmp_path / "view.html"
    status, said = run(capsys, "--output", page, soft)
    assert status == 0
    assert said.startswith("2 images, 0.")
    assert "<title>soft</title>" in page.read_text()
    status, said = run(capsys, "--output", page, f"A & B={soft}", other, "--title", "x < y")
    assert said.startswith("1 image, 0.")
    html = page.read_text()
    assert "<title>x &lt; y</title>" in html
    assert '"models":["A \\u0026 B","other"]' in html
    status, said = run(capsys, "--output", page, soft, classes(tmp_path / "vit", pictures))
    assert status == 0
    assert not list(tmp_path.glob("*.tmp"))


def test_pictures_that_have_moved_are_found_by_their_name(tmp_path, pictures, capsys):
    soft, page = captions(tmp_path / "soft", pictures), tmp_path / "view.html"
    moved = pictures.rename(tmp_path / "moved")
    status, said = run(capsys, "--output", page, soft)
    assert status == 2
    assert said == f"error: the image {pictures / 'a.png'} is missing; say where it is with --images FOLDER"
    assert run(capsys, "--output", page, soft, "--images", moved)[0] == 0
    (moved / "b.png").unlink()
    status, said = run(capsys, "--output", page, soft, "--images", moved)
    assert f"the image {pictures / 'b.png'} is missing" in said
    # The same pictures at two places are the same pictures.
    again = captions(tmp_path / "again", tmp_path / "elsewhere", ("a.png",))
    assert run(capsys, "--output", page, soft, again, "--images", moved)[0] == 0


def test_mistakes_are_one_sentence(tmp_path, pictures, capsys):
    soft, page = captions(tmp_path / "soft", pictures), tmp_path / "view.html"
    empty, other = tmp_path / "empty", captions(tmp_path / "other", pictures, ("c.png",))
    empty.mkdir()

    def fails(*words):
        status, said = run(capsys, "--output", page, *words)
        assert status == 2
        assert said.startswith("error: ")
        assert not page.exists()
        return said

    assert f"{empty} is not a folder of results" in fails(empty)
    assert "nowhere is not a folder of results" in fails(tmp_path / "nowhere")
    assert f"{soft} and {other} have no images in common" in fails(soft, other)
    assert "3 folders of results" in fails(soft, soft, soft)
    assert "--side is 0" in fails(soft, "--side", 0)
    assert "set --images to the folder" in fails(soft, "--images", tmp_path / "nowhere")
    Image.new("RGB", (9, 9)).save(pictures / "c.png")
    assert "c.png has 9×9 pixels, but the maps in" in fails(other)
    (soft / "b.npz").unlink()
    assert f"{soft / 'b.npz'}, with the maps of b.png, is missing" in fails(soft)
    for damage in (b"", b"no archive", (soft / "a.npz").read_bytes()[:-200]):
        (soft / "a.npz").write_bytes(damage)
        said = fails(soft)
        assert f"{soft / 'a.npz'} cannot be read" in said
        assert "pickle" not in said  # as NumPy advises
    for text in ("", "{", "3", "[3]", "[]", '[{"image": "a.png"}]', '[{"image": 1, "overlay": "a.png"}]', "\x00"):
        (soft / "captions.json").write_text(text)
        assert str(soft / "captions.json") in fails(soft)


def test_pickles_are_not_opened(tmp_path, pictures, capsys):
    soft = captions(tmp_path / "soft", pictures, others=np.array([{"a": 1}], dtype=object))
    status, said = run(capsys, "--output", tmp_path / "view.html", soft)
    assert status == 2
    assert "a.npz cannot be read" in said


def test_help(capsys):
    with pytest.raises(SystemExit) as exit_:
        view.main(["--help"])
    assert exit_.value.code == 0
    assert "side by side" in capsys.readouterr().out
