"""No program overwrites its inputs, under any spelling of the path, or a user's other files."""

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import CONFIGS, FAST, SMALL_SHAPES
from PIL import Image

from visattn.cli import caption, check_data, curves, evaluate, exposure, faithfulness, ground, main, overlay, view
from visattn.errors import InputError
from visattn.files import (
    guarded,
    protect,
    remove_file,
    require_file,
    require_free,
    write_bytes,
    write_folder,
    write_npz,
)
from visattn.studies.benchmarks.report import check_path

VIT = ("--checkpoint", "vit-cifar10")


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (43, 59, 3), dtype=np.uint8)).save(path)
    return path


def run(program: Callable, *words: object) -> int:
    return program([str(word) for word in words])


def refused(capsys: pytest.CaptureFixture[str], kept: Path, program: Callable, *words: object) -> str:
    """The error message of a program that must not change a file."""
    before = kept.read_bytes()
    assert run(program, *words) == 2
    assert kept.read_bytes() == before
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


SPELLINGS: dict[str, Callable[[Path], Path]] = {
    "plain": lambda folder: folder,
    "dots": lambda folder: folder / ".." / folder.name,
    "relative": lambda folder: Path(os.path.relpath(folder)),
    "slash": lambda folder: Path(f"{folder}//."),
    "link": lambda folder: _linked(folder),
}


def _linked(folder: Path) -> Path:
    link = folder.with_name("link")
    link.symlink_to(folder, target_is_directory=True)
    return link


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_a_picture_is_not_replaced_by_its_sheet(spelled, tmp_path, capsys):
    one = picture(tmp_path / "in" / "holiday.png")
    said = refused(capsys, one, overlay.main, *VIT, "--output", SPELLINGS[spelled](one.parent), one)
    assert "holiday.png" in said
    assert "--output" in said
    assert [path.name for path in one.parent.iterdir()] == ["holiday.png"]


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to], ids=["symbolic", "hard"])
def test_a_linked_picture_is_not_replaced_by_its_sheet(link, tmp_path, capsys):
    one = picture(tmp_path / "in" / "a.png")
    out = tmp_path / "out"
    out.mkdir()
    link(out / "a.png", one)
    assert "a.png" in refused(capsys, one, overlay.main, *VIT, "--output", out, one)
    assert (out / "a.png").samefile(one)


def test_a_picture_given_by_a_link_is_known_where_it_lies(tmp_path, capsys):
    one = picture(tmp_path / "in" / "a.png")
    (tmp_path / "a.png").symlink_to(one)
    assert "a.png" in refused(capsys, one, overlay.main, *VIT, "--output", one.parent, tmp_path / "a.png")


def test_all_pictures_of_a_call_are_kept_not_only_ones_own(tmp_path, capsys):
    """The sheet of one has the name of another."""
    picture(tmp_path / "a.jpg")
    other = picture(tmp_path / "a.png", 1)
    assert "a.png" in refused(capsys, other, overlay.main, *VIT, "--output", tmp_path, tmp_path / "a.jpg", other)
    # … or of one that was not given, and of which no run has said that it is a sheet.
    assert "a.png" in refused(capsys, other, overlay.main, *VIT, "--output", tmp_path, tmp_path / "a.jpg")


def test_sheets_beside_pictures_are_fine_also_twice(tmp_path):
    one = picture(tmp_path / "café.jpg")
    before = one.read_bytes()
    for _ in range(2):
        assert run(overlay.main, *VIT, "--export", "sheet,npz", "--output", tmp_path, one) == 0
    assert one.read_bytes() == before
    names = {unicodedata.normalize("NFC", path.name) for path in tmp_path.iterdir()}
    assert names == {"café.jpg", "café.png", "café.npz", "classes.json"}


def test_a_users_list_is_kept(tmp_path, capsys):
    one, listing = picture(tmp_path / "in" / "a.png"), tmp_path / "out" / "classes.json"
    listing.parent.mkdir()
    listing.write_text('{"cat": 1}')
    assert "classes.json" in refused(capsys, listing, overlay.main, *VIT, "--output", listing.parent, one)


def test_names_of_classes_and_weights_are_inputs(tmp_path, capsys):
    one = picture(tmp_path / "a.png")
    for option in ("--classes", "--weights"):
        given = tmp_path / "out" / "a.npz"
        given.parent.mkdir(exist_ok=True)
        given.write_text("x")
        words = ["--timm", "test_vit", "--weights", "random", option, given, "--output", given.parent, one]
        assert "a.npz" in refused(capsys, given, overlay.main, *words)


