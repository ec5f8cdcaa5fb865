import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import datasets
from torchvision.transforms import v2

from visattn.data import CIFAR10, CIFAR100, ImageBatch
from visattn.data.augment import RandomCropFlip, RandomErasing
from visattn.data.classification import ClassificationData, stratified_split
from visattn.data.loading import BatchName
from visattn.data.policies import TrivialAugment
from visattn.errors import InputError

PER_FILE, TEST = 40, 30


def fake(root: Path, source: type[datasets.CIFAR10], monkeypatch: pytest.MonkeyPatch) -> None:
    """A small CIFAR in the layout of the real one; torchvision is patched to expect its checksums."""
    folder = root / source.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    hundred = source is datasets.CIFAR100

    def dump(name: str, content: dict) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    def images(name: str, count: int) -> list[str]:
        data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        labels = (np.arange(count) % 10).tolist()
        return [name, dump(name, {"data": data, "fine_labels" if hundred else "labels": labels})]

    for attribute, count in (("train_list", PER_FILE), ("test_list", TEST)):
        files = [images(name, count) for name, _ in getattr(source, attribute)]
        monkeypatch.setattr(source, attribute, files)
    md5 = dump(source.meta["filename"], {source.meta["key"]: [str(i) for i in range(10)]})
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": md5})


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake(tmp_path, datasets.CIFAR10, monkeypatch)
    return tmp_path


