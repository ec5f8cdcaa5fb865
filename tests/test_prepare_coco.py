"""Servers that interrupt, send wrong data or refuse; files are complete or absent in the end."""

import hashlib
import io
import json
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from conftest import fit
from PIL import Image

from visattn.cli import prepare_coco
from visattn.data import download as module
from visattn.data.download import download, unpack
from visattn.errors import InputError
from visattn.tasks.prepare_coco import SETS

CONTENT = np.random.default_rng(0).bytes(40_007)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server:
    """Serves `files` by their path; `breaks` bytes of an answer come before the connection ends."""

    def __init__(self):
        server = self
        self.files, self.breaks, self.ranges, self.status, self.asked = {"/file.zip": CONTENT}, None, True, None, []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                start = self.headers.get("Range")
                server.asked.append(start)
                content = server.files.get(self.path)
                if server.status or content is None:
                    self.send_error(server.status or 404)
                    return
                at = int(start.removeprefix("bytes=").removesuffix("-")) if start and server.ranges else 0
                if at >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206 if start and server.ranges else 200)
                self.send_header("Content-Length", str(len(content) - at))
                self.end_headers()
                self.wfile.write(content[at:][: server.breaks])

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 4096)


def test_an_interrupted_download_is_resumed(server, tmp_path):
    server.breaks = 9_001
    download(f"{server.url}/file.zip", tmp_path / "file.zip", MD5, attempts=2, pause=0)
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=9001-", "bytes=18002-", "bytes=27003-", "bytes=36004-"]
    assert not (tmp_path / "file.zip.part").exists()
    download(f"{server.url}/file.zip", tmp_path / "file.zip", MD5)
    assert len(server.asked) == 5


def test_a_later_call_resumes_an_earlier_one(server, tmp_path):
    (tmp_path / "file.zip.part").write_bytes(CONTENT[:12_345])
    download(f"{server.url}/file.zip", tmp_path / "file.zip", MD5)
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert server.asked == ["bytes=12345-"]


def test_a_server_without_ranges_begins_anew(server, tmp_path):
    server.ranges = False
    (tmp_path / "file.zip.part").write_bytes(CONTENT[:12_345])
    download(f"{server.url}/file.zip", tmp_path / "file.zip", MD5)
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"too much"], ids=["all", "more than all"])
def test_a_complete_part_needs_no_request(server, tmp_path, part):
    (tmp_path / "file.zip.part").write_bytes(part)
    download(f"{server.url}/file.zip", tmp_path / "file.zip", MD5, pause=0)
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_a_file_with_a_wrong_checksum_is_not_renamed(server, tmp_path):
    (tmp_path / "file.zip.part").write_bytes(b"x" * 12_345)
    with pytest.raises(InputError, match=f"[0-9a-f]+, not {MD5}; .*deleted"):
        download(f"{server.url}/file.zip", tmp_path / "file.zip", MD5)
    assert list(tmp_path.iterdir()) == []


def test_partial_data_are_kept_when_a_download_fails(server, tmp_path):
    server.breaks = 0
    (tmp_path / "file.zip.part").write_bytes(CONTENT[:5])
    with pytest.raises(InputError, match=r"5 bytes are in .*run this again to resume"):
        download(f"{server.url}/file.zip", tmp_path / "file.zip", MD5, attempts=3, pause=0)
    assert len(server.asked) == 3
    assert (tmp_path / "file.zip.part").read_bytes() == CONTENT[:5]


@pytest.mark.parametrize("status", [404, 403])
def test_a_refusal_is_final(server, tmp_path, status):
    server.status = status
    with pytest.raises(InputError, match=f"cannot be downloaded: HTTP {status}"):
        download(f"{server.url}/file.zip", tmp_path / "file.zip", MD5)
    assert len(server.asked) == 1


def zipped(**files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def test_unpacking_goes_on_and_mends(tmp_path):
    archive, folder = tmp_path / "a.zip", tmp_path / "out"
    archive.write_bytes(zipped(**{"in/a.jpg": b"aaa", "in/b.jpg": b"bbbbb", "other.txt": b"no"}))
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"aaa")
    (folder / "b.jpg").write_bytes(b"b")
    before = (folder / "a.jpg").stat().st_mtime_ns
    names = {"in/a.jpg": "a.jpg", "in/b.jpg": "b.jpg"}
    assert unpack(archive, folder, names.get) == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a.jpg": b"aaa", "b.jpg": b"bbbbb"}
    assert (folder / "a.jpg").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["../evil.jpg", "/evil.jpg", "a/../../evil.jpg"])
