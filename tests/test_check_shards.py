"""Shards with one fault of each kind, and some without any."""

import json
from pathlib import Path

import pytest
from support.shards import files, jpeg, write, write_shard

from visattn.cli import check_data


def run(root: Path, *options: str, shards: tuple[str, ...] = ("train/*.tar", "val/*.tar")) -> int:
    words = ["--root", str(root), "--shards", *shards, "--min-count", "1", "--workers", "0", *options]
    return check_data.main(words)


@pytest.fixture(autouse=True)
def _any_size(monkeypatch):
    monkeypatch.setattr("visattn.data.inspection.SMALLEST", 13)  # the height of these tests' images


def report(root: Path, capsys, *options: str, status: int = 1, **shards: tuple[str, ...]) -> dict:
    file = root / "report.json"
    assert run(root, "--output", str(file), *options, **shards) == status, capsys.readouterr().err
    return json.loads(file.read_text())


def test_sound_shards_have_no_faults(tmp_path, capsys):
    for where, captions in (("txt", 72), ("both", 144)):
        found = report(write(tmp_path), capsys, "--captions", where, "--max-unknown", "1", status=0)
        assert (found["images"], found["pictures"], found["captions"]) == (72, 72, captions)
    assert "no faults found" in capsys.readouterr().out


def test_faults_of_samples_are_listed_by_kind(tmp_path, capsys):
    spoil = {
        "t000000003": {"jpg": None},
        "t000000002": {"jpg": jpeg(2)[:60]},
        "t000010001": {"jpg": jpeg(1)},
        "t000020003": {"txt": b" . "},
        "t000020004": {"txt": "café".encode("latin-1")},
        "v000000001": {"txt": ("very " * 101).encode()},
    }
    found = report(write(tmp_path, spoil), capsys, "--max-unknown", "1")
    where = {(fault["kind"], fault["where"].rpartition(", ")[2]) for fault in found["faults"]}
    assert where == {
        ("missing", "t000000003"),
        ("undecodable", "t000000002"),
        ("duplicate picture", "t000010001"),
        ("captionless", "t000020003"),
        ("captionless", "t000020004"),
        ("overlong caption", "v000000001"),
    }
    assert all(str(tmp_path / "train") in f["where"] for f in found["faults"] if f["kind"] != "overlong caption")
    assert found["pictures"] == found["images"] - 1
    printed = capsys.readouterr().out
    assert "UTF-8" in printed
    assert "missing, 1" in printed


def test_a_caption_of_several_that_cannot_be_used_is_named(tmp_path, capsys):
    said = {"both": ["A dog runs.", 7]}
    root = write(tmp_path, {"t000000001": {"json": json.dumps(said).encode()}})
    found = report(root, capsys, "--captions", "both", "--max-unknown", "1")
    assert found["counts"] == {"unusable caption": 1}
    assert found["captions"] == 143


def test_keys_that_occur_twice_in_a_split_are_faults_and_in_two_splits_are_not(tmp_path, capsys):
    root = write(tmp_path)
    write_shard(root / "train" / "00005.tar", {"t000000001": files("t000000001", 201)})
    write_shard(root / "val" / "00002.tar", {"t000000002": files("t000000002", 202)})
    found = report(root, capsys, "--max-unknown", "1")
    assert found["counts"] == {"duplicate id": 1}
    assert found["faults"][0]["where"].endswith("00005.tar, t000000001")


@pytest.mark.parametrize("kept", [700, 5000])
def test_a_truncated_shard_is_a_fault_and_the_others_are_checked(kept, tmp_path, capsys):
    root = write(tmp_path)
    shard = root / "train" / "00002.tar"
    shard.write_bytes(shard.read_bytes()[:kept])
    found = report(root, capsys, "--max-unknown", "1")
    assert found["counts"] == {"damaged shard": 1}
    assert found["faults"][0]["where"] == str(shard)
    assert found["images"] == 72 - 29


def test_words_that_a_model_would_not_see_are_a_fault(tmp_path, capsys):
    found = report(write(tmp_path), capsys, "--min-count", "2")
    assert found["counts"] == {"lost words": 1}  # of four words of a training caption, one is its number
    assert len(found["notes"]) == 1  # of few validation captions it is not certain


def test_commands_are_read_as_in_training(tmp_path, capsys):
    root = write(tmp_path)
    pattern = f"pipe:cat {root}/train/{{00000..00004}}.tar"
    assert report(root, capsys, "--max-unknown", "1", status=0, shards=(pattern,))["images"] == 65


def test_absolute_patterns_are_read(tmp_path, capsys):
    root = write(tmp_path)
    assert report(root, capsys, "--max-unknown", "1", status=0, shards=(f"{root}/train/*.tar",))["images"] == 65


def test_two_processes_find_the_same(tmp_path, capsys):
    root = write(tmp_path, {"t000000003": {"jpg": None}})
    alone, two = (report(root, capsys, "--max-unknown", "1", "--workers", n) for n in ("0", "2"))
    assert alone == two


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--checksums", "sums.txt"], "--checksums"),
        (["--write-checksums", "sums.txt"], "--write-checksums"),
        (["--output", "{root}/train/00000.tar"], "00000.tar"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, named, tmp_path, capsys):
    root = write(tmp_path)
    before = (root / "train" / "00000.tar").read_bytes()
    assert run(root, *(option.format(root=root) for option in options)) == 2
    assert named in capsys.readouterr().err
    assert (root / "train" / "00000.tar").read_bytes() == before


def test_shards_and_annotations_exclude_each_other(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(write(tmp_path), "--annotations", "captions.json")
    assert "--annotations: not allowed with" in capsys.readouterr().err


def test_shards_that_do_not_exist_are_named(tmp_path, capsys):
    for pattern in ("train/{00000..00009}.tar", "elsewhere/*.tar", f"{tmp_path}/none/*.tar"):
        assert run(write(tmp_path), shards=(pattern,)) == 2
        assert "--shards" in capsys.readouterr().err


def test_captions_is_for_shards(tmp_path, capsys):
    assert check_data.main(["--root", str(tmp_path), "--annotations", "a.json", "--captions", "txt"]) == 2
    assert "--captions" in capsys.readouterr().err
