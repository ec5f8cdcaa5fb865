"""Hostile names of files and other external text remain text."""

import json
import os
from pathlib import Path

import pytest
from conftest import CONFIGS, FAST
from PIL import Image
from test_program import IN_SMALL, photograph_options

from visattn.cli import caption, main, overlay

NAMES = ["NUL.jpg", "two\nlines.png", "<script>alert(1)<script>.png", "$\\frac{ $.png", "-rf.png", "..png", "名前.png"]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    picture = Image.new("RGB", (23, 17), (10, 200, 30))
    for name in [*NAMES, "x" * 255, os.fsdecode(b"\xff\xfe.png")]:
        picture.save(folder / name, "PNG")
    return folder


@pytest.mark.parametrize(("script", "report"), [(caption, "captions.json"), (overlay, "classes.json")])
def test_names_of_files_do_not_leave_the_output(
    script, report, hostile, tmp_path, captioner_checkpoint, classifier_checkpoint, capsys
):
    checkpoint = captioner_checkpoint if script is caption else classifier_checkpoint
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    inputs = [str(path) for path in sorted(hostile.iterdir())]
    output = tmp_path / "out"
    assert script.main(["--checkpoint", str(checkpoint), "--output", str(output), "--", *inputs]) == 0
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert {path.parent for path in written} == {output}
    assert all(path.name.isprintable() and path.name[0] not in "." for path in written)
    entries = json.loads((output / report).read_text())
    assert len(entries) == len(inputs) == len({entry["overlay"] for entry in entries})
    assert {path.name for path in written} == {report} | {
        Path(entry["overlay"]).with_suffix(suffix).name for entry in entries for suffix in (".png", ".npz")
    }
    capsys.readouterr()


def test_a_bad_image_is_one_sentence_or_is_left_out(karpathy_root, tmp_path, capsys):
    """Through the program, with features that are computed by two processes."""
    annotations = json.loads((karpathy_root / "dataset_flickr8k.json").read_text())
    for i in range(100, 200):
        (karpathy_root / "images" / f"{i}.jpg").write_bytes((karpathy_root / "images" / "3.jpg").read_bytes())
        entry = annotations["images"][i % 10]
        annotations["images"].append(entry | {"filename": f"{i}.jpg", "split": "train", "imgid": i})
    (karpathy_root / "dataset_flickr8k.json").write_text(json.dumps(annotations))
    (karpathy_root / "images" / "150.jpg").write_bytes(b"<html>not found</html>")
    options = [*photograph_options(karpathy_root), "--data.init_args.workers=2", f"--features={tmp_path / 'kept'}"]
    words = ["fit", "--config", str(CONFIGS / "flickr8k_soft.yaml"), *FAST, *options, *IN_SMALL]
    assert main([*words, "--output", str(tmp_path / "stops")]) == 2
    error = capsys.readouterr().err.split("error: ")[1]
    assert error.startswith(f"{karpathy_root / 'images' / '150.jpg'} cannot be read as an image")
    assert "\n" not in error.strip()
    assert all(path.name.startswith(".") for path in (tmp_path / "kept").iterdir())  # nothing that looks whole

    assert main([*words, "--output", str(tmp_path / "skips"), "--data.init_args.on_bad_image=skip"]) == 0
    folder, mirrored = sorted(
        path for path in (tmp_path / "kept").iterdir() if path.name[0] != "."
    )  # of training images alone
    for kept, count in ((folder, 7 + 3 + 99), (mirrored, 7 + 99)):
        ids = json.loads((kept / "ids.json").read_text())
        assert "150" not in ids
        assert len(ids) == count
