"""The scripts as a user runs them, on photographs of odd sizes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import FAST
from PIL import Image

from visattn.cli import COMMANDS, caption, compare, main, overlay
from visattn.cli import demo as demo_command
from visattn.cli.pictures import centimetres
from visattn.data.inputs import read_inputs
from visattn.errors import InputError
from visattn.explain import caption_relevance
from visattn.images import Geometry
from visattn.results import captions as writing
from visattn.tasks import demo
from visattn.tasks.overlay import overlay_images
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import load_model
from visattn.training.classifier import Classifier

SCRIPTS = Path(__file__).parent.parent / "scripts"


def test_caption_writes_all_documented_files(captioner_checkpoint, photographs, tmp_path, capsys):
    output = tmp_path / "out"
    assert caption.main(["--checkpoint", str(captioner_checkpoint), "--output", str(output), str(photographs)]) == 0
    entries = json.loads((output / "captions.json").read_text())
    assert [Path(entry["image"]).name for entry in entries] == ["turned.jpg", "wide.jpg"]
    for entry in entries:
        assert set(entry) == {"image", "caption", "words", "log_prob", "word_log_probs", "overlay", "files"}
        assert [Path(name).suffix for name in entry["files"]] == [".png", ".npz"]
        assert entry["caption"].split() == entry["words"]
        assert entry["log_prob"] < 0
        with Image.open(output / entry["overlay"]) as sheet:
            assert sheet.format == "PNG"
        with np.load(output / Path(entry["overlay"]).with_suffix(".npz").name) as maps:
            assert maps["words"].tolist() == entry["words"]
            assert maps["alpha"].shape == (len(entry["words"]), 8, 8)
            np.testing.assert_allclose(maps["alpha"].sum((1, 2)), 1, rtol=1e-5)
            np.testing.assert_array_equal(maps["focus"], maps["alpha"])
            assert np.all(maps["beta"] == 1)  # the decoder has no gate
            np.testing.assert_allclose(maps["log_probs"], entry["word_log_probs"])
            geometry = Geometry.from_array(maps["geometry"])
            assert geometry.original == {"turned.jpg": (71, 43), "wide.jpg": (47, 61)}[Path(entry["image"]).name]
            assert geometry.input == (64, 64)
            assert geometry.cell_shift != (0, 0)


def test_caption_shows_the_place_that_hard_attention_used(hard_checkpoint, photographs, tmp_path, monkeypatch):
    framed = []
    sheet = writing.caption_sheet
    monkeypatch.setattr(writing, "caption_sheet", lambda *a, **k: framed.append(k.get("drawn")) or sheet(*a, **k))
    focus = {}
    for places in ("argmax", "sample", "expected"):
        output = tmp_path / places
        words = ["--checkpoint", str(hard_checkpoint), "--output", str(output), str(photographs), "--places", places]
        assert caption.main(words) == 0
        with np.load(output / "wide.npz") as maps:
            focus[places], alpha = maps["focus"], maps["alpha"]
        if places == "expected":
            np.testing.assert_array_equal(focus[places], alpha)
            assert set(framed[-1]) == {None}
        else:
            assert np.all(focus[places].reshape(len(alpha), -1).max(1) == 1)
            assert framed[-1] == focus[places].reshape(len(alpha), -1).argmax(1).tolist()
        if places == "argmax":
            np.testing.assert_array_equal(
                focus[places].reshape(len(alpha), -1).argmax(1), alpha.reshape(len(alpha), -1).argmax(1)
            )


def test_caption_writes_the_requested_exports(hard_checkpoint, photographs, tmp_path):
    output = tmp_path / "out"
    words = ["--checkpoint", str(hard_checkpoint), "--output", str(output), str(photographs / "turned.jpg")]
    look = ["--contour", "0.5,0.9", "--interpolation", "nearest", "--scale", "own", "--colour-map", "viridis"]
    paper = ["--width", "85mm", "--points", "8", "--max-length", "4"]
    assert caption.main([*words, *look, *paper, "--export", "gif, words,svg,pdf,sheet"]) == 0
    (entry,) = json.loads((output / "captions.json").read_text())
    assert entry["files"] == ["turned.png", "turned.svg", "turned.pdf", "turned_words", "turned.gif"]
    assert sorted(path.name for path in output.iterdir()) == sorted([*entry["files"], "captions.json"])
    pictures = sorted((output / "turned_words").iterdir())
    assert [path.name for path in pictures] == [f"{t:02d}_{word}.png" for t, word in enumerate(entry["words"], start=1)]
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.size == (43, 71)  # the original's, upright
    with Image.open(output / "turned.gif") as moving:
        assert moving.n_frames == 1 + len(entry["words"])
    with Image.open(output / "turned.png") as sheet:
        assert sheet.width / sheet.info["dpi"][0] * 25.4 == pytest.approx(85, rel=0.01)
    assert (output / "turned.pdf").read_bytes().startswith(b"%PDF")
    assert f">{entry['words'][0]}</text>" in (output / "turned.svg").read_text()


def test_words_of_any_kind_are_file_names():
    assert writing.plain("dog") == "_dog"
    assert writing.plain("../.. \x00/a:b") == "_ab"
    assert writing.plain("狗" * 99) == "_" + "狗" * 24
    assert writing.plain("\ud800?") == ""


def test_lengths_have_units():
    assert centimetres("3.3 in") == pytest.approx(8.382)
    assert centimetres("85mm") == centimetres(" 8.5 cm") == 8.5


def test_overlay_writes_what_is_asked_for(classifier_checkpoint, photographs, tmp_path, capsys):
    output = tmp_path / "out"
    asked = ["--export", "svg,pdf,npz", "--width", "12cm", "--points", "8", "--contour", "0.5", "--columns", "2"]
    assert (
        overlay.main(["--checkpoint", str(classifier_checkpoint), "--output", str(output), str(photographs), *asked])
        == 0
    )
    entries = json.loads((output / "classes.json").read_text())
    assert all(entry["overlay"] is None for entry in entries)
    files = [name for entry in entries for name in entry["files"]]
    assert files[:3] == ["turned.svg", "turned.pdf", "turned.npz"]
    assert sorted(path.name for path in output.iterdir()) == sorted([*files, "classes.json"])
    head = (output / "turned.svg").read_text()[:2000]
    assert float(re.search(r'width="([\d.]+)pt"', head)[1]) / 72 * 2.54 == pytest.approx(12, rel=0.01)
    assert "smallest area" in (output / "turned.svg").read_text()
    assert "classes.json and overlays (svg, pdf, npz) are in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--export", "sheet,jpeg"], "list of sheet, svg, pdf, words, gif, npz"),
        (["--export", ","], "--export has ','"),
        (["--contour", "half"], "--contour is 'half'"),
        (["--contour", "50"], "contour level is 50"),
        (["--width", "8.5"], "--width is '8.5'"),
        (["--width", "1cm"], "width is 1 cm"),
        (["--columns", "0"], "at least one column"),
        (["--points", "0"], "text of 0 points"),
        (["--colour-map", "rainbow2"], "has no colour map 'rainbow2'"),
        (["--opacity", "2"], "opacity"),
    ],
)
def test_pictures_that_cannot_be_are_refused(
    options, sentence, captioner_checkpoint, classifier_checkpoint, photographs, tmp_path, capsys
):
    for program, checkpoint in ((caption, captioner_checkpoint), (overlay, classifier_checkpoint)):
        words = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "out"), str(photographs), *options]
        assert program.main(words) == 2
        error = capsys.readouterr().err
        assert sentence in error or (program is overlay and sentence.replace("pdf, words, gif", "pdf, gif") in error)
        assert not (tmp_path / "out").exists()


def test_caption_shows_what_speaks_for_a_word(captioner_checkpoint, photographs, tmp_path, monkeypatch):
    shown = []
    sheet = writing.caption_sheet
    monkeypatch.setattr(writing, "caption_sheet", lambda *a, **k: shown.append((a[2], k)) or sheet(*a, **k))
    words = ["--checkpoint", str(captioner_checkpoint), "--output", str(tmp_path / "out"), str(photographs)]
    assert caption.main([*words, "--map", "relevance"]) == 0
    with np.load(tmp_path / "out" / "wide.npz") as maps:
        relevance, alpha = maps["relevance"], maps["alpha"]
    assert relevance.shape == alpha.shape
    assert (relevance >= 0).all()
    assert not np.allclose(relevance, alpha)
    np.testing.assert_array_equal(shown[-1][0], relevance)
    assert shown[-1][1]["meaning"] == "relevance for the word"
    assert shown[-1][1]["style"].scale == "own"


def test_places_are_for_hard_attention_only(captioner_checkpoint, photographs, tmp_path, capsys):
    words = ["--checkpoint", str(captioner_checkpoint), "--output", str(tmp_path / "o"), str(photographs)]
    assert caption.main([*words, "--places", "sample"]) == 2
    assert "has no hard attention; leave out --places" in capsys.readouterr().err


def test_overlay_writes_all_documented_files(classifier_checkpoint, photographs, tmp_path):
    output = tmp_path / "out"
    assert overlay.main(["--checkpoint", str(classifier_checkpoint), "--output", str(output), str(photographs)]) == 0
    entries = json.loads((output / "classes.json").read_text())
    assert len(entries) == 2
    for entry in entries:
        assert 0 < entry["probability"] <= 1
        with np.load(output / Path(entry["overlay"]).with_suffix(".npz").name) as maps:
            assert maps["rollout"].shape == (8, 8)
            assert maps["layers"].shape == (4, 3, 8, 8)
            assert maps["classes"][maps["probabilities"].argmax()] == entry["class"]
            np.testing.assert_allclose(maps["probabilities"].sum(), 1, rtol=1e-5)
            assert Geometry.from_array(maps["geometry"]).input == (64, 64)


def test_images_of_one_name_do_not_overwrite_each_other(classifier_checkpoint, photographs, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (64, 64)).save(other / "wide.png")
    subject = load_model(classifier_checkpoint, Classifier).subject()
    entries = overlay_images(subject, [photographs, other], tmp_path / "out")
    assert [entry["overlay"] for entry in entries] == ["turned.png", "wide.png", "wide-2.png"]


@pytest.mark.parametrize("script", [caption, overlay], ids=["caption", "overlay"])
def test_mistakes_are_named_and_leave_no_output(script, captioner_checkpoint, classifier_checkpoint, tmp_path, capsys):
    right, wrong = (
        (captioner_checkpoint, classifier_checkpoint)
        if script is caption
        else (classifier_checkpoint, captioner_checkpoint)
    )
    output = tmp_path / "out"
    empty, text, bad, good = (tmp_path / name for name in ("empty", "text.jpg", "bad.png", "good.png"))
    empty.mkdir()
    text.write_text("no image")
    bad.write_text("no image")
    Image.new("RGB", (70, 70)).save(good)

    def fails(checkpoint, *images):
        assert script.main(["--checkpoint", str(checkpoint), "--output", str(output), *map(str, images)]) == 2
        (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert not any(output.glob("*.json"))
        return sentence

    assert "nowhere: no such image or folder" in fails(right, tmp_path / "nowhere")
    assert f"{empty} has no images" in fails(right, empty)
    assert f"{text} cannot be read as an image" in fails(right, text)
    assert "bad.png cannot be read as an image" in fails(right, bad)
    assert "is needed here" in fails(wrong, good)
    assert "there is no checkpoint" in fails(tmp_path / "none.ckpt", good)


@pytest.mark.parametrize("script", [caption, overlay, demo_command, compare])
def test_help(script, capsys, caplog):
    with pytest.raises(SystemExit) as exit_:
        script.main(["--help"])
    assert exit_.value.code == 0
    assert "--output" in capsys.readouterr().out
    assert not caplog.records


def test_the_main_program_says_what_it_is_for(capsys, caplog):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "captioners and Vision Transformers" in said
    assert all(f"\n  {name} " in said for name in COMMANDS)
    assert not caplog.records


def test_a_script_runs_by_its_path(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "overlay.py"), "--checkpoint", "none.ckpt", "--output", str(tmp_path), __file__],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: there is no checkpoint none.ckpt")


def refuse(*_):
    raise InputError("the package has other weights")


def test_demo_makes_its_page(tmp_path, capsys, monkeypatch):
    output = tmp_path / "demo"
    words = ["--output", str(output), "--count", "3", "--options", *FAST, "--data.init_args.train_size=29"]
    assert demo_command.main(words) == 0
    results = json.loads((output / "results.json").read_text())
    assert {"CIDEr-D", "grounding_pointing", "grounding_pointing_uniform"} <= set(results["captioner"]["test"])
    assert "accuracy" in results["vit"]["test"]
    html = (output / "index.html").read_text()
    assert html.count("data:image/png;base64,") == 7  # three of each kind, and a photograph
    assert f"<h3><span>{results['photograph']['caption']}</span>" in html
    share = results["captioner"]["test"]["true"]
    assert f"never seen, {share:.0%} are true (" in html
    for entry in results["captioner"]["captions"]:
        assert entry["truth"]["true"] == (entry["truth"]["false_words"] == [])
        assert not entry["truth"]["true"] or share > 0
        struck = "".join(
            f" {'~' * (i in entry['truth']['false_words'])}{w}" for i, w in enumerate(entry["caption"].split())
        )
        headings = [
            re.sub(r"<s>(.*?)</s>", lambda m: "~" + m[1].replace(" ", " ~"), h)
            for h in re.findall("<h3><span>(.*?)</span>", html)
        ]
        assert struck.strip() in headings
    assert "index.html" in capsys.readouterr().out
    monkeypatch.setattr(demo, "in_package", lambda backbone: False)
    assert "extra" in demo.photograph_part(tmp_path)[1][0].text
    monkeypatch.undo()
    monkeypatch.setattr(demo, "captioner_part", lambda *_: ({"test": {"true": 1.0}, "minutes": 0}, []))
    monkeypatch.setattr(demo, "classifier_part", lambda *_: ({"test": {}, "minutes": 0}, []))
    monkeypatch.setattr(demo, "caption_images", refuse)
    assert demo.demo(tmp_path / "no_photograph")["photograph"] is None  # what has been trained is kept
    assert "the package has other weights" in (tmp_path / "no_photograph" / "index.html").read_text()
    assert demo_command.main(["--output", str(output)]) == 2
    assert "is not empty" in capsys.readouterr().err


def captioned(checkpoint, photographs, output, *options):
    words = ["--checkpoint", str(checkpoint), "--output", str(output), str(photographs), *options]
    assert caption.main(words) == 0
    return json.loads((output / "captions.json").read_text())


def test_caption_uses_the_search_options(captioner_checkpoint, photographs, tmp_path):
    """All of an image's captions, the best first, each with its own sheet and maps."""
    for n, options in enumerate(
        (["--beam", "4", "--n-best", "3"], ["--decode", "sample", "--n-best", "3", "--top-k", "5"])
    ):
        entries = captioned(captioner_checkpoint, photographs, tmp_path / str(n), *options)
        for entry in entries:
            assert len(entry["captions"]) == 3
            assert entry["captions"][0]["caption"] == entry["caption"]
            assert entry["captions"][0]["files"] == entry["files"]
            stem = entry["files"][0].removesuffix(".png")
            for rank, other in enumerate(entry["captions"][1:], start=2):
                assert other["files"] == [f"{stem}_captions/{rank}.png", f"{stem}_captions/{rank}.npz"]
                with np.load(tmp_path / str(n) / other["files"][1]) as arrays:
                    assert " ".join(arrays["words"]) == other["caption"]
                    assert len(arrays["alpha"]) == len(other["caption"].split())
                    assert arrays["log_probs"].sum() >= other["log_prob"] - 1e-4  # which has the end's too
            assert len(entry["word_log_probs"]) == len(entry["words"])
            if "--beam" in options:
                scores = [c["log_prob"] / (len(c["caption"].split()) + 1) ** 0.7 for c in entry["captions"]]
                assert len({c["caption"] for c in entry["captions"]}) == 3
                assert scores[0] == max(scores) or len(entry["words"]) == 20
    fewer = captioned(
        captioner_checkpoint, photographs, tmp_path / "0", "--beam", "2", "--n-best", "2", "--export", "npz"
    )
    (own := tmp_path / "0" / "wide_captions" / "mine.txt").write_text("no one else's")
    for entry in fewer:  # nothing of the three is left, and nothing else is lost
        found = {path.name for path in (tmp_path / "0" / entry["captions"][1]["files"][0]).parent.iterdir()}
        assert found - {own.name} == {"2.npz"}
    captioned(captioner_checkpoint, photographs, tmp_path / "0", "--export", "npz")
    assert list(tmp_path.glob("0/*_captions/*")) == [own]
    short = captioned(captioner_checkpoint, photographs, tmp_path / "short", "--max-length", "3", "--no-repeat", "1")
    for entry in short:
        assert len(entry["words"]) <= 3
        assert len(set(entry["words"])) == len(entry["words"])