def epoch(data: ClassificationData, number: int = 0) -> list[ImageBatch]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def same(left: list[ImageBatch], right: list[ImageBatch]) -> bool:
    return all(
        a.ids == b.ids and a.labels.equal(b.labels) and a.images.equal(b.images)
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize(
    ("kind", "source", "files"), [(CIFAR10, datasets.CIFAR10, 5), (CIFAR100, datasets.CIFAR100, 1)]
)
def test_splits_are_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind, source, files: int) -> None:
    fake(tmp_path, source, monkeypatch)
    data = kind(tmp_path, val_fraction=0.25)
    data.prepare_data()  # all there: nothing is fetched
    train, test = source(tmp_path, train=True), source(tmp_path, train=False)
    held = round(PER_FILE * files / 10 * 0.25) * 10
    for split, count in (("train", PER_FILE * files - held), ("val", held), ("test", TEST)):
        images, labels = data.tensors(split)
        assert images.shape == (count, 3, 32, 32)
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert (torch.bincount(labels) == count // 10).all()
        whole = test if split == "test" else train
        rows = [int(name.split("-")[1]) for name in data.ids(split)]
        assert (images.numpy() == whole.data[rows].transpose(0, 3, 1, 2)).all()
        assert labels.tolist() == [whole.targets[row] for row in rows]
    assert not set(data.ids("train")) & set(data.ids("val"))


def test_class_names_need_no_data() -> None:
    assert CIFAR10("nowhere").class_names[3] == "cat"
    assert len(CIFAR10("nowhere").class_names) == 10
    names = CIFAR100("nowhere").class_names
    assert len(set(names)) == 100
    assert names == sorted(names)


def test_stratified_split() -> None:
    labels = np.random.default_rng(0).integers(0, 7, 503)
    kept, held = stratified_split(labels, 0.2, seed=0)
    assert sorted([*kept, *held]) == list(range(503))
    for label in range(7):
        assert (labels[held] == label).sum() == round(0.2 * (labels == label).sum())
    assert (stratified_split(labels, 0.2, seed=0)[1] == held).all()
    assert set(stratified_split(labels, 0.2, seed=1)[1]) != set(held)
    assert len(stratified_split(labels, 0, seed=0)[1]) == 0


def test_an_epoch_shows_every_image_once(root: Path) -> None:
    data = CIFAR10(root, batch_size=37, padding=0, flip=False)
    batches = epoch(data)
    assert sorted(i for b in batches for i in b.ids) == sorted(data.ids("train"))
    images, labels = data.tensors("train")
    place = {name: i for i, name in enumerate(data.ids("train"))}
    for batch in batches:  # unaugmented: the very images
        rows = [place[i] for i in batch.ids]
        assert batch.images.equal(images[rows])
        assert batch.labels.equal(labels[rows])


@pytest.mark.parametrize("strong", [[], [v2.TrivialAugmentWide(), v2.RandomErasing(p=0.5)]])
def test_order_and_augmentation_are_functions_of_seed_and_epoch(root: Path, strong: list[v2.Transform]) -> None:
    def batches(number: int, **options: int) -> list[ImageBatch]:
        return epoch(CIFAR10(root, batch_size=37, augmentation=strong, **options), number)

    first = batches(2)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    assert same(first, batches(2))
    assert torch.get_rng_state().equal(state)
    assert same(first, batches(2, workers=2))
    assert not same(first, batches(1))
    assert not same(first, batches(2, seed=1))


def test_batches_augment_differently() -> None:
    states = {
        tuple(BatchName(e, b, r, 2).generator(0).get_state().tolist()) for e in (0, 1) for b in (0, 1) for r in (0, 1)
    }
    assert len(states) == 8


def test_evaluation_shows_the_images_as_they_are(root: Path) -> None:
    data = CIFAR10(root, eval_batch_size=13)
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        batches = list(loader)
        assert torch.cat([b.images for b in batches]).equal(data.tensors(split)[0])
        assert [i for b in batches for i in b.ids] == data.ids(split)
    assert same(list(data.predict_dataloader()), list(data.test_dataloader()))


@pytest.mark.parametrize(("padding", "flip"), [(4, True), (3, False), (0, True)])
def test_crop_flip_equals_one_image_at_a_time(padding: int, flip: bool) -> None:
    images = torch.randint(256, (41, 3, 13, 17), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    fast = RandomCropFlip(padding, flip)(images, torch.Generator().manual_seed(5))
    assert images.equal(before)
    draw = torch.Generator().manual_seed(5)
    offsets = torch.randint(2 * padding + 1, (2, 41), generator=draw)
    mirrored = (torch.rand(41, generator=draw) < 0.5) & flip

    def one(image: Tensor, top: int, left: int, mirror: bool) -> np.ndarray:
        padded = np.pad(image.numpy(), ((0, 0), (padding, padding), (padding, padding)), mode="reflect")
        crop = padded[:, top : top + 13, left : left + 17]
        return crop[:, :, ::-1] if mirror else crop

    for i in range(41):
        assert (fast[i].numpy() == one(images[i], *offsets[:, i].tolist(), bool(mirrored[i]))).all()
    if padding:
        assert set(offsets.flatten().tolist()) == set(range(2 * padding + 1))
    if flip:
        assert 0 < mirrored.sum() < 41


def test_errors(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere .*CIFAR10 .*download to true"):
        CIFAR10(tmp_path / "nowhere", download=False).train_dataloader()
    (root / datasets.CIFAR10.base_folder / "test_batch").write_bytes(b"rotten")
    with pytest.raises(InputError, match="does not contain all of CIFAR10"):
        CIFAR10(root, download=False).test_dataloader()
    with pytest.raises(InputError, match="val_fraction is 1"):
        CIFAR10(root, val_fraction=1.0)
    with pytest.raises(InputError, match="padding is -1"):
        CIFAR10(root, padding=-1)


def test_nothing_held_out_and_too_much_padding(root: Path) -> None:
    with pytest.raises(InputError, match=r"val split.*val_fraction"):
        CIFAR10(root, val_fraction=0).val_dataloader()
    with pytest.raises(InputError, match=r"padding is 32; .*32"):
        CIFAR10(root, padding=32).train_dataloader()


def test_a_failed_download_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(datasets.CIFAR10, "download", offline)
    with pytest.raises(InputError, match=r"CIFAR10 .*downloaded.*: no network"):
        CIFAR10(tmp_path).prepare_data()


class Elsewhere:
    """A trainer on another device, which here is the CPU; batches then take the device's way."""

    global_rank, world_size = 0, 1

    class strategy:  # noqa: N801
        root_device = torch.device("cpu")


def test_batches_on_the_device_are_those_of_the_loader(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"batch_size": 37, "augmentation": [RandomErasing(), v2.RandomErasing(p=0.5), TrivialAugment()]}
    loaded = epoch(CIFAR10(root, **options), 3)
    assert any(not batch.images.equal(other.images) for batch, other in zip(loaded, epoch(CIFAR10(root)), strict=False))
    data = CIFAR10(root, on_device=True, **options)
    data.trainer = Elsewhere()
    monkeypatch.setattr(RandomCropFlip, "strided", RandomCropFlip.gathered)
    assert same(epoch(data, 3), loaded)
    assert same(list(data.val_dataloader()), list(CIFAR10(root).val_dataloader()))
    batch = loaded[0]
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert moved.images.is_meta
    assert moved.ids is batch.ids
    with pytest.raises(InputError, match=r"workers is 2.* set workers to 0"):
        CIFAR10(root, workers=2, on_device=True)


def parts(root: Path, folder: Path, count: int) -> dict[str, np.ndarray]:
    """Split what torchvision reads, as a mixture of training and test images, into parts; returns all of it."""
    files = [datasets.CIFAR10(root, train) for train in (True, False)]
    whole = {
        "images": np.concatenate([file.data for file in files]),
        "labels": np.concatenate([file.targets for file in files]),
        "test": np.repeat([False, True], [len(file) for file in files]),
    }
    folder.mkdir()
    for i, rows in enumerate(np.array_split(np.arange(len(whole["test"])), count)):
        np.savez_compressed(folder / f"part_{i}.npz", **{name: values[rows] for name, values in whole.items()})
    return whole


def test_parts_are_the_original(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "counts", (5 * PER_FILE, TEST))
    parts(root, folder := tmp_path / "parts", 3)
    data = CIFAR10(folder)
    data.prepare_data()
    for split in ("train", "val", "test"):
        for ours, theirs in zip(data.tensors(split), CIFAR10(root).tensors(split), strict=True):
            assert ours.equal(theirs)
    assert same(epoch(data, 1), epoch(CIFAR10(root), 1))


def test_missing_and_damaged_parts_are_named(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "counts", (5 * PER_FILE, TEST))
    whole = parts(root, folder := tmp_path / "parts", 3)
    last = (folder / "part_2.npz").read_bytes()
    (folder / "part_2.npz").unlink()
    with pytest.raises(InputError, match=r"2 parts .*154 .* 0 .*200 and 30"):
        CIFAR10(folder).test_dataloader()
    for damaged in (last[:1000], b"junk"):
        (folder / "part_2.npz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"part_2.npz cannot be read .* copy it again") as caught:
            CIFAR10(folder).test_dataloader()
        assert "pickle" not in str(caught.value)  # which NumPy would try next
    (folder / "part_2.npz").write_bytes(last)
    for name, value in (("images", whole["images"][:, :31]), ("labels", whole["labels"] + 0.5), ("test", np.zeros(3))):
        np.savez(folder / "part_0.npz", **{**whole, name: value})
        with pytest.raises(InputError, match=rf"{name} of .*part_0.npz is"):
            CIFAR10(folder).test_dataloader()
    np.savez(folder / "part_0.npz", **{**whole, "labels": whole["labels"] + 1})
    with pytest.raises(InputError, match=r"labels of .* between 0 and 9"):
        CIFAR10(folder).test_dataloader()
    (folder / "part_0.npz").unlink()
    with pytest.raises(InputError, match=r"part_0.npz is missing.*part_2"):
        CIFAR10(folder).test_dataloader()
