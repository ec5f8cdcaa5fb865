"""Captioned pictures in img2dataset's shards."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = (17, 3, 29, 11, 5)  # samples of the training shards


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (13, 19, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG" if seed % 5 == 0 else "JPEG")
    return buffer.getvalue()


def files(key: str, number: int) -> dict[str, bytes]:
    caption = f"A dog number{number} runs."
    said = {"caption": caption, "key": key, "status": "success", "both": [caption, "It runs fast."], "width": 19}
    suffix = "png" if number % 5 == 0 else "jpg"
    return {suffix: jpeg(number), "txt": caption.encode(), "json": json.dumps(said).encode()}


def write_shard(path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, parts in samples.items():
            for suffix, content in parts.items():
                header = tarfile.TarInfo(f"{key}.{suffix}")
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))


def write(root: Path, spoil: dict[str, dict[str, bytes | None]] | None = None) -> Path:
    """The data set; `spoil` replaces files of a sample, or removes them (None)."""
    number = 0
    for split, sizes in {"train": SIZES, "val": (4, 3)}.items():
        for shard, size in enumerate(sizes):
            samples = {}
            for i in range(size):
                key = f"{split[0]}{shard:05d}{i:04d}"
                parts = files(key, number) | (spoil or {}).get(key, {})
                samples[key] = {suffix: content for suffix, content in parts.items() if content is not None}
                number += 1
            write_shard(root / split / f"{shard:05d}.tar", samples)
    return root