def test_relevance_is_of_the_caption_it_stands_with(captioner_checkpoint, photographs, tmp_path):
    options = ["--beam", "3", "--n-best", "2", "--map", "relevance", "--export", "npz"]
    entries = captioned(captioner_checkpoint, photographs, tmp_path, *options)
    model = load_model(captioner_checkpoint, Captioner)
    items = read_inputs([Path(entry["image"]) for entry in entries], model.image_size, model.fit)
    for item, entry in zip(items, entries, strict=True):
        for said in entry["captions"]:
            with np.load(tmp_path / said["files"][0]) as arrays:
                (expected,) = caption_relevance(model, item.tensor[None], [said["caption"].split()])
                np.testing.assert_allclose(arrays["relevance"], expected, atol=1e-5)


def test_sampled_captions_are_repeatable(captioner_checkpoint, photographs, tmp_path):
    drawn = [
        [entry["caption"] for entry in captioned(captioner_checkpoint, photographs, tmp_path / name, *options)]
        for name, options in (
            ("a", ["--decode", "sample", "--seed", "1"]),
            ("b", ["--decode", "sample", "--seed", "1"]),
            ("c", ["--decode", "sample", "--seed", "2"]),
        )
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--beam", "0"], "the beam's size is 0"),
        (["--beam", "3", "--n-best", "4"], "--n-best 4 needs a beam of at least that size, not 3"),
        (["--n-best", "2"], "--n-best needs --decode beam"),
        (["--n-best", "0"], "--n-best is 0"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--max-length", "0"], "--max-length is 0"),
        (["--temperature", "2"], "--temperature needs --decode sample"),
        (["--decode", "sample", "--beam", "3"], "--beam needs --decode beam"),
        (["--decode", "sample", "--top-p", "0"], "top_p is 0"),
        (["--decode", "beam", "--length-penalty", "-1"], "length_penalty is -1"),
        (["--decode", "beam", "--caution", "-1"], "caution is -1"),
        (["--caution", "0.2"], "--caution needs --decode beam"),
        (["--beam", "2", "--caution", "0.2"], "caution needs a captioner whose words are English"),
    ],
)
def test_searches_that_cannot_be_are_refused(options, sentence, captioner_checkpoint, photographs, tmp_path, capsys):
    words = ["--checkpoint", str(captioner_checkpoint), "--output", str(tmp_path / "out"), str(photographs), *options]
    assert caption.main(words) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_results_of_other_images_are_kept_if_one_cannot_be_read(
    captioner_checkpoint, photographs, tmp_path, capsys
):
    (folder := tmp_path / "mixed").mkdir()
    good = [shutil.copy(path, folder) for path in sorted(photographs.iterdir())[:2]]
    whole = Path(good[0]).read_bytes()
    (folder / "a.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "z.jpg").write_text("no picture")
    words = ["--output", str(tmp_path / "captions"), "--batch-size", "1", "--export", "npz"]
    assert caption.main(["--checkpoint", str(captioner_checkpoint), *words, str(folder)]) == 2
    said = capsys.readouterr().err
    assert "a.jpg" in said
    assert "(and 1 more)" in said
    assert "the results of the other 2 are in" in said
    entries = json.loads((tmp_path / "captions" / "captions.json").read_text())
    assert [entry["image"] for entry in entries] == [str(path) for path in sorted(good)]
    words = ["--output", str(tmp_path / "classes"), "--batch-size", "1", "--export", "npz"]
    assert overlay.main(["--checkpoint", "vit-cifar10", *words, str(folder)]) == 2
    assert "the results of the other 2 are in" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "classes" / "classes.json").read_text())) == 2
    for path in good:
        Path(path).unlink()
    assert (
        caption.main(["--checkpoint", str(captioner_checkpoint), "--output", str(tmp_path / "none"), str(folder)]) == 2
    )
    assert not (tmp_path / "none" / "captions.json").exists()
