"""Captions and words that do not reach the model are counted and reported; tokens other than words."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CONFIGS, FAST
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image

from visattn.cli import check_data, export, main
from visattn.data import Photographs
from visattn.data.annotations import read_annotations
from visattn.data.losses import LeftOut, WordCounts, report_words, word_losses
from visattn.data.tars import captions_of, picture_of
from visattn.errors import InputError
from visattn.export import load_captioner
from visattn.files import names_apart
from visattn.studies.scores import evaluate
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import load_model
from visattn.vocabulary import SPECIALS, Characters, Subwords, Vocabulary, Words, read_tokens, tokens_of

JAPANESE = ("二匹の犬が公園で走っている", "白い猫が公園で眠っている", "女性が公園で遊んでいる。")
THAI = ("สุนัขสองตัวกำลังวิ่งเล่นในสวน", "แมวสีขาวกำลังนอนหลับอยู่บนโซฟา", "ผู้หญิงคนหนึ่งกำลังเดินเล่น")


def write(root: Path, captions: list[object], ids: list[object] | None = None, images: int = 17) -> Path:
    (root / "images").mkdir(exist_ok=True)
    for n in range(images):
        pixels = np.random.default_rng(n).integers(0, 256, (29, 37, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{n}.png")
    ids = [n % images for n in range(len(captions))] if ids is None else ids
    content = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(images)],
        "annotations": [{"image_id": i, "caption": caption} for i, caption in zip(ids, captions, strict=True)],
    }
    (root / "captions.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("kind", [str, float, lambda n: n if n % 2 else str(n)])
def test_ids_are_compared_as_text(tmp_path: Path, kind) -> None:
    write(tmp_path, ["a dog"] * 34, [kind(n % 17) for n in range(34)])
    found = read_annotations(tmp_path / "captions.json")
    assert [(a.id, len(a.captions)) for a in found] == [(str(n), 2) for n in range(17)]


@pytest.mark.parametrize("other", ["0000{}", "COCO_val2014_{}", "{}.png"])
def test_captions_of_no_image_are_an_error_that_shows_both(tmp_path: Path, other: str) -> None:
    write(tmp_path, ["a dog"] * 34, [other.format(n % 17) if n < 2 else n % 17 for n in range(34)])
    with pytest.raises(InputError) as error:
        read_annotations(tmp_path / "captions.json")
    for part in ("2 of 34 captions", other.format(0), "'0'", "max_left_out"):
        assert part in str(error.value)
    assert sum(len(a.captions) for a in read_annotations(tmp_path / "captions.json", max_left_out=0.06)) == 32


@pytest.mark.parametrize("value", [None, True, 1.5, [1]])
def test_an_invalid_id(tmp_path: Path, value: object) -> None:
    write(tmp_path, ["a dog"], [value])
    with pytest.raises(InputError, match="neither an integer nor text"):
        read_annotations(tmp_path / "captions.json")


def karpathy(*sentences: object, files: tuple[str, ...] = ("1.jpg",)) -> dict:
    return {"images": [{"filename": f, "split": "train", "sentences": list(sentences)} for f in files]}


def test_sentences_may_be_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    path.write_text(json.dumps(karpathy("A dog runs.", {"raw": "Two dogs."}, {"tokens": "the dog"})))
    assert read_annotations(path)[0].captions == [["a", "dog", "runs"], ["two", "dogs"], ["the", "dog"]]
    content = karpathy()
    content["images"][0]["sentences"] = "A dog runs."
    path.write_text(json.dumps(content))
    assert read_annotations(path)[0].captions == [["a", "dog", "runs"]]
    path.write_text(json.dumps(karpathy("A dog.", None, 7, {"caption": "A cat."})))
    with pytest.raises(InputError, match=r"3 .*not text.*'None' of image 1, '7' of image 1"):
        read_annotations(path)


def test_pictures_of_one_name_keep_apart(tmp_path: Path) -> None:
    path, files = tmp_path / "k.json", ("cat/1.jpg", "dog/1.jpg", "dog/2.jpg", "3.png", "3.jpg")
    path.write_text(json.dumps(karpathy("A dog.", files=files)))
    names = ["cat/1", "dog/1", "2", "3.png", "3.jpg"]
    assert [a.id for a in read_annotations(path)] == names == names_apart(files)
    (tmp_path / "said.json").write_text(json.dumps([{"image_id": name, "caption": "a dog"} for name in names]))
    assert evaluate(path, tmp_path / "said.json", split="train")["counts"]["images"] == 5
    assert names_apart(["a/b.png", "a/b.png", "c.png"]) == ["b", "b", "c"]  # the same is the same


def test_words_that_are_lost() -> None:
    counts = WordCounts().add([["a", "dog", "runs"], ["a", "cat", *"uvwxyz"]], max_length=5)
    assert (counts.captions, counts.long, counts.cut) == (2, 1, 3)
    vocabulary = Vocabulary([*SPECIALS, "a", "dog", "runs"])
    unknown, cut = word_losses(counts, vocabulary, "training", 5, 3)
    assert "7 of 11 words of the training captions are unknown to the model (63.6%): 7 distinct" in unknown.sentence
    assert "3 of 11 words of the training captions are cut off" in cut.sentence
    assert cut.least == pytest.approx(3 / 8 / 2)
    assert unknown.least < 7 / 11
    with pytest.raises(InputError, match=r"7 of 11 words.*min_count.*max_unknown"):
        report_words([unknown], "data", 0.2)
    report_words([unknown, cut], "data", 0.5)


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_processes_the_first_tells_what_is_left_out(rank, tmp_path, monkeypatch, caplog) -> None:
    root = write(tmp_path, ["a dog runs"] * 99 + [" . "])
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    with caplog.at_level(logging.WARNING, "visattn.data.losses"):  # and as it was afterwards
        assert main(["fit", "--config", "shapes_vit", "--data.batch_size=0", f"--output={tmp_path / 'run'}"]) == 2
        read_annotations(root / "captions.json")
    assert ("1 of 100 captions" in caplog.text) is (rank == 0)


def test_what_is_left_out_is_counted_by_reason(caplog: pytest.LogCaptureFixture) -> None:
    lost = LeftOut(100)
    for n in range(7):
        lost.add("have no words", f"caption {n}")
    lost.add_image("have no captions", "9")
    with pytest.raises(InputError, match=r"7 of 100 captions .*5%"):
        lost.report("data")
    assert [record.getMessage() for record in caplog.records] == [
        "data: 7 of 100 captions are left out because they have no words, such as caption 0, caption 1, caption 2",
        "data: 1 images are left out because they have no captions, such as 9",
    ]
    lost.report("data", 0.07)


@pytest.mark.parametrize("script", [JAPANESE, THAI])
@pytest.mark.parametrize("min_count", [1, 5])
def test_a_script_without_spaces_is_reported(tmp_path: Path, script: tuple[str, ...], min_count: int) -> None:
    write(tmp_path, [script[n % 3] for n in range(51)])
    with pytest.raises(InputError, match=r"--data\.tokens characters"):
        Photographs(tmp_path, "captions.json", min_count=min_count).setup("fit")
    check = ["--root", str(tmp_path), "--annotations", "captions.json", "--workers", "0", "--min-count", str(min_count)]
    assert check_data.main(check) == 1
    with pytest.raises(InputError, match=r"cut off.*--data.max_length"):
        Photographs(tmp_path, "captions.json", tokens="characters", max_length=7).setup("fit")
    Photographs(tmp_path, "captions.json", tokens="characters", max_length=40).setup("fit")


def test_too_few_words_to_judge_are_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, [f"a dog number{n} runs" for n in range(17)])
    with caplog.at_level(logging.INFO, logger="visattn"):
        Photographs(tmp_path, "captions.json", min_count=1, val_fraction=0.3).setup("fit")
    assert any("of the validation captions are unknown" in message for message in caplog.messages)


def test_characters() -> None:
    tokens = Characters()
    assert tokens.split(JAPANESE[2]) == list(JAPANESE[2])
    assert tokens.split("  A \u200b dog\n") == ["A", " ", "d", "o", "g"]
    assert tokens.split("e\u0301") == ["é"]
    assert tokens.split("วิ่ง") == ["วิ่", "ง"]  # vowel and tone belong to their letter
    assert tokens.given(None, ["二匹", "の", "a", "dog"]) == list("二匹の a dog")
    assert [tokens.label(token) for token in "犬 "] == ["犬", "␣"]
    for text in (*JAPANESE, *THAI, "a dog runs"):
        vocabulary = Vocabulary.build([tokens.split(text)], tokens="characters")
        assert vocabulary.join(vocabulary.decode(vocabulary.encode(tokens.split(text)))) == text


def tokenizer(kind: str) -> str:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    made, before, after, trainer = {
        "bytes": (
            models.BPE(),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            decoders.ByteLevel(),
            trainers.BpeTrainer(vocab_size=307, show_progress=False),
        ),
        "pieces": (
            models.WordPiece(unk_token="[UNK]"),
            pre_tokenizers.BertPreTokenizer(),
            decoders.WordPiece(),
            trainers.WordPieceTrainer(vocab_size=61, show_progress=False, special_tokens=["[UNK]"]),
        ),
        "unigram": (
            models.Unigram(),
            pre_tokenizers.Metaspace(),
            decoders.Metaspace(),
            trainers.UnigramTrainer(vocab_size=67, show_progress=False, unk_token="<unk>", special_tokens=["<unk>"]),
        ),
    }[kind]
    found = tokenizers.Tokenizer(made)
    found.pre_tokenizer, found.decoder = before, after
    found.train_from_iterator([*JAPANESE, "a dog runs"] * 11, trainer)
    return found.to_str()


@pytest.mark.parametrize("kind", ["bytes", "pieces", "unigram"])
def test_a_tokenizers_file(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("tokenizers")
    spec = tokenizer(kind)
    (tmp_path / "tokenizer.json").write_text(spec)
    tokens = read_tokens("tokenizer.json", tmp_path)
    assert tokens.spec == spec == tokens_of(spec).spec
    split = tokens.split("a dog runs")
    vocabulary = Vocabulary.build([split], tokens=tokens.spec)
    assert vocabulary.join(vocabulary.decode(vocabulary.encode(split))) == "a dog runs"
    assert SPECIALS[3] in tokens.split("a dog ☃ζ")  # what it does not know is told
    assert read_tokens(str(tmp_path / "tokenizer.json")).name == tokens.name
    assert all(label.strip() for label in map(tokens.label, split))


def test_invalid_tokens(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "x.json").write_text('{"a": 1}')
    for name, sentence in {
        "x.json": r"x\.json: not a tokenizer",
        "gone": "'gone' is not a file",
        "": "not a file",
    }.items():
        with pytest.raises(InputError, match=sentence):
            Photographs(tmp_path, "captions.json", tokens=name)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"pip install 'visattn\[tokenizers\]'"):
        Subwords('{"never": "seen"}')


def test_captions_of_a_sample() -> None:
    def said(where: str = "txt", **files: bytes) -> tuple[list, str]:
        found = captions_of({"__key__": "a/x", "__url__": "s.tar", **files}, where, Words())
        return found.captions, "; ".join(found.lost)

    assert said(txt="\ufeffA café.".encode()) == ([["a", "café"]], "")
    assert said(txt="A café.".encode("latin-1"))[1].startswith("has a .txt that is not UTF-8")
    assert "'x.outputs.txt'" in said(**{"input.jpg": b"", "outputs.txt": b"A dog."})[1]
    assert said(jpg=b"", caption=b"A dog.")[1] == "has no .txt; it has .jpg, .caption"
    assert (
        said("caption", json=b'{"text": "A dog.", "key": 7}')[1] == "has no 'caption' in its .json; that has text, key"
    )
    assert said("caption", json=b"[1")[1] == "has an invalid .json"
    assert said("both", json=b'{"both": ["A dog.", "", 7, " . "]}')[0] == [["a", "dog"]]
    assert len(captions_of({"json": b'{"both": ["A dog.", "", 7]}'}, "both", Words()).lost) == 2
    with pytest.raises(InputError, match=r"without further dots, such as 'x\.jpg'"):
        picture_of({"__key__": "x", "001.jpg": b"", "001.txt": b""}, "it")


def test_scores_of_characters_are_labelled(tmp_path: Path) -> None:
    write(tmp_path, list(JAPANESE), [0, 1, 2], images=3)
    (tmp_path / "said.json").write_text(json.dumps([{"image_id": n, "caption": c} for n, c in enumerate(JAPANESE)]))
    files = tmp_path / "captions.json", tmp_path / "said.json"
    assert any("--tokenizer characters" in note for note in evaluate(*files)["notes"])
    found = evaluate(*files, tokenizer="characters")
    assert "|tok:characters|" in found["signature"]
    assert found["scores"]["BLEU-4"] == pytest.approx(1)
    assert not found["notes"]
    with pytest.raises(InputError, match="there is no file nonsense"):
        evaluate(*files, tokenizer="nonsense")


@pytest.mark.parametrize("kind", ["characters", "bytes"])
def test_a_captioner_of_other_tokens(tmp_path: Path, kind: str) -> None:
    write(tmp_path, [JAPANESE[n % 3] for n in range(51)])
    spec = kind
    if kind == "bytes":
        pytest.importorskip("tokenizers")
        spec = tokenizer(kind)
        (tmp_path / "tokenizer.json").write_text(spec)
    options = [
        *("--config", str(CONFIGS / "shapes_captioner.yaml"), "--data", "visattn.data.Photographs", *FAST),
        f"--data.root={tmp_path}",
        "--data.annotations=captions.json",
        "--data.image_size=64",
        "--data.min_count=1",
        "--checkpoint.monitor=val/CIDEr-D",
    ]
    asked = f"--data.tokens={'tokenizer.json' if kind == 'bytes' else kind}"
    run = ["--output", str(tmp_path / "run")]
    assert main(["fit", *options, asked, *run, "--model.init_args.max_length=3"]) == 0
    best = ["--ckpt_path", str(tmp_path / "run" / "best.ckpt")]
    assert main(["validate", *options, *best, "--output", str(tmp_path / "other")]) == 2  # words
    (tmp_path / "tokenizer.json").unlink(missing_ok=True)  # the checkpoint has it
    model = load_model(tmp_path / "run" / "best.ckpt", Captioner)
    assert model.vocabulary.tokens.spec == spec
    (caption,) = model.caption(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))[0]
    assert caption.text == model.vocabulary.join(caption.words)
    assert " " not in caption.text
    assert len(caption.labels) == len(caption.words)
    assert export.main(["--checkpoint", str(tmp_path / "run" / "best.ckpt"), "--output", str(tmp_path / "kept")]) == 0
    again = load_captioner(tmp_path / "kept")
    assert again.vocabulary.words == model.vocabulary.words
    assert again.vocabulary.tokens.spec == spec
