"""Shards in img2dataset's format: every sample is seen once, for any number of processes and workers."""

import itertools
import json
import logging
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, FAST
from support.shards import SIZES, jpeg, write, write_shard

from visattn.cli import main
from visattn.data import CaptionBatch, Shards
from visattn.data.loading import BatchName
from visattn.data.streams import Segment, segments
from visattn.errors import InputError
from visattn.vocabulary import SPECIALS, Vocabulary

TRAIN = sum(SIZES)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "shards")


def shards(root: Path, **options: object) -> Shards:
    options = {"image_size": 7, "batch_size": 4, "eval_batch_size": 3, "min_count": 1, "shuffle": 11} | options
    return Shards(root, "train/*.tar", "val/{00000..00001}.tar", **options)


def epoch(data: Shards, number: int = 0) -> list[CaptionBatch]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    batches = list(loader)
    assert len(batches) == len(loader)
    return batches


def ids(batches: list[CaptionBatch]) -> list[str]:
    return [name for batch in batches for name in batch.ids]


def everything() -> list[str]:
    return [f"t{shard:05d}{i:04d}" for shard, size in enumerate(SIZES) for i in range(size)]


def same(left: list[CaptionBatch], right: list[CaptionBatch]) -> bool:
    return len(left) == len(right) and all(
        a.ids == b.ids and a.tokens.equal(b.tokens) and a.images.equal(b.images)
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_sample_comes_once_in_an_epoch(root: Path, workers: int) -> None:
    data = shards(root, workers=workers)
    for number in (0, 1):
        assert sorted(ids(epoch(data, number))) == everything()
    assert {len(batch.ids) for batch in epoch(data)} <= {3, 4}
    assert not same(epoch(data, 0), epoch(data, 1))
    assert same(epoch(data, 1), epoch(shards(root, workers=workers), 1))
    assert not same(epoch(data, 0), epoch(shards(root, workers=workers, seed=1), 0))


def test_a_batch_matches_its_shard(root: Path) -> None:
    data = shards(root)
    words = Vocabulary(data.vocabulary)
    for batch in epoch(data):
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (len(batch.ids), 3, 7, 7)
        assert batch.owner.tolist() == list(range(len(batch.ids)))
        for name, tokens in zip(batch.ids, batch.tokens.tolist(), strict=True):
            assert words.decode(tokens) == ["a", "dog", f"number{everything().index(name)}", "runs"]
    both = shards(root, captions="both", batch_size=TRAIN)
    (batch,) = epoch(both)
    assert batch.owner.tolist() == sorted([*range(TRAIN)] * 2)
    assert both.references("train")["t000010002"] == [["a", "dog", "number19", "runs"], ["it", "runs", "fast"]]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_processes_and_their_workers_share_an_epoch(root: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch requested by name, as by the loader of that process and worker."""
    monkeypatch.setattr("visattn.data.streams._workers", lambda: workers)
    for world in (1, 2, 3):
        seen = []
        for rank in range(world):
            for worker in range(workers):
                batches = shards(root).train_dataloader().dataset
                names = [BatchName(5, i, rank, world) for i in range(worker, batches.batches(world), workers)]
                made = [batches[name].batch for name in names]
                assert all(batch.ids for batch in made)
                seen += ids(made)
        assert sorted(seen) == everything(), world


def test_a_shard_is_read_from_beginning_to_end_and_shuffled(root: Path) -> None:
    order = ids(epoch(shards(root, shuffle=1)))
    runs = [name[1:6] for i, name in enumerate(order) if i == 0 or name[1:6] != order[i - 1][1:6]]
    assert len(runs) == len(SIZES)  # one shard after the other …
    assert runs != sorted(runs)  # … in another order
    mixed = ids(epoch(shards(root, shuffle=29)))
    assert sum(a[:6] != b[:6] for a, b in pairwise(mixed)) > 2 * len(SIZES)


def test_an_epoch_of_a_fixed_size_goes_on_where_the_last_one_stopped(root: Path) -> None:
    data = shards(root, epoch_size=26)
    parts = [ids(epoch(data, number)) for number in range(5)]
    assert [len(part) for part in parts] == [26] * 5
    assert sorted(itertools.chain.from_iterable(parts)) == sorted(everything() * 2)  # 5 × 26 = 2 × 65
    assert max(Counter(parts[0] + parts[1]).values()) == 1


def test_segments_shuffle_each_pass_differently() -> None:
    assert segments([2, 3], 0, 5, None) == [Segment(0, 0, 2), Segment(1, 0, 3)]
    assert segments([2, 3], 4, 8, None) == [Segment(1, 2, 3), Segment(0, 0, 2), Segment(1, 0, 1)]
    orders = {tuple(part.shard for part in segments([1] * 7, 7 * i, 7 * i + 7, 3)) for i in range(5)}
    assert len(orders) == 5
    assert all(sorted(order) == list(range(7)) for order in orders)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumed_within_an_epoch_sees_the_rest(root: Path, workers: int) -> None:
    whole = epoch(shards(root, workers=workers), 3)
    for seen in (1, 2, 7):
        loader = shards(root, workers=workers).train_dataloader()
        loader.sampler.set_epoch(3)
        stream = iter(loader)
        for _ in range(seen):
            next(stream)
        state = loader.state_dict()
        again = shards(root, workers=workers).train_dataloader()
        again.load_state_dict(state)
        again.sampler.set_epoch(3)
        rest = list(again)
        assert same(rest, whole[seen:])


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_shows_every_image_once(root: Path, workers: int) -> None:
    data = shards(root, workers=workers)
    batches = list(data.val_dataloader())
    want = [f"v{shard:05d}{i:04d}" for shard, size in enumerate((4, 3)) for i in range(size)]
    assert sorted(ids(batches)) == want
    assert list(data.references("val")) == want
    if not workers:
        assert ids(batches) == want
        assert same(batches, list(data.predict_dataloader()))
    with pytest.raises(InputError, match="no shards are given for the test split"):
        data.test_dataloader()


def test_the_vocabulary_is_counted_or_read(root: Path) -> None:
    data = shards(root, min_count=2)
    assert data.vocabulary == [*SPECIALS, "a", "dog", "runs"]
    assert shards(root, workers=2, min_count=2).vocabulary == data.vocabulary
    assert f"number{TRAIN}" not in shards(root).vocabulary  # of the validation split
    (root / "words.json").write_text('["dog", "cat"]')
    assert shards(root, vocabulary_file="words.json").output_names == [*SPECIALS, "dog", "cat"]


BAD = {
    "t000020003": {"jpg": b"<html>", "png": None},
    "t000000001": {"jpg": None, "png": None},
    "t000000002": {"txt": b" . "},
    "t000030000": {"txt": None},
    "t000030001": {"txt": b"\xff\xfe"},
}


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_named_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int) -> None:
    root = write(tmp_path, BAD)
    with caplog.at_level(logging.WARNING):
        batches = epoch(shards(root, max_bad=0.1, max_left_out=0.1, workers=workers))
    assert sorted(ids(batches)) == sorted(set(everything()) - BAD.keys())
    told = [record.getMessage() for record in caplog.records]
    assert sum("left out: " in line for line in told) == len(BAD)
    assert all(any(f"sample {key}" in line for line in told) for key in BAD)
    assert told[-1].endswith(f"5 of {TRAIN} images were left out")
    with pytest.raises(InputError, match=rf"of {TRAIN} images .*1.0%"):
        epoch(shards(root, workers=workers))
    with pytest.raises(InputError, match=rf"5 of {TRAIN} images .*7.0%"):
        epoch(shards(root, max_bad=0.07, workers=workers))


def test_a_batch_of_which_nothing_can_be_used_is_passed_over(tmp_path: Path) -> None:
    data = shards(write(tmp_path, BAD), max_bad=0.1, batch_size=1)
    assert sorted(ids(list(data.train_dataloader()))) == sorted(set(everything()) - BAD.keys())


def test_unreadable_captions_are_reported_before_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    latin = {f"t00000{i:04d}": {"txt": "Un chien court à côté".encode("latin-1")} for i in range(4)}
    root = write(tmp_path, latin)
    with pytest.raises(InputError, match=r"4 of 65 captions .*5%.*UTF-8.*t000000000"):
        shards(root).setup("fit")
    shards(root, max_left_out=0.07).setup("fit")
    assert any("4 of 65 captions are left out" in message for message in caplog.messages)
    with pytest.raises(InputError, match=r"words .*unknown .*min_count"):
        shards(root, max_left_out=0.07, min_count=64).setup("fit")
    dotted = {}
    for n in range(5):
        dotted[f"x{n}.input"], dotted[f"x{n}.outputs"] = {"jpg": jpeg(n)}, {"txt": b"A dog."}
    write_shard(tmp_path / "train" / "00000.tar", dotted)
    with pytest.raises(InputError, match=r"'x0\.outputs\.txt' .*'x0' .*'\.outputs\.txt'"):
        Shards(root, "train/00000.tar", "val/*.tar").vocabulary  # noqa: B018


def test_a_damaged_shard_is_named(root: Path) -> None:
    path = root / "train" / "00002.tar"
    content = path.read_bytes()
    cut = [content[:length] for length in range(512, len(content) // 2, 1536)]
    for broken in (*cut, b"<html>" * 100, b""):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"00002\.tar cannot be read as a shard"):
            shards(root).vocabulary  # noqa: B018
    path.write_bytes(content)
    loader = shards(root).train_dataloader()
    path.write_bytes((root / "train" / "00001.tar").read_bytes())
    with pytest.raises(InputError, match=r"00002\.tar .*3 samples.* 29 "):
        list(loader)


def test_bad_options(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for option, value in {"epoch_size": 0, "shuffle": 0, "max_length": 0, "image_size": 0, "max_bad": 1.0}.items():
        with pytest.raises(InputError, match=f"{option} is {value}"):
            shards(root, **{option: value})
    with pytest.raises(InputError, match=r"caption in 'alt'.*option captions"):
        shards(root, captions="alt").vocabulary  # noqa: B018
    with pytest.raises(InputError, match=r"gone.*no such shard \(option train\)"):
        Shards(root, "gone/*.tar", "val/*.tar").vocabulary  # noqa: B018
    with pytest.raises(InputError, match=r"00005\.tar: no such shard"):
        Shards(root, "train/{00000..00005}.tar", "val/*.tar").vocabulary  # noqa: B018
    monkeypatch.setitem(__import__("sys").modules, "webdataset", None)
    with pytest.raises(InputError, match=r"pip install 'visattn\[webdataset\]'"):
        shards(root)


def test_a_name_that_would_start_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(tmp_path))
    (tmp_path / "train" / "00001.tar").rename("pipe:touch started;.tar")
    data = Shards(Path(), "pipe*.tar", "val/*.tar", min_count=1, image_size=7)
    assert len(ids(list(data.train_dataloader()))) == SIZES[1]
    assert not Path("started").exists()


def test_a_captioner_is_trained_on_shards(root: Path, tmp_path: Path) -> None:
    options = [
        f"--data.root={root}",
        "--data.train=train/*.tar",
        "--data.val=val/*.tar",
        "--data.image_size=64",
        "--data.batch_size=5",
        "--data.min_count=1",
        "--data.workers=2",
    ]
    words = ["--config", str(CONFIGS / "shapes_captioner.yaml"), "--data", "visattn.data.Shards", *options, *FAST]
    words += ["--checkpoint.monitor=val/CIDEr-D"]  # shards do not say what is in their images
    assert main(["fit", *words, "--output", str(tmp_path / "run")]) == 0
    best = ["--ckpt_path", str(tmp_path / "run" / "best.ckpt"), "--trainer.limit_predict_batches=1.0"]
    assert main(["predict", *words, *best, "--output", str(tmp_path / "told")]) == 0
    told = json.loads((tmp_path / "told" / "predictions.json").read_text())
    assert sorted(entry["image_id"] for entry in told) == sorted(shards(root).references("val"))


def test_the_training_captions_are_read_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their truth is not needed, so nothing looks whether the shards say what is in their images."""
    read: list[str] = []
    monkeypatch.setattr(
        Shards, "samples", lambda self, shard, own=Shards.samples: (read.append(shard), own(self, shard))[1]
    )
    words = ["--config", str(CONFIGS / "shapes_captioner.yaml"), "--data", "visattn.data.Shards", *FAST]
    words += [f"--data.root={root}", "--data.train=train/*.tar", "--data.val=val/*.tar", "--data.image_size=64"]
    words += ["--data.batch_size=5", "--data.min_count=1", "--checkpoint.monitor=val/CIDEr-D", "--data.workers=0"]
    assert main(["fit", *words, "--output", str(tmp_path / "run")]) == 0
    training = [Path(shard).name for shard in read if Path(shard).parent.name == "train"]
    assert sorted(training) == sorted(set(training))


def piped(root: Path, train: str = "pipe:cat {root}/train/{{00000..00004}}.tar", **options: object) -> Shards:
    options = {"image_size": 7, "batch_size": 4, "eval_batch_size": 3, "min_count": 1, "shuffle": 11} | options
    return Shards(root, train.format(root=root), f"pipe:cat {root}/val/{{00000..00001}}.tar", **options)


def test_commands_that_write_shards_are_read_as_files_are(root: Path) -> None:
    """webdataset's pipes, as for object storage; a range is split over three workers of two processes, too."""
    from_files, from_pipes = shards(root), piped(root)
    assert from_pipes.vocabulary == from_files.vocabulary
    assert from_pipes.references("val") == from_files.references("val")
    for ours, theirs in zip(epoch(from_pipes, 1), epoch(from_files, 1), strict=True):
        assert ours.ids == theirs.ids
        assert ours.images.equal(theirs.images)
        assert ours.tokens.equal(theirs.tokens)
    assert ids(list(from_pipes.val_dataloader())) == ids(list(from_files.val_dataloader()))


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ("pipe:cat {root}/nowhere.tar", "command of the shard pipe:cat .*nowhere.tar failed with status 1"),
        ("pipe:head -c 9000 {root}/train/00000.tar", "cannot be read as a shard .* truncated"),
        ("pipe:cat {root}/train/00000.tar; exit 3", "failed with status 3"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_command_that_fails_is_named(root: Path, train: str, said: str, capfd) -> None:
    with pytest.raises(InputError, match=said):
        piped(root, train).train_dataloader()


def test_a_file_that_is_called_like_a_command_is_a_file(root: Path, tmp_path: Path) -> None:
    (root / "train" / "00000.tar").rename(root / "pipe:touch run.tar")
    data = Shards(root, "*.tar", "val/*.tar", image_size=7, min_count=1)
    assert len(data.vocabulary) > len(SPECIALS)
    assert not Path("run.tar").exists()
