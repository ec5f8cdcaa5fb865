import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch import Tensor

from visattn.data import CaptionBatch, CaptionData, CaptionedImage, Photographs
from visattn.data.annotations import read_annotations
from visattn.data.loading import BatchName
from visattn.errors import InputError
from visattn.images import Geometry
from visattn.vocabulary import END, PAD, SPECIALS, START, UNKNOWN, Vocabulary

WORDS = ["a", "dog", "runs", "over", "the", "red", "hill", "while", "birds", "sing"]
TRAIN, CAPTIONS, VAL = 23, 3, 7


class Toy(CaptionData):
    """Images of a constant value, their index; captions of 1 to 10 words."""

    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        rng = np.random.default_rng(0)

        def images(start: int, count: int, extra: str) -> list[CaptionedImage]:
            captions = [[[*WORDS[: rng.integers(1, 10)], extra] for _ in range(CAPTIONS)] for _ in range(count)]
            return [CaptionedImage(str(start + i), c) for i, c in enumerate(captions)]

        self.splits = {"train": images(0, TRAIN, "here"), "val": images(100, VAL, "there"), "test": []}

    def examples(self, split: str) -> Sequence[CaptionedImage]:
        return self.splits[split]

    def load(self, example: CaptionedImage) -> tuple[Tensor, Geometry]:
        return torch.full((3, 5, 11), int(example.id), dtype=torch.uint8), Geometry.identity((5, 11))


def epoch(data: CaptionData, number: int = 0) -> list[CaptionBatch]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def pairs(data: CaptionData, batch: CaptionBatch) -> list[tuple[str, tuple[str, ...]]]:
    decode = Vocabulary(data.vocabulary).decode
    return [(batch.ids[o], tuple(decode(t))) for o, t in zip(batch.owner.tolist(), batch.tokens.tolist(), strict=True)]


def same(left: list[CaptionBatch], right: list[CaptionBatch]) -> bool:
    return len(left) == len(right) and all(
        a.ids == b.ids and a.tokens.equal(b.tokens) and a.owner.equal(b.owner) and a.images.equal(b.images)
        for a, b in zip(left, right, strict=True)
    )


