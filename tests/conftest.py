"""Shared fixtures: tiny models trained with the command line, and data in the real layouts."""

import json
import os
import pickle
import signal
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # with more threads, sums have no fixed order, and many tests compare bits

import numpy as np
import pytest
import timm
import torch
from matplotlib.image import BboxImage
from PIL import Image
from support.browsers import browser  # noqa: F401 (a fixture)
from support.viewing import look, tabs  # noqa: F401 (fixtures)

from visattn import precision
from visattn.cli import main
from visattn.data import CIFAR10

CONFIGS = Path(__file__).parent.parent / "configs"

FAST = [
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=2",
    "--trainer.limit_test_batches=2",
    "--trainer.limit_predict_batches=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=1",
]
SMALL_SHAPES = ["--data.init_args.train_size=23", "--data.init_args.val_size=7", "--data.init_args.test_size=11"]
# With this seed, unlike the configuration's, captions have several different words after two steps.
TALKATIVE = "--seed_everything=1"


def fit(config: str, output: Path, *options: str) -> Path:
    """Fit an included configuration for two batches; returns the checkpoint."""
    assert main(["fit", "--config", str(CONFIGS / config), "--output", str(output), *FAST, *options]) == 0
    return output / "best.ckpt"


def images_of(figure):
    """The images on a sheet, including those of the legend, in drawing order."""
    return [artist for artist in figure.artists if isinstance(artist, BboxImage)]


def pixels_of(figure):
    """The pixels of each image on a sheet."""
    return [np.asarray(image.get_array()) for image in images_of(figure)]


def assert_nothing_overlaps(figure):
    """All images and texts are within the figure, and do not overlap."""
    width, height = figure.get_size_inches() * figure.dpi
    renderer = figure.canvas.get_renderer()
    boxes = [part.get_window_extent(renderer) for part in (*figure.axes, *images_of(figure), *figure.texts)]
    for n, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
        assert not any(
            box.x0 < o.x1 - 2 and o.x0 < box.x1 - 2 and box.y0 < o.y1 - 2 and o.y0 < box.y1 - 2 for o in boxes[:n]
        )


@pytest.fixture(scope="session", autouse=True)
def _a_cpu_without_bfloat16():
    """Make `precision: auto` float32 on every machine, in the programs that tests start, too."""
    torch.ops.mkldnn._is_mkldnn_bf16_supported()  # so that this process has read the variable already
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "cpu_features", lambda: {"avx512_f"})
        patch.setenv("ONEDNN_MAX_CPU_ISA", os.environ.get("ONEDNN_MAX_CPU_ISA", "AVX512_CORE"))
        yield


@pytest.fixture(autouse=True)
def _interrupts_arrive():
    """A shell that starts tests in the background makes them ignore SIGINT; so does Lightning after an interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def one_thread():
    """With several threads, the order of summation may differ."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def captioner_checkpoint(tmp_path_factory):
    return fit("shapes_captioner.yaml", tmp_path_factory.mktemp("captioner"), *SMALL_SHAPES, TALKATIVE)


@pytest.fixture(scope="session")
def hard_checkpoint(tmp_path_factory):
    overlay = ["--config", str(CONFIGS / "attention" / "hard.yaml")]
    return fit("shapes_captioner.yaml", tmp_path_factory.mktemp("hard"), *overlay, *SMALL_SHAPES, TALKATIVE)


@pytest.fixture(scope="session")
def classifier_checkpoint(tmp_path_factory):
    return fit("shapes_vit.yaml", tmp_path_factory.mktemp("classifier"), *SMALL_SHAPES)


@pytest.fixture
def no_hub(monkeypatch):
    """timm without access to its hub."""
    create = timm.create_model

    def refuse(name, pretrained=False, **options):
        if pretrained:
            raise OSError("cannot reach\nthe hub")
        return create(name, pretrained, **options)

    monkeypatch.setattr(timm, "create_model", refuse)


@pytest.fixture
def photographs(tmp_path):
    """Two photographs of odd sizes, one turned by its EXIF tag."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (47, 61, 3), dtype=np.uint8)).save(folder / "wide.jpg")
    turned = Image.fromarray(rng.integers(0, 256, (43, 71, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    return folder


def write_karpathy(root: Path) -> Path:
    """A data set of photographs in the layout of the Karpathy splits."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(1)
    entries = []
    for i in range(13):
        name = f"{i}.jpg"
        Image.fromarray(rng.integers(0, 256, (37, 53, 3), dtype=np.uint8)).save(root / "images" / name)
        sentences = [{"tokens": f"a dog runs {'very ' * (k + 1)}fast".split(), "raw": ""} for k in range(5)]
        split = "train" if i < 7 else "val" if i < 10 else "test"
        entries.append({"filename": name, "imgid": i, "split": split, "sentences": sentences})
    (root / "dataset_flickr8k.json").write_text(json.dumps({"dataset": "flickr8k", "images": entries}))
    return root


@pytest.fixture
def karpathy_root(tmp_path):
    return write_karpathy(tmp_path / "flickr")


@pytest.fixture
def mnist_root(tmp_path):
    return write_mnist(tmp_path)


def write_mnist(root: Path) -> Path:
    """MNIST's files with 37 and 11 digits of noise."""
    rng = np.random.default_rng(0)
    (raw := root / "MNIST" / "raw").mkdir(parents=True)
    for name, count in (("train", 37), ("t10k", 11)):
        for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            content = rng.integers(1, 10, size=shape, dtype=np.uint8)
            head = bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">i4").tobytes()
            (raw / f"{name}-{kind}-ubyte").write_bytes(head + content.tobytes())
    return root


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10 in the original pickles, with 20 images per file, and without the check of MD5 sums."""
    (folder := root / "cifar-10-batches-py").mkdir(parents=True)
    rng = np.random.default_rng(2)
    for name, _ in [*CIFAR10.source.train_list, *CIFAR10.source.test_list]:
        batch = {"data": rng.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [i % 10 for i in range(20)]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(CIFAR10.source, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    return root


@pytest.fixture
def cifar_root(tmp_path, monkeypatch):
    return write_cifar(tmp_path / "cifar", monkeypatch)


def pytest_addoption(parser):
    parser.addoption(
        "--every-backbone",
        action="store_true",
        help="compare where cells look with gradients for a backbone of every kind in timm, no sample; takes an hour",
    )
    parser.addoption(
        "--every-family",
        action="store_true",
        help="compare the maps of every family of timm's transformers with its own arithmetic, not of a sample",
    )