def test_captions_keep_pictures_and_what_lies_in_folders(captioner_checkpoint, tmp_path, capsys):
    words = ["--checkpoint", captioner_checkpoint, "--max-length", "3"]
    one = picture(tmp_path / "b.png")
    assert "b.png" in refused(capsys, one, caption.main, *words, "--output", tmp_path, one)
    out, many = tmp_path / "out", ["--beam", "2", "--n-best", "2", "--export", "sheet,words"]
    note = out / "b_words" / "note.txt"
    note.parent.mkdir(parents=True)
    note.write_text("mine")
    assert "note.txt" in refused(capsys, note, caption.main, *words, *many, "--output", out, one)
    note.unlink()
    inside = picture(out / "b_captions" / "2.png")
    assert "2.png" in refused(capsys, inside, caption.main, *words, *many, "--output", out, one, inside)
    inside.unlink()
    mine = picture(out / "b_captions" / "7.png")
    before = mine.read_bytes()
    assert run(caption.main, *words, *many, "--output", out, one) == 0
    (entry,) = json.loads((out / "captions.json").read_text())
    assert all((out / name).exists() for part in entry["captions"] for name in part["files"])
    assert run(caption.main, *words, "--output", out, one) == 0  # what the run before has listed is cleared
    assert [path.name for path in (out / "b_captions").iterdir()] == ["7.png"]
    assert mine.read_bytes() == before


def test_further_captions_are_not_cleared_through_a_link(captioner_checkpoint, tmp_path, capsys):
    one, elsewhere = picture(tmp_path / "b.png"), picture(tmp_path / "elsewhere" / "2.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b_captions").symlink_to(elsewhere.parent, target_is_directory=True)
    refused(capsys, elsewhere, caption.main, "--checkpoint", captioner_checkpoint, "--output", tmp_path / "out", one)


def test_programs_of_one_output_file_keep_their_inputs(captioner_checkpoint, tmp_path, capsys):
    root = tmp_path / "data"
    pixels = picture(root / "images" / "1.png")
    texts = root / "captions.json"
    texts.write_text(
        json.dumps({"images": [{"id": 1, "file_name": "1.png"}], "annotations": [{"image_id": 1, "caption": "a dog"}]})
    )
    things, model = root / "instances.json", captioner_checkpoint
    things.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    grounding = ["--root", root, "--annotations", "captions.json", "--instances", things.name]
    for kept in (texts, things, pixels, model):
        said = refused(capsys, kept, ground.main, "--checkpoint", model, *grounding, "--output", kept)
        assert kept.name in said
    sums = root / "sums"
    sums.write_text(f"{'0' * 64}  1.png\n")
    words = ["--root", root, "--annotations", "captions.json", "--checksums", sums, "--workers", "0"]
    for kept in (texts, pixels, sums):
        for option in ("--output", "--write-checksums"):
            assert kept.name in refused(capsys, kept, check_data.main, *words, option, kept)
    words += ["--output", tmp_path / "one", "--write-checksums", tmp_path / "x" / ".." / "one"]
    assert run(check_data.main, *words) == 2
    assert "--write-checksums" in capsys.readouterr().err
    candidates = tmp_path / "candidates.json"
    candidates.write_text(json.dumps([{"image_id": 1, "caption": "a dog"}]))
    for kept in (texts, candidates):
        words = ["--references", texts, "--candidates", candidates, "--output", SPELLINGS["dots"](kept.parent)]
        words[-1] /= kept.name
        assert kept.name in refused(capsys, kept, evaluate.main, *words)


def test_results_and_their_pictures_are_not_replaced_by_a_page(tmp_path, capsys):
    one, results = picture(tmp_path / "a.png"), tmp_path / "results"
    assert run(overlay.main, *VIT, "--output", results, one) == 0
    for kept in (one, results / "a.npz", results / "a.png", results / "classes.json"):
        assert kept.name in refused(capsys, kept, view.main, "--output", kept, results)
    for _ in range(2):
        assert run(view.main, "--output", results / "view.html", results) == 0


def test_a_figure_does_not_replace_what_it_is_drawn_from(tmp_path, capsys):
    log = tmp_path / "run" / "logs" / "version_0" / "metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_text("epoch,step,val/loss\n0,1,2.0\n1,3,1.0\n")
    figure = tmp_path / "figure.png"
    figure.hardlink_to(log)
    said = refused(capsys, log, curves.main, tmp_path / "run", "--number", "val/loss", "--output", figure)
    assert "metrics.csv" in said
    report = tmp_path / "out" / "exposure.md"
    report.parent.mkdir()
    report.write_text("{}")
    assert report.name in refused(capsys, report, exposure.main, "--output", report.parent, report)


def test_faithfulness_keeps_a_picture_of_its_figures_name(tmp_path, capsys):
    one = picture(tmp_path / "faithfulness.png")
    assert one.name in refused(capsys, one, faithfulness.main, *VIT, "--output", tmp_path, one)