def test_an_epoch_shows_every_pair_once() -> None:
    data = Toy(batch_size=7)
    batches = epoch(data)
    want = Counter((e.id, tuple(c)) for e in data.examples("train") for c in e.captions)
    assert Counter(p for b in batches for p in pairs(data, b)) == want
    assert len(batches) == len(data.train_dataloader()) == -(-TRAIN * CAPTIONS // 7)
    for batch in batches:
        assert len(set(batch.ids)) == len(batch.ids)
        assert batch.features is None
        assert batch.images.dtype == torch.uint8
        assert (batch.images[:, 0, 0, 0] == torch.tensor([int(i) for i in batch.ids])).all()
        assert batch.tokens.dtype == batch.owner.dtype == torch.int64
        assert (batch.tokens[:, 0] == START).all()
        assert ((batch.tokens == END).sum(1) == 1).all()


def test_batches_are_of_nearly_one_length_in_random_order() -> None:
    data = Toy(batch_size=7)
    lengths = [(b.tokens != PAD).sum(1) for b in epoch(data)]
    ranges = sorted((int(n.min()), int(n.max())) for n in lengths)
    assert all(low[1] <= high[0] for low, high in pairwise(ranges))  # buckets do not overlap
    assert [int(n.max()) for n in lengths] != sorted(int(n.max()) for n in lengths)


def test_grouped_batches_hold_all_captions_of_their_images_in_a_row() -> None:
    data = Toy(batch_size=2 * CAPTIONS)
    data.grouped = True
    batches = epoch(data)
    assert sorted(i for b in batches for i in b.ids) == sorted(e.id for e in data.examples("train"))
    assert all(b.owner.tolist() == [image for image in range(len(b.ids)) for _ in range(CAPTIONS)] for b in batches)
    want = Counter((e.id, tuple(c)) for e in data.examples("train") for c in e.captions)
    assert Counter(p for b in batches for p in pairs(data, b)) == want
    assert not same(batches, epoch(data, 1))


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_grouped_batches_by_the_image(world: int) -> None:
    data = Toy(batch_size=2 * CAPTIONS)
    data.grouped = True
    batches = data.train_dataloader().dataset
    seen = Counter()
    for number in range(batches.batches(world)):
        shares = [batches[BatchName(0, number, rank, world)] for rank in range(world)]
        ids = [i for share in shares for i in share.ids]
        if len(ids) >= world:  # else an image's captions have to be parted
            assert len(set(ids)) == len(ids)
        seen.update(pair for share in shares for pair in pairs(data, share))
    want = Counter((e.id, tuple(c)) for e in data.examples("train") for c in e.captions)
    assert set(seen) == set(want)
    assert sum(seen.values()) == sum(want.values())


def test_order_is_a_function_of_seed_and_epoch() -> None:
    first = epoch(Toy(batch_size=7, seed=3), 2)
    torch.manual_seed(1)
    np.random.seed(1)
    state = torch.get_rng_state()
    assert same(first, epoch(Toy(batch_size=7, seed=3), 2))
    assert same(first, epoch(Toy(batch_size=7, seed=3, workers=2), 2))
    assert torch.get_rng_state().equal(state)  # loading draws nothing from the global state
    assert not same(first, epoch(Toy(batch_size=7, seed=3), 1))
    assert not same(first, epoch(Toy(batch_size=7, seed=4), 2))


def test_processes_share_the_batches_of_one() -> None:
    one, two = (Toy(batch_size=size).train_dataloader().dataset for size in (8, 4))
    data = Toy()
    assert one.batches() == two.batches(2)
    for i in range(one.batches()):
        shares = [pairs(data, two[BatchName(5, i, rank, 2)]) for rank in range(2)]
        assert Counter(shares[0] + shares[1]) == Counter(pairs(data, one[BatchName(5, i)]))
    uneven = Toy(batch_size=34).train_dataloader().dataset  # 69 = 2 × 34 + 1: somebody's share would be empty
    assert all(len(uneven[BatchName(0, i, r, 2)].tokens) for i in range(uneven.batches(2)) for r in range(2))


def test_evaluation_shows_images_once_with_all_captions() -> None:
    data = Toy(eval_batch_size=3)
    batches = list(data.val_dataloader())
    assert [i for b in batches for i in b.ids] == [e.id for e in data.examples("val")]
    assert [len(b.ids) for b in batches] == [3, 3, 1]
    for batch in batches:
        assert batch.owner.tolist() == sorted([*range(len(batch.ids))] * CAPTIONS)
    assert same(batches, list(data.predict_dataloader()))  # no test split: the validation images are predicted
    with pytest.raises(InputError, match="Toy has no test split"):
        data.test_dataloader()
    data.splits["test"] = data.splits["train"][:2]
    assert [b.ids for b in data.predict_dataloader()] == [["0", "1"]]


def test_vocabulary_comes_from_training_alone() -> None:
    data = Toy()
    assert "here" in data.vocabulary
    assert "there" not in data.vocabulary
    assert tuple(data.vocabulary[:4]) == SPECIALS
    counts = Counter(w for e in data.examples("train") for c in e.captions for w in c)
    least = counts["birds"] + 1
    assert set(Toy(min_count=least).vocabulary[4:]) == {w for w, n in counts.items() if n >= least}


def test_captions_are_cut_references_are_not() -> None:
    data = Toy(max_length=3, batch_size=69)
    (batch,) = epoch(data)
    assert batch.tokens.shape == (69, 5)
    assert max(len(c) for captions in data.references("train").values() for c in captions) == 10
    assert data.references("val") == {e.id: e.captions for e in data.examples("val")}
    assert data.regions("0", ["a", "dog"]) == [None, None]


class Table(dict):
    """Features that are fetched together."""

    def __getitem__(self, _: str) -> Tensor:
        raise AssertionError("one by one")

    def __getitems__(self, ids: list[str]) -> Tensor:
        return torch.stack([self.get(i) for i in ids])


@pytest.mark.parametrize("kind", [dict, Table])
def test_features_stand_in_place_of_images(kind: type[dict]) -> None:
    data = Toy(batch_size=7)
    data.features = kind({e.id: torch.full((2, 3, 5), float(e.id)) for e in data.examples("train")})
    data.load = None  # never asked for
    for batch in epoch(data):
        assert batch.images is None
        assert batch.features.shape == (len(batch.ids), 2, 3, 5)
        assert batch.features[:, 0, 0, 0].tolist() == [float(i) for i in batch.ids]


class Lopsided(Toy):
    """Toy images that a mirror changes."""

    def load(self, example: CaptionedImage) -> tuple[Tensor, Geometry]:
        image, geometry = super().load(example)
        image[:, :, -1] = 255
        return image, geometry


def mirrored(batch: CaptionBatch, data: Toy) -> list[bool]:
    """Which images of a batch are mirrored; each must equal the original or its mirror image."""
    whole = {e.id: data.load(e)[0] for e in data.examples("train")}
    for name, image in zip(batch.ids, batch.images, strict=True):
        assert torch.equal(image, whole[name]) or torch.equal(image, whole[name].flip(-1))
    return [not torch.equal(image, whole[name]) for name, image in zip(batch.ids, batch.images, strict=True)]


def test_half_of_the_training_images_are_mirrored_except_with_left_or_right_in_a_caption() -> None:
    data = Lopsided(batch_size=7)
    sided = data.examples("train")[2]
    sided.captions[0][-1] = "left"
    flips: dict[str, list[bool]] = {}
    assert not any(any(mirrored(batch, data)) for batch in epoch(data))  # unless it is asked for
    data.mirror = True
    loader = data.train_dataloader()
    for number in range(31):
        loader.sampler.set_epoch(number)
        for batch in loader:
            for name, flip in zip(batch.ids, mirrored(batch, data), strict=True):
                flips.setdefault(name, []).append(flip)
    assert not any(flips.pop(sided.id))
    total = [flip for seen in flips.values() for flip in seen]
    assert abs(np.mean(total) - 0.5) < 3 * 0.5 / len(total) ** 0.5
    assert all(0 < np.mean(seen) < 1 for seen in flips.values())  # the chance is a new one every time
    validated = torch.cat([batch.images for batch in data.val_dataloader()])
    assert validated.equal(torch.stack([data.load(example)[0] for example in data.examples("val")]))


def test_mirroring_is_a_function_of_seed_and_epoch_and_serves_features_too() -> None:
    data = Lopsided(batch_size=7)
    data.mirror = True
    of_images = [mirrored(batch, data) for batch in epoch(data)]
    assert of_images == [mirrored(batch, data) for batch in epoch(data)]
    ids = [e.id for e in data.examples("train")]
    data.features = Table({i: torch.zeros(2, 3, 5) for i in ids})
    data.mirrored_features = {i: torch.full((2, 3, 5), 1 + float(i)) for i in ids}
    for batch, flips in zip(epoch(data), of_images, strict=True):
        right = [1 + float(i) if flip else 0.0 for i, flip in zip(batch.ids, flips, strict=True)]
        assert batch.features[:, 1, 2, 3].tolist() == right


@pytest.mark.parametrize("option", [{"grouped": True}, {"max_length": 5}])
def test_an_epoch_is_not_continued_with_other_batches(option: dict) -> None:
    data, other = Toy(batch_size=7), Toy(batch_size=7)
    for name, value in option.items():
        setattr(other, name, value)
    loader = data.train_dataloader()
    next(batches := iter(loader))
    state = loader.state_dict()
    del batches
    (name,) = option
    with pytest.raises(InputError, match=f"saved within an epoch with {name}"):
        other.train_dataloader().load_state_dict(state)
    data.train_dataloader().load_state_dict(state)
    old = {key: value for key, value in state.items() if key not in ("grouped", "max_length")}
    other.train_dataloader().load_state_dict(old)  # a checkpoint from before these were in it


def test_training_images_are_random_parts_as_a_function_of_seed_and_epoch() -> None:
    data = Lopsided(batch_size=7)
    data.crop = 0.5
    first, again, next_epoch = epoch(data), epoch(data), epoch(data, 1)
    assert same(first, again)
    assert not same(first, next_epoch)
    whole = {e.id: data.load(e)[0] for e in data.examples("train")}
    seen = [(image, whole[name]) for batch in first for name, image in zip(batch.ids, batch.images, strict=True)]
    assert all(image.shape == original.shape for image, original in seen)
    assert (
        np.mean([torch.equal(image, original) for image, original in seen]) < 0.4
    )  # a part of few and plain pixels may look like all
    validated = torch.cat([batch.images for batch in data.val_dataloader()])
    assert validated.equal(torch.stack([data.load(example)[0] for example in data.examples("val")]))
    data.features = Table({name: torch.zeros(2, 3, 5) for name in whole})
    with pytest.raises(InputError, match="random crops need images"):
        epoch(data)


@pytest.mark.parametrize("option", ["batch_size", "eval_batch_size", "max_length", "min_count"])
def test_invalid_sizes_are_refused(option: str) -> None:
    with pytest.raises(InputError, match=f"{option} is 0; it must be at least 1"):
        Toy(**{option: 0})
    with pytest.raises(InputError, match="workers is -1"):
        Toy(workers=-1)


class Witness(LightningModule):
    """Notes what it is shown; stops when told to."""

    def __init__(self, stop: int | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []
        self.stop = stop

    def training_step(self, batch: CaptionBatch, number: int) -> Tensor:
        if self.global_step == self.stop:
            raise RuntimeError("killed")
        self.seen.append((self.current_epoch, number, batch.ids, batch.owner.tolist()))
        return self.layer(batch.images.float().mean((1, 2, 3))[:, None]).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("limit", [1.0, 7])
def test_a_run_resumed_within_an_epoch_sees_what_is_left_of_it(tmp_path: Path, limit: float) -> None:
    def fit(model: Witness, checkpoint: Path | None = None) -> list:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        saving = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1, filename="{step}", save_top_k=-1)
        trainer = Trainer(accelerator="cpu", max_epochs=3, limit_train_batches=limit, callbacks=[saving], **quiet)
        trainer.fit(model, datamodule=Toy(batch_size=7), ckpt_path=checkpoint)
        return model.seen

    whole = fit(Witness())
    assert len(whole) == 3 * (10 if limit == 1.0 else 7)
    with pytest.raises(RuntimeError, match="killed"):
        fit(Witness(stop=13))
    for step in (4, 7, 10, 12):  # in the first epoch, at the end of it (of 7 or 10 batches), in the second
        assert fit(Witness(), tmp_path / f"step={step}.ckpt") == whole[step:]


# Photographs ------------------------------------------------------------------------------------------------------

RAW = {11: ["A dog .", "Two Dogs run!"], 13: ["A red hill"], 17: ["The hill"], 19: ["A dog", "Birds"], 23: ["One bird"]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in RAW:
        Image.fromarray(rng.integers(0, 256, (29, 37, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{i}.png")
    return tmp_path


def karpathy(splits: dict[int, str] | None = None) -> dict:
    sentences = {i: [{"raw": c, "tokens": _plain(c)} for c in captions] for i, captions in RAW.items()}
    images = [
        {"filename": f"{i}.png", "imgid": n, "split": (splits or {}).get(i, "train"), "sentences": sentences[i]}
        for n, i in enumerate(RAW)
    ]
    return {"dataset": "toy", "images": images}


def coco(ids: Sequence[int] = tuple(RAW)) -> dict:
    return {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in ids],
        "annotations": [{"id": n, "image_id": i, "caption": c} for n, i in enumerate(ids) for c in RAW[i]],
    }


def _plain(caption: str) -> list[str]:
    return caption.lower().replace(".", "").replace("!", "").split()


def write(root: Path, content: object, name: str = "captions.json") -> str:
    (root / name).write_text(json.dumps(content))
    return name


def test_both_layouts_give_the_same_examples(root: Path) -> None:
    options = {"val_fraction": 0.2, "min_count": 1, "image_size": (13, 17)}
    left = Photographs(root, write(root, karpathy(), "k.json"), **options)
    right = Photographs(root, write(root, coco(), "c.json"), **options)
    for split, count in (("train", 4), ("val", 1), ("test", 0)):
        assert left.examples(split) == right.examples(split)
        assert len(left.examples(split)) == count
    assert left.vocabulary == right.vocabulary
    assert left.examples("train")[0].captions[-1] == _plain(RAW[int(left.examples("train")[0].id)][-1])
    assert not {e.id for e in left.examples("train")} & {e.id for e in left.examples("val")}
    left.setup("fit")
    batch = next(iter(left.train_dataloader()))
    assert batch.images.shape[1:] == (3, 13, 17)
    _, geometry = left.load(left.examples("train")[0])
    assert geometry.original == (29, 37)


def test_held_out_images_depend_on_seed_and_ids(root: Path) -> None:
    def held(content: dict, seed: int) -> set[str]:
        data = Photographs(root, write(root, content), val_fraction=0.4, seed=seed)
        return {e.id for e in data.examples("val")}

    assert held(coco(), 0) == held(coco(tuple(reversed(RAW))), 0)
    assert len({frozenset(held(coco(), seed)) for seed in range(7)}) > 1
    with pytest.raises(InputError, match="has no val split"):
        Photographs(root, write(root, coco()), val_fraction=0).val_dataloader()


def test_splits_of_the_file(root: Path) -> None:
    name = write(root, karpathy({13: "restval", 17: "val", 19: "test"}))

    def ids(**options: object) -> dict[str, list[str]]:
        data = Photographs(root, name, **options)
        return {s: [e.id for e in data.examples(s)] for s in ("train", "val", "test")}

    assert ids() == {"train": ["11", "23", "13"], "val": ["17"], "test": ["19"]}
    assert ids(restval=False)["train"] == ["11", "23"]
    assert ids(limit=1) == {"train": ["11"], "val": ["17"], "test": ["19"]}


def test_a_second_file_validates(root: Path) -> None:
    train, val = write(root, coco((11, 13, 17)), "train.json"), write(root, coco((19, 23)), "val.json")
    data = Photographs(root, train, val_annotations=val)
    assert [e.id for e in data.examples("train")] == ["11", "13", "17"]
    assert [e.id for e in data.examples("val")] == ["19", "23"]
    with pytest.raises(InputError, match=r"has 3 training images of .*, such as 11"):
        Photographs(root, train, val_annotations=train).examples("val")


def test_folders_and_ids_of_karpathys_coco(root: Path) -> None:
    content = karpathy()
    (root / "images" / "val2014").mkdir()
    (root / "images" / "11.png").rename(root / "images" / "val2014" / "11.png")
    content["images"][0] |= {"filepath": "val2014", "cocoid": 391895}
    data = Photographs(root, write(root, content), val_fraction=0)
    data.setup()
    assert data.examples("train")[0].id == "391895"
    assert data.examples("train")[0].path == root / "images" / "val2014" / "11.png"


def test_tokens_are_taken_as_given(root: Path) -> None:
    content = karpathy()
    content["images"][0]["sentences"] = [
        {"tokens": ["Cafe\u0301", "", " ", "U.S.", None], "raw": "ignored"},
        {"raw": "No tokens, here."},
        {"tokens": [], "raw": "empty"},
        {"raw": None},
    ]
    first = read_annotations(root / write(root, content), max_left_out=0.5)[0]
    assert first.captions == [["Café", "U.S."], ["no", "tokens", "here"]]


def test_images_without_captions_are_dropped_and_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = coco()
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 13]
    content["annotations"] += [{"image_id": 17, "caption": " . "}, {"image_id": 999, "caption": "of another part"}]
    with caplog.at_level(logging.WARNING):
        annotations = read_annotations(root / write(root, content), max_left_out=0.25)
    assert [a.id for a in annotations] == ["11", "17", "19", "23"]
    stray, empty, bare = (record.getMessage() for record in caplog.records)
    assert "1 of 8 captions are left out because they belong to no image" in stray
    assert "999" in stray
    assert "1 of 8 captions are left out because they have no words, such as ' . ' of image 17" in empty
    assert "1 images are left out because they have no captions, such as 13 (13.png)" in bare
    with pytest.raises(InputError, match=r"2 of 8 captions .*24%.*max_left_out"):
        read_annotations(root / "captions.json", max_left_out=0.24)


def _broken(change: Callable[[dict], object], layout: Callable[[], dict] = karpathy) -> dict:
    content = layout()
    change(content)
    return content


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([], r"captions\.json is neither a Karpathy file .* nor a COCO"),
        ({"images": []}, r"captions\.json is neither"),
        ({"images": [], "annotations": []}, r"captions\.json has no training images"),
        (karpathy(dict.fromkeys(RAW, "val")), r"captions\.json has no training images"),
        (_broken(lambda c: c["images"].append(c["images"][2])), r"has 1 duplicate image ids, such as 17"),
        (
            _broken(lambda c: c["images"][1].pop("sentences")),
            "karpathy layout of captions: the key 'sentences' is missing",
        ),
        (_broken(lambda c: c["images"].append(7)), "not in the karpathy layout"),
        (_broken(lambda c: c["images"][0].pop("file_name"), coco), "coco layout .* the key 'file_name' is missing"),
    ],
)
def test_a_bad_annotation_file(root: Path, content: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Photographs(root, write(root, content)).vocabulary  # noqa: B018


def test_bad_files_and_options(root: Path) -> None:
    name = write(root, coco())
    with pytest.raises(InputError, match=r"nowhere: no such folder; set root"):
        Photographs(root / "nowhere", name).examples("train")
    with pytest.raises(InputError, match=r"gone\.json: no such annotation file"):
        Photographs(root, "gone.json").examples("train")
    with pytest.raises(InputError, match=r"11\.png cannot be read as JSON"):
        Photographs(root, "images/11.png").examples("train")
    with pytest.raises(InputError, match=r"pictures: no such folder; set images"):
        Photographs(root, name, images="pictures").setup()
    for option, value in {"image_size": 0, "val_fraction": 1.0, "limit": 0}.items():
        with pytest.raises(InputError, match=f"{option} is {value}"):
            Photographs(root, name, **{option: value})


def test_missing_pictures_are_named_before_training(root: Path) -> None:
    data = Photographs(root, write(root, coco()), min_count=1)
    for i in (13, 19):
        (root / "images" / f"{i}.png").unlink()
    with pytest.raises(InputError, match=r"2 of 5 .*images: (13|19)\.png, (13|19)\.png"):
        data.setup("fit")
    data.features = {}  # with features, image files are not needed
    data.setup("fit")


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a/../../x.png", "..\\x.png", "a\0.png", ""])
def test_a_picture_outside_of_the_folder_is_refused(root: Path, name: str) -> None:
    for content in (karpathy(), coco()):
        content["images"][1]["filename" if "sentences" in content["images"][1] else "file_name"] = name
        with pytest.raises(InputError, match="outside the image folder"):
            read_annotations(root / write(root, content))


def test_left_and_right_are_found_in_any_tokens(root: Path) -> None:
    content = coco()
    sides = {11: "A dog on the left.", 13: "左の犬", 17: "A leftover dog.", 19: "The RIGHT one"}
    content["annotations"] = [{"image_id": i, "caption": text} for i, text in sides.items()]
    for tokens in ("words", "characters"):
        options = {"tokens": tokens, "min_count": 1, "val_fraction": 0, "mirror": True}
        data = Photographs(root, write(root, content), **options)
        assert data.train_dataloader().dataset.captions.sided.tolist() == [True, True, False, True], tokens


@pytest.mark.parametrize("split", ["Train", ["train"], 7])
def test_an_unknown_split(root: Path, split: object) -> None:
    with pytest.raises(InputError, match="known splits are train, restval, val, test"):
        read_annotations(root / write(root, karpathy({13: split})))


def test_invisible_and_special_tokens(root: Path) -> None:
    content = karpathy()
    tokens = ["<end>", "a\tb\n", "dog\x00\x1b[31m", "\u202eevil", "\ud800", "<pad>", "हिन्दी"]
    content["images"][0]["sentences"] = [{"tokens": tokens}]
    data = Photographs(root, write(root, content), val_fraction=0, min_count=1)
    first = data.examples("train")[0]
    assert first.captions == [["<end>", "a", "b", "dog[31m", "evil", "<pad>", "हिन्दी"]]
    assert data.vocabulary[:4] == list(SPECIALS)
    assert not set(data.vocabulary[4:]) & set(SPECIALS)
    ids = Vocabulary(data.vocabulary).encode(first.captions[0])
    assert (ids[1], ids[6], ids[-1]) == (UNKNOWN, UNKNOWN, END)
    assert ids.count(END) == 1


class Many:
    """200 images with two captions each; some images are damaged."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "images").mkdir(exist_ok=True)
        rng = np.random.default_rng(3)
        images = []
        for i in range(200):
            name = f"{i:03d}.png"
            Image.fromarray(rng.integers(0, 256, (13, 11, 3), dtype=np.uint8)).save(root / "images" / name)
            split = "train" if i < 160 else "val" if i < 180 else "test"
            sentences = [{"raw": f"a dog runs {'very ' * (i % 5)}fast"}, {"raw": f"word{i} here"}]
            images.append({"filename": name, "split": split, "sentences": sentences})
        self.name = write(root, {"images": images})

    def spoil(self, *numbers: int) -> None:
        for i in numbers:
            (self.root / "images" / f"{i:03d}.png").write_bytes(b"<html>not found</html>")

    def data(self, **options: object) -> Photographs:
        options = {"image_size": 7, "batch_size": 13, "min_count": 1} | options
        return Photographs(self.root, self.name, **options)


@pytest.fixture
def many(tmp_path: Path) -> Many:
    return Many(tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_stops_the_training_by_default(many: Many, workers: int) -> None:
    many.spoil(31)
    data = many.data(workers=workers)
    data.setup("fit")
    with pytest.raises(InputError, match=r"031\.png cannot be read as an image"):
        epoch(data)


def test_bad_images_are_skipped_counted_and_named(many: Many, caplog: pytest.LogCaptureFixture) -> None:
    before = many.data()
    before.setup("fit")
    many.spoil(31)
    (many.root / "images" / "165.png").unlink()
    data = many.data(on_bad_image="skip", workers=2)
    with caplog.at_level(logging.WARNING):
        data.setup("fit")
        data.setup("validate")  # looked through once
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(messages) == 3
    assert "031.png cannot be read" in messages[0]
    assert "165.png: no such image" in messages[1]
    assert messages[2].endswith("captions.json: 2 of 200 images are left out")
    seen = Counter(pair for batch in epoch(data) for pair in pairs(data, batch))
    assert seen == Counter((e.id, tuple(c)) for e in before.examples("train") if e.id != "031" for c in e.captions)
    assert [i for batch in data.val_dataloader() for i in batch.ids] == [f"{i}" for i in range(160, 180) if i != 165]
    assert "165" not in data.references("val")
    assert "word31" in data.vocabulary  # word ids do not depend on images
    assert data.vocabulary == before.vocabulary
    again = many.data(on_bad_image="skip")
    again.setup("fit")
    assert same(epoch(data, 3), epoch(again, 3))


def test_more_than_one_percent_of_bad_images_is_an_error(many: Many) -> None:
    many.spoil(31, 32, 170)
    with pytest.raises(InputError, match=r"3 of 200 images .*1.0%.*031 \(.*031\.png"):
        many.data(on_bad_image="skip").setup("fit")


def test_images_that_cannot_be_fitted_are_bad_images(many: Many) -> None:
    Image.new("RGB", (90, 1)).save(many.root / "images" / "031.png")
    data = many.data(fit="pad")
    data.setup("fit")
    with pytest.raises(InputError, match=r"031\.png: .*90×1 .*7×7"):
        epoch(data)
    data = many.data(fit="pad", on_bad_image="skip")
    data.setup("fit")
    assert "031" not in data.references("train")


class TwoProcesses:
    """The trainer of process 0 of 2, whose other process has found `theirs`."""

    global_rank, world_size = 0, 2

    def __init__(self, theirs: dict[str, str]) -> None:
        self.strategy, self.theirs = self, theirs

    def broadcast(self, own: dict[str, str], src: int) -> dict[str, str]:
        return self.theirs if src else own


def test_processes_leave_out_the_same_images(many: Many) -> None:
    many.spoil(30, 31)
    data = many.data(on_bad_image="skip")
    data.trainer = TwoProcesses({"031": "031.png cannot be read"})
    data.setup("fit")
    assert not {"030", "031"} & data.references("train").keys()
    data = many.data(on_bad_image="skip")
    data.trainer = TwoProcesses({"031": "rotten", "033": "rotten"})
    with pytest.raises(InputError, match="3 of 200"):
        data.setup("fit")