def test_no_file_leaves_the_folder(tmp_path, name):
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped(**{name: b"evil"}))
    with pytest.raises(InputError, match="outside the folder"):
        unpack(archive, tmp_path / "inner" / "out", str)
    assert not list(tmp_path.rglob("evil.jpg"))


@pytest.mark.parametrize("broken", [b"<html>", b"", "flipped"])
def test_a_damaged_archive_is_named(tmp_path, broken):
    archive = tmp_path / "a.zip"
    whole = bytearray(zipped(**{"a.jpg": CONTENT}))
    whole[len(whole) // 2] ^= 255
    archive.write_bytes(bytes(whole) if broken == "flipped" else broken)
    with pytest.raises(InputError, match=r"a\.zip is damaged .*run this again"):
        unpack(archive, tmp_path / "out", str)
    assert not list((tmp_path / "out").rglob("*.jpg"))


def picture(seed):
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "jpeg")
    return stream.getvalue()


def coco(year, monkeypatch):
    """The archives of a set, of a few pictures, at their addresses; their sums are set in the script."""
    names = {
        split: [f"COCO_{split}2014_{i:012}.jpg" for i in ids] for split, ids in (("train", "12345"), ("val", "678"))
    }
    if year == "2017":
        names = {split: [name[-16:] for name in those] for split, those in names.items()}
    folder = "2014" if year == "karpathy" else "2017"
    files, images = {}, []
    for split, those in names.items():
        files[f"/zips/{split}{folder}.zip"] = zipped(
            **{f"{split}{folder}/{n}": picture(i) for i, n in enumerate(those)}
        )
        for i, name in enumerate(those):
            part = "train" if split == "train" else ("val", "test", "restval")[i]
            sentences = [{"tokens": ["a", "dog", *(["very"] * k), "runs"], "raw": ""} for k in range(5)]
            images.append(
                {
                    "filename": name,
                    "filepath": f"{split}2014",
                    "cocoid": int(name[-16:-4]),
                    "split": part,
                    "sentences": sentences,
                }
            )
    captions = {}
    for split, those in names.items():
        captions[f"annotations/captions_{split}{folder}.json"] = json.dumps(
            {
                "images": [{"id": int(name[-16:-4]), "file_name": name} for name in those],
                "annotations": [
                    {"image_id": int(n[-16:-4]), "caption": "A dog runs."} for n in those for _ in range(5)
                ],
            }
        )
    captions["annotations/person_keypoints_val.json"] = "{}"
    files[f"/annotations/annotations_trainval{folder}.zip"] = zipped(**captions)
    files["/caption_datasets.zip"] = zipped(
        **{"dataset_coco.json": json.dumps({"dataset": "coco", "images": images}), "dataset_flickr8k.json": "{}"}
    )
    sets = {
        part: [
            a._replace(md5=a.md5 and hashlib.md5(files[f"/{a.url}"]).hexdigest(), size=len(files[f"/{a.url}"]))
            for a in archives
        ]
        for part, archives in SETS[year].items()
    }
    monkeypatch.setitem(SETS, year, sets)
    return files


@pytest.mark.parametrize("year", ["karpathy", "2017"])
def test_what_is_prepared_is_what_the_configuration_trains_on(year, server, tmp_path, monkeypatch, capsys):
    server.files, root = coco(year, monkeypatch), tmp_path / "coco"
    words = ["--root", str(root), "--set", year, "--mirror", server.url]
    server.breaks = 3_001
    assert prepare_coco.main([*words, "--only", "captions"]) == 0
    assert not (root / "images").exists()
    assert prepare_coco.main(words) == 0
    assert not list(root.glob("*.zip*"))
    assert not list(root.rglob("*keypoints*"))
    asked = len(server.asked)
    assert prepare_coco.main(words) == 0
    assert len(server.asked) == asked, "nothing is fetched twice"
    capsys.readouterr()
    options = [f"--data.root={root}", "--data.workers=0", "--data.min_count=1", "--data.image_size=64"]
    options += [
        "--model.encoder.backbone=resnet18",
        "--model.decoder.hidden=32",
        "--model.encoder.weights=random",
        f"--features={root / 'features'}",
    ]
    if year == "2017":
        options += ["--data.annotations=annotations/captions_train2017.json"]
        options += ["--data.val_annotations=annotations/captions_val2017.json"]
    assert fit("coco_soft.yaml", tmp_path / "run", *options).exists()


def test_too_little_space_is_reported_before_downloading(server, tmp_path, monkeypatch, capsys):
    usage = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert prepare_coco.main(["--root", str(tmp_path / "coco"), "--mirror", server.url]) == 2
    assert "has 1.0 GB of free space, but about 33.9 GB are needed" in capsys.readouterr().err
    assert server.asked == []
