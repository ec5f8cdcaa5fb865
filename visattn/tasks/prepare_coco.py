"""Downloading COCO and arranging it as the configurations expect."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from visattn.data.download import download, unpack
from visattn.errors import InputError
from visattn.files import read_json, write_json

COCO = "https://s3.amazonaws.com/images.cocodataset.org"  # COCO's own bucket; its images.cocodataset.org has no https
KARPATHY = "https://cs.stanford.edu/people/karpathy/deepimagesent"
_GB = 10**9


class Archive(NamedTuple):
    """A zip file and where its members go.

    Attributes:
        url: path on the site.
        site: address of the site.
        md5: MD5 sum, or None if none was published.
        size: approximate size in bytes.
        place: maps a member's name to its path under the root, or to None if it is not needed.
    """

    url: str
    site: str
    md5: str | None
    size: float
    place: Callable[[str], str | None]


def _annotations(name: str) -> str | None:
    """Captions and instances; key points are not unpacked."""
    return name if Path(name).name.startswith(("captions_", "instances_")) else None


def _splits(name: str) -> str | None:
    return name if name == "dataset_coco.json" else None


def _image(name: str) -> str:
    """Karpathy's file names an image with its folder ("train2014/COCO_train2014_….jpg")."""
    return f"images/{name}"


def _flat(name: str) -> str:
    """The 2017 files do not give an image's folder; file names are unique."""
    return f"images/{Path(name).name}"


SETS: dict[str, dict[str, list[Archive]]] = {
    "karpathy": {
        "captions": [
            Archive("caption_datasets.zip", KARPATHY, None, 0.04 * _GB, _splits),
            Archive(
                "annotations/annotations_trainval2014.zip",
                COCO,
                "0a379cfc70b0e71301e0f377548639bd",
                0.25 * _GB,
                _annotations,
            ),
        ],
        "images": [
            Archive("zips/val2014.zip", COCO, "a3d79f5ed8d289b7a7554ce06a5782b3", 6.6 * _GB, _image),
            Archive("zips/train2014.zip", COCO, "0da8c0bd3d6becc4dcb32757491aca88", 13.5 * _GB, _image),
        ],
    },
    "2017": {
        "captions": [
            Archive(
                "annotations/annotations_trainval2017.zip",
                COCO,
                "f4bbac642086de4f52a3fdda2de5fa2c",
                0.25 * _GB,
                _annotations,
            ),
        ],
        "images": [
            Archive("zips/val2017.zip", COCO, "442b8da7639aecaf257c1dceb8ba8c80", 0.8 * _GB, _flat),
            Archive("zips/train2017.zip", COCO, "cced6f7f71b7629ddf16f17bbcfab6b2", 19.3 * _GB, _flat),
        ],
    },
}


def prepare(root: Path, archives: Sequence[Archive], keep: bool = False) -> dict[str, int]:
    """Download and unpack the archives that are not yet there.

    Args:
        root: folder of the data set, created if missing.
        archives: archives, in order.
        keep: whether to keep the zip files.

    Returns:
        The number of files unpacked from each archive, by archive name; also written to `prepared.json` in the root.

    Raises:
        InputError: if there is not enough space; see also `download` and `unpack`.
    """
    root.mkdir(parents=True, exist_ok=True)
    record = root / "prepared.json"
    done: dict[str, int] = read_json(record) if record.exists() else {}
    left = [archive for archive in archives if Path(archive.url).name not in done]
    need = sum(archive.size for archive in left) * (2 if keep else 1) + (
        0 if keep else max((archive.size for archive in left), default=0)
    )
    came = sum(path.stat().st_size for path in root.glob("*.zip*"))
    free = shutil.disk_usage(root).free
    if free + came < need:
        raise InputError(
            f"{root} has {free / _GB:.1f} GB of free space, but about {need / _GB:.1f} GB are needed; "
            "free some space, or choose another --root"
        )
    for archive in left:
        name = Path(archive.url).name
        ours = not (root / name).exists()  # never delete an archive that the user put there
        download(f"{archive.site}/{archive.url}", root / name, archive.md5)
        done[name] = unpack(root / name, root, archive.place)
        write_json(record, done)
        if ours and not keep:
            (root / name).unlink()
    return done
