"""visattn exposure: reports side by side."""

import json
import shutil

import pytest
from conftest import CONFIGS, FAST, SMALL_SHAPES
from PIL import Image

from visattn.cli import exposure, main


@pytest.fixture(scope="module")
def report(captioner_checkpoint, tmp_path_factory):
    output = tmp_path_factory.mktemp("tested")
    words = ["test", "--config", str(CONFIGS / "shapes_captioner.yaml"), "--output", str(output)]
    assert main([*words, *FAST, *SMALL_SHAPES, "--ckpt_path", str(captioner_checkpoint)]) == 0
    return output / "exposure_test.json"


def test_reports_side_by_side(report, tmp_path, capsys):
    output = tmp_path / "out"
    assert exposure.main([f"teacher forcing={report.parent}", f"other={report}", "--output", str(output)]) == 0
    with Image.open(output / "exposure.png") as picture:
        assert picture.format == "PNG"
    lines = (output / "exposure.md").read_text().splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| teacher forcing | ")
    assert lines[3].startswith("| other | ")
    scores = json.loads(report.read_text())["scores"]
    assert f"{scores['CIDEr-D']:.3f}" in lines[2]
    assert f"{100 * scores['free_running_accuracy']:.1f}%" in lines[2]
    assert lines[2] in capsys.readouterr().out


def test_files_that_are_not_reports_are_named(report, tmp_path, capsys):
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    text = tmp_path / "text.json"
    text.write_text("a report")
    content = json.loads(report.read_text())
    of_val, old = tmp_path / "val.json", tmp_path / "old.json"
    of_val.write_text(json.dumps(content | {"split": "val"}))
    old.write_text(json.dumps(content | {"scores": {"CIDEr-D": 1.0}}))
    twice = tmp_path / "twice"
    twice.mkdir()
    for split in ("val", "test"):
        shutil.copy(report, twice / f"exposure_{split}.json")
    for words, sentence in (
        ([str(tmp_path / "nowhere.json")], "no such report of 'visattn test'"),
        ([str(text)], "cannot be read as JSON"),
        ([str(broken)], "is not a report"),
        ([str(old)], "has no score"),
        ([str(twice)], "contains 2 files"),
        ([str(tmp_path)], "contains 0 files"),
        ([str(report), str(of_val)], "different splits"),
    ):
        assert exposure.main([*words, "--output", str(tmp_path / "out")]) == 2
        assert sentence in capsys.readouterr().err