def test_a_report_keeps_a_text_of_the_same_stem(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(InputError, match=r"README\.md"):
        check_path(tmp_path / "README.json")
    (tmp_path / "README.json").write_text("{}")  # then both are of an earlier report
    check_path(tmp_path / "README.json")


# ------------------------------------------------------------------------------------------------------------ training


def fit(output: Path, *words: object) -> int:
    options = ["--config", CONFIGS / "shapes_captioner.yaml", *SMALL_SHAPES, *FAST, "--output", output, *words]
    return run(main, "fit", *options)


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt", "previous.ckpt"])
def test_a_training_keeps_the_weights_that_it_starts_from(name, captioner_checkpoint, tmp_path, capsys):
    given = tmp_path / "run" / name
    given.parent.mkdir()
    given.write_bytes(captioner_checkpoint.read_bytes())
    before = given.read_bytes()
    assert fit(given.parent, "--start_from", given) == 2
    assert given.read_bytes() == before
    assert fit(tmp_path / "link", "--start_from", given) == 0
    assert given.read_bytes() == before


def test_a_resumed_run_may_replace_its_checkpoints(captioner_checkpoint, tmp_path):
    (tmp_path / "last.ckpt").write_bytes(captioner_checkpoint.with_name("last.ckpt").read_bytes())
    for words in (["--resume", "auto"], ["--ckpt_path", tmp_path / "last.ckpt"]):
        assert fit(tmp_path, *words, "--trainer.max_epochs=2") == 0


def test_a_configuration_and_data_are_inputs(karpathy_root, captioner_checkpoint, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    config = out / "best.ckpt"  # an odd name, but the user's
    config.write_text((CONFIGS / "shapes_captioner.yaml").read_text())
    said = refused(capsys, config, main, "fit", "--config", config, *SMALL_SHAPES, *FAST, "--output", out)
    assert "best.ckpt" in said
    annotations = out / "predictions.json"
    annotations.write_text((karpathy_root / "dataset_flickr8k.json").read_text())
    options = yaml.safe_load(config.read_text())
    options["data"] = {"class_path": "visattn.data.Photographs"}
    options["data"]["init_args"] = {"root": str(karpathy_root), "annotations": str(annotations), "image_size": 64}
    (tmp_path / "photographs.yaml").write_text(yaml.safe_dump(options))
    words = ["--config", tmp_path / "photographs.yaml", "--ckpt_path", captioner_checkpoint, "--output", out]
    assert "predictions.json" in refused(capsys, annotations, main, "predict", *words)


@pytest.mark.parametrize("name", ["../best", "a/../../best", "/tmp/best"])
def test_checkpoints_stay_in_their_folder(name, tmp_path, capsys):
    assert fit(tmp_path / "run", f"--checkpoint.filename={name}") == 2
    assert "--checkpoint.filename" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------ the guard


def test_writing_functions_check_inputs_themselves(tmp_path):
    kept, free = picture(tmp_path / "a.png"), tmp_path / "b.png"
    write_bytes(free, b"1")
    before = kept.read_bytes()
    with guarded():
        protect(path for path in [kept, None, tmp_path / "absent", tmp_path])
        for write in (
            lambda: write_bytes(tmp_path / "." / "a.png", b"2"),
            lambda: write_npz(kept, x=np.zeros(2)),
            lambda: write_folder(tmp_path, [], own=r".\.png"),
            lambda: remove_file(kept),
            lambda: require_free([free, kept]),
            lambda: require_free([tmp_path]),
            lambda: require_file(tmp_path),
        ):
            with pytest.raises(InputError, match=tmp_path.name):
                write()
        write_bytes(free, b"3")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
        assert kept.read_bytes() == before
    write_bytes(kept, b"4")


def test_without_inodes_files_are_identified_by_path(tmp_path, monkeypatch):
    kept = picture(tmp_path / "a.png")
    real = Path.stat

    def numberless(self, **how):
        status = list(real(self, **how))
        status[1] = 0
        return os.stat_result(status)

    monkeypatch.setattr(Path, "stat", numberless)
    write_bytes(tmp_path / "b.png", b"1")
    with guarded():
        protect([kept])
        write_bytes(tmp_path / "b.png", b"2")
        with pytest.raises(InputError):
            write_bytes(kept, b"2")


def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe"):
        write_bytes(tmp_path / "pipe", b"1")
    assert (tmp_path / "pipe").is_fifo()


# -------------------------------------------------------------------------------------------- paths from file managers


def test_an_address_of_a_file_is_its_path(tmp_path, capsys):
    one = picture(tmp_path / "my photo.png")
    words = [*VIT, "--export", "npz", "--output", tmp_path / "out"]
    assert run(overlay.main, *words, one.as_uri()) == 0
    assert (tmp_path / "out" / "my photo.npz").exists()
    assert run(overlay.main, *words, *f"file://{one}".split()) == 2
    assert "quotes" in capsys.readouterr().err
