"""`visattn evaluate` as a user runs it; the captions and official scores are those of the metrics' own test."""

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_metrics_captions import CANDIDATES, METEOR, NAMES, OFFICIAL, OFFICIAL_CORPUS, REFERENCES

from visattn import __version__
from visattn.cli import evaluate
from visattn.metrics import DocumentFrequencies, caption_scores
from visattn.metrics.captions import CaptionScores

IDS = {image: 9 + 4 * i for i, image in enumerate(REFERENCES)}
NO_JAVA = find_spec("pycocoevalcap") is None or shutil.which("java") is None


def written(words):
    """A caption with capitals and punctuation."""
    return f"{' '.join(words).capitalize()}." if words else "."


def coco(references=REFERENCES):
    annotations = [
        {"id": 100 * IDS[image] + i, "image_id": IDS[image], "caption": written(caption)}
        for image, captions in references.items()
        for i, caption in enumerate(captions)
    ]
    return {
        "images": [{"id": IDS[image], "file_name": f"{image}.jpg"} for image in references],
        "annotations": annotations,
    }


def karpathy(split="test"):
    images = [
        {
            "filename": f"{image}.jpg",
            "split": split,
            "sentences": [{"raw": written(caption), "tokens": ["others", *caption]} for caption in captions],
        }
        for image, captions in REFERENCES.items()
    ]
    extra = {"filename": "moon.jpg", "split": "train", "sentences": [{"tokens": ["a", "moon"], "raw": ""}]}
    return {"dataset": "flickr8k", "images": [extra, *images]}


def results(names=IDS):
    return [{"image_id": names[image], "caption": written(words)} for image, words in CANDIDATES.items()]


@pytest.fixture
def run(tmp_path, capsys):
    """Writes the two files and runs the program; returns its status, printed output, and output file."""

    def run(references, candidates, *options):
        files = {"references": references, "candidates": candidates}
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / f"{name}.json").write_text(text)
        words = [word for name in files for word in (f"--{name}", tmp_path / f"{name}.json")]
        output = tmp_path / "new" / "scores.json"
        output.unlink(missing_ok=True)
        status = evaluate.main([str(word) for word in (*words, "--output", output, *options)])
        return status, capsys.readouterr(), json.loads(output.read_text()) if output.exists() else None

    return run


@pytest.fixture
def fails(run):
    def fails(references, candidates, *options):
        status, said, content = run(references, candidates, *options)
        assert status == 2
        assert content is None
        (sentence,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
        return sentence

    return fails


def test_official_scores_are_printed_and_written(run):
    status, said, content = run(coco(), results())
    assert status == 0
    assert set(content) == {"scores", "per_image", "signature", "counts", "notes"}
    assert content["scores"] == pytest.approx(dict(zip(NAMES, OFFICIAL_CORPUS, strict=True)), abs=1e-9)
    assert list(content["per_image"]) == [str(IDS[image]) for image in REFERENCES]
    for image, expected in OFFICIAL.items():
        assert content["per_image"][str(IDS[image])] == pytest.approx(dict(zip(NAMES, expected, strict=True)), abs=1e-9)
    lines = said.out.splitlines()
    assert [line.split() for line in lines[:6]] == [
        [name, f"{score:.4f}"] for name, score in zip(NAMES, OFFICIAL_CORPUS, strict=True)
    ]
    assert len({len(line) for line in lines[:6]}) == 1
    repeats = "captions that repeat a pair of words: 14.3%, references 0.0%"  # "a a a a cup cup of of tea"
    named = "objects named by captions: 9, 22.2% of them by no reference"  # "people eat pizza", of a bus
    assert lines[6:] == [repeats, named, "note: candidates without words, scored 0: 1", content["signature"]]
    assert content["signature"] == (
        f"BLEU+ROUGE-L+CIDEr-D|tok:ptb-py|refs:1-4|df:references(7)|images:7|empty:1|visattn:{__version__}"
    )
    assert content["counts"] == {
        "images": 7,
        "references": 16,
        "images_without_candidate": 0,
        "images_without_references": 0,
        "references_of_unknown_images": 0,
        "empty_candidates": 1,
        "empty_references": 0,
        "repeating_candidates": 1,
        "repeating_references": 0,
        "images_without_instances": 0,
        "named_objects": 9,
        "absent_objects": 2,
    }


def test_objects_that_are_not_in_the_photograph(run, fails, tmp_path):
    """A kite, a person and a bench are annotated; references name a kite, a person and, of the bus, a bus."""
    names = {"kite": 3, "person": 5, "bench": 7}
    things = [("kite", "kite"), ("kite", "bench"), ("bus", "person")]
    instances = {
        "images": [
            {"id": IDS[image], "file_name": f"{image}.jpg", "width": 53, "height": 37} for image in ("kite", "bus")
        ],
        "annotations": [
            {"image_id": IDS[image], "category_id": names[thing], "bbox": [1, 2, 3, 4]} for image, thing in things
        ],
        "categories": [{"id": number, "name": name} for name, number in names.items()],
    }
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(instances))
    for references in (coco(), karpathy()):  # images are found by id, or by file name
        candidates = results() if references == coco() else results({image: image for image in IDS})
        status, said, content = run(references, candidates, "--instances", file)
        assert status == 0
        # Named: "a red kite above two children" and "people eat pizza"; there: kite, person, bench; person, bus.
        expected = {"CHAIR-i": 1 / 4, "CHAIR-s": 1 / 2, "mentions": 2, "object_recall": 3 / 5}
        assert {name: content["scores"][name] for name in expected} == pytest.approx(expected)
        absent = {image: scores["absent"] for image, scores in content["per_image"].items() if scores.get("absent")}
        assert absent == {str(candidates[list(CANDIDATES).index("bus")]["image_id"]): ["pizza"]}
        assert "images whose objects are unknown, not in the instances file: 5" in said.out
        assert "by no reference" not in said.out
        assert "|chair:instances.json(2)|" in content["signature"]
    status, said, content = run(coco(), [{**entry, "caption": "..."} for entry in results()], "--instances", file)
    assert status == 0
    assert "no candidate names an object" in said.out
    assert not {"CHAIR-i", "CHAIR-s"} & set(content["scores"])
    odd = [{"id": number, "name": name.title()} for number, name in enumerate(["Kite", "Person", "Bench"])]
    file.write_text(json.dumps(instances | {"categories": odd, "annotations": []}))
    assert "none of COCO's 80 categories" in fails(coco(), results(), "--instances", file)
    file.write_text(json.dumps(instances | {"images": [], "annotations": []}))
    assert "instances.json has none of the 7 scored images" in fails(coco(), results(), "--instances", file)
    assert "gone.json: no such" in fails(coco(), results(), "--instances", tmp_path / "gone.json")


def test_output_is_optional(tmp_path, capsys):
    (tmp_path / "r.json").write_text(json.dumps(coco()))
    (tmp_path / "c.json").write_text(json.dumps(results()))
    assert evaluate.main(["--references", str(tmp_path / "r.json"), "--candidates", str(tmp_path / "c.json")]) == 0
    assert "CIDEr-D  1.4574" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 2


def test_an_id_is_the_same_as_number_and_as_text(run, fails):
    expected = run(coco(), results())[2]
    assert run(coco(), results({image: str(i) for image, i in IDS.items()}))[2] == expected
    both = [*results(), {"image_id": str(IDS["cup"]), "caption": "A cup"}]
    references = coco()
    references["images"].append({"id": str(IDS["dog"])})
    assert "several entries for 1 images, such as 9; leave one" in fails(references, results())
    assert f"several candidates for 1 images, such as {IDS['cup']};" in fails(coco(), both)
    padded = results({image: f"{i:012}" for image, i in IDS.items()})
    assert "7 images without references in references.json, such as 000000000009, 000000000013" in fails(coco(), padded)
    for wrong in (True, 9.0, None, [9]):
        assert "the image_id of" in fails(coco(), [{"image_id": wrong, "caption": "A dog"}])


def test_captions_of_visattn_caption_are_matched_by_file(run, fails):
    listed = [
        {"image": f"photos/{image}.jpg", "caption": written(words), "words": words, "overlay": f"{image}.png"}
        for image, words in CANDIDATES.items()
    ]
    expected = run(coco(), results())[2]["scores"]
    assert run(coco(), listed)[2]["scores"] == expected
    assert run(karpathy(), listed)[2]["scores"] == expected
    listed[0]["image"] = "photos/unknown.jpg"
    assert "such as unknown.jpg" in fails(coco(), listed)
    twice = coco()
    for entry in twice["images"][:2]:
        entry["file_name"] = "a/same.jpg"
    listed[0]["image"] = "same.jpg"
    assert "such as same.jpg" in fails(twice, listed[:1])


def test_karpathy_files_are_scored_by_their_raw_sentences(run, fails):
    names = {image: image for image in REFERENCES}
    content = run(karpathy(), results(names))[2]
    assert content["scores"] == pytest.approx(dict(zip(NAMES, OFFICIAL_CORPUS, strict=True)), abs=1e-9)
    assert list(content["per_image"]) == list(REFERENCES)
    assert content["signature"].split("|")[3] == "df:references(7)"
    other = run(karpathy("val"), results(names), "--split", "val")[2]
    assert other["scores"] == content["scores"]
    whole = run(karpathy("val"), [*results(names), {"image_id": "moon", "caption": "A moon"}], "--split", "val,train")[
        2
    ]
    assert whole["per_image"]["moon"]["BLEU-2"] == pytest.approx(1)
    tokens = run(karpathy(), [{"image_id": i, "caption": "others a dog runs"} for i in names], "--tokenizer", "spaces")[
        2
    ]
    assert tokens["per_image"]["dog"]["BLEU-4"] == pytest.approx(1)
    assert tokens["signature"].split("|")[1] == "tok:spaces"
    assert "has no test split; it has train (1), val (7)" in fails(karpathy("val"), results(names))


def test_an_image_of_a_karpathy_file_may_have_an_id_of_coco(run):
    content = karpathy()
    for image in content["images"]:
        image["cocoid"] = IDS.get(Path(image["filename"]).stem, 1)
    assert run(content, results())[2]["scores"]["CIDEr-D"] == pytest.approx(OFFICIAL_CORPUS[-1])


def test_an_image_without_a_candidate_is_an_error_or_left_out(run, fails):
    some = results()[:4]
    assert "no candidate for 3 of the 7 images of references.json, such as 25, 29, 33; add them" in fails(coco(), some)
    status, said, content = run(coco(), some, "--partial")
    assert status == 0
    fewer = {image: REFERENCES[image] for image in list(REFERENCES)[:4]}
    alone = run(coco(fewer), some)[2]
    assert content["scores"] == alone["scores"]  # document frequencies, too, are those of the scored images
    assert "|df:references(4)|images:4/7|" in content["signature"]
    assert "note: images left out, without a candidate: 3" in said.out
    assert "|images:4|" in alone["signature"]
    assert run(coco(), results(), "--partial")[2] == run(coco(), results())[2]


def test_candidates_that_cannot_be_scored_are_errors(fails):
    more = [*results(), {"image_id": 1, "caption": "A dog"}, {"image_id": "moon", "caption": "A moon"}]
    assert "candidates for 2 images without references in references.json, such as 1, moon; leave" in fails(
        coco(), more
    )
    again = [*results(), results()[2], results()[0]]
    assert "several candidates for 2 images, such as 9, 17; leave one for each" in fails(coco(), again)
    twice = coco()
    twice["images"] += twice["images"][1:3]
    assert "references.json has several entries for 2 images, such as 13, 17; leave one" in fails(twice, results())


def test_references_that_cannot_be_used_are_left_out_and_counted(run, fails):
    references = coco()
    references["images"].append({"id": 5})
    references["annotations"] += [{"image_id": 1, "caption": "A dog."}, {"image_id": 2, "caption": "A cat."}]
    status, said, content = run(references, results())
    assert status == 0
    assert content["scores"] == run(coco(), results())[2]["scores"]
    assert content["counts"]["images_without_references"] == 1
    assert content["counts"]["references_of_unknown_images"] == 2
    assert "note: images left out, without references: 1" in said.out
    assert "note: references left out, without an image in the file: 2" in said.out
    assert "1 images without references in" in fails(references, [*results(), {"image_id": 5, "caption": "A dog"}])
    del references["images"]
    assert "no candidate for 2 of the 9 images" in fails(references, results())


def test_captions_without_a_word_stay_and_are_counted(run):
    references = coco()
    references["annotations"] += [{"image_id": IDS["cat"], "caption": caption} for caption in ("", " ... ", "!")]
    status, said, content = run(references, results())
    assert status == 0
    assert content["counts"]["references"] == 19
    assert content["counts"]["empty_references"] == 3
    assert "note: references without words, kept as in the official tool: 3" in said.out
    assert content["per_image"][str(IDS["cat"])] == dict.fromkeys(NAMES, 0) | {"ROUGE-L": 1}
    assert "|empty:1|" in content["signature"]


def test_a_single_image_is_noted(run, tmp_path):
    status, said, content = run(coco({"dog": REFERENCES["dog"]}), results()[:1])
    assert status == 0
    assert content["scores"]["CIDEr-D"] == 0
    assert "note: only one image: CIDEr-D is 0 by definition" in said.out
    (tmp_path / "others.json").write_text(json.dumps(coco()))
    status, said, content = run(
        coco({"dog": REFERENCES["dog"]}), results()[:1], "--frequencies", tmp_path / "others.json"
    )
    assert content["scores"]["CIDEr-D"] == pytest.approx(OFFICIAL["dog"][-1])
    assert "|df:others.json(7)|images:1|" in content["signature"]
    assert "note" not in said.out


def test_frequencies_of_a_split(run, fails, tmp_path):
    file = tmp_path / "karpathy.json"
    file.write_text(json.dumps(karpathy("restval")))
    options = ("--frequencies", file, "--frequencies-split")
    other = run(coco(), results(), *options, "restval")[2]
    assert other["scores"] == run(coco(), results())[2]["scores"]
    assert "|df:karpathy.json[restval](7)|" in other["signature"]
    more = run(coco(), results(), *options, "train,restval")[2]
    assert "|df:karpathy.json[train,restval](8)|" in more["signature"]
    frequencies = DocumentFrequencies.of(REFERENCES | {"moon": [["a", "moon"]]})
    assert more["scores"] == caption_scores(REFERENCES, CANDIDATES, frequencies).corpus
    assert more["scores"]["CIDEr-D"] != pytest.approx(other["scores"]["CIDEr-D"], abs=1e-4)
    assert "|df:karpathy.json[train](1)|" in run(coco(), results(), "--frequencies", file)[2]["signature"]
    assert "has no test split" in fails(coco(), results(), *options, "test")
    assert "--frequencies-split needs --frequencies" in fails(coco(), results(), "--frequencies-split", "train")


def test_line_breaks_and_odd_characters_shift_nothing(run):
    expected = run(coco(), results())[2]["scores"]
    broken = [entry | {"caption": entry["caption"].replace(" ", "\r\n\u2028 😀\ud83d\x00 ")} for entry in results()]
    assert run(coco(), broken)[2]["scores"] == expected


def test_tokens_may_be_given(run):
    tokens = [entry | {"caption": entry["caption"].lower().replace(".", "")} for entry in results()]
    references = coco()
    for entry in references["annotations"]:
        entry["caption"] = entry["caption"].lower().replace(".", "")
    content = run(references, tokens, "--tokenizer", "spaces")[2]
    assert content["scores"] == pytest.approx(dict(zip(NAMES, OFFICIAL_CORPUS, strict=True)), abs=1e-9)
    assert content["signature"].startswith("BLEU+ROUGE-L+CIDEr-D|tok:spaces|")
    assert run(coco(), results(), "--tokenizer", "spaces")[2]["scores"] != content["scores"]  # "dog." is another word


def test_mistakes_are_named_and_leave_no_output(fails, tmp_path):
    assert "references.json cannot be read as JSON" in fails("{", results())
    assert "candidates.json cannot be read as JSON" in fails(coco(), "\x00")
    assert "candidates.json cannot be read as JSON" in fails(coco(), "[" * 100_000)
    assert "candidates.json is not a list" in fails(coco(), coco())
    assert "candidates.json has no candidate" in fails(coco(), [])
    for wrong in ([], 7, {"images": []}, {"images": [{"id": 1}]}, {"annotations": 1, "images": [3]}, results()):
        assert "references.json is neither COCO's caption file" in fails(wrong, results())
    assert "references.json has no caption" in fails({"images": [], "annotations": []}, results())
    assert "its images are not a list" in fails(coco() | {"images": 3}, results())
    for wrong in (None, 3, ["a", "dog"]):
        assert "each entry needs an image_id and a caption" in fails(coco(), [{"image_id": 9, "caption": wrong}])
    assert '{"image_id": 9} is not text' in fails(coco(), [{"image_id": 9}])
    assert "the image_id of" in fails(coco(), ["A dog"])
    assert "has no splits" in fails(coco(), results(), "--split", "test")
    broken = karpathy()
    broken["images"][3]["sentences"][0] = {"sentid": 3}
    assert 'the sentence {"sentid": 3} has no raw or tokens' in fails(broken, results())
    broken["images"][3]["sentences"] = None
    assert "has no list of sentences" in fails(broken, results())
    broken = karpathy()
    del broken["images"][3]["filename"]
    assert "the filename of" in fails(broken, results())
    assert f"{tmp_path} is a folder; name a file with --output" in fails(coco(), results(), "--output", tmp_path)
    inputs = [tmp_path / "references.json", tmp_path / "candidates.json"]
    for path in inputs:
        assert "is an input" in fails(coco(), results(), "--output", path)
    gone = tmp_path / "gone.json"
    assert f"{gone}: no such file" in fails(coco(), results(), "--frequencies", gone)


def test_java_is_checked_before_the_work(fails, monkeypatch):
    monkeypatch.setattr("visattn.metrics.official.shutil.which", lambda name: None)
    monkeypatch.setattr("visattn.metrics.official.version", lambda name: "1.2")
    monkeypatch.setattr("visattn.studies.scores.scoring.caption_scores", None)
    assert "METEOR needs Java" in fails(coco(), results(), "--meteor")
    assert "--tokenizer java needs Java" in fails(coco(), results(), "--tokenizer", "java")


def test_meteor_is_added_to_the_other_scores(run, monkeypatch):
    def meteor(references, candidates):
        assert references == {str(IDS[image]): captions for image, captions in REFERENCES.items()}
        assert candidates == {str(IDS[image]): words for image, words in CANDIDATES.items()}
        return CaptionScores({"METEOR": 0.25}, {image: {"METEOR": 0.5} for image in references})

    monkeypatch.setattr("visattn.studies.scores.scoring.meteor", meteor)
    monkeypatch.setattr("visattn.studies.scores.scoring.require", lambda what: "1.2")
    status, said, content = run(coco(), results(), "--meteor")
    assert status == 0
    assert list(content["scores"]) == [*NAMES, "METEOR"]
    assert content["per_image"]["9"]["METEOR"] == 0.5
    assert "METEOR   0.2500\n" in said.out
    assert content["signature"].startswith("BLEU+ROUGE-L+CIDEr-D+METEOR|tok:ptb-py|")
    assert "|pycocoevalcap:1.2|visattn:" in content["signature"]


@pytest.mark.skipif(NO_JAVA, reason="the official tokeniser and METEOR need the extra 'coco' and Java")
def test_the_official_programs(run):
    content = run(coco(), results(), "--tokenizer", "java", "--meteor")[2]
    assert content["scores"]["METEOR"] == pytest.approx(METEOR, abs=1e-9)
    del content["scores"]["METEOR"]
    assert content["scores"] == pytest.approx(dict(zip(NAMES, OFFICIAL_CORPUS, strict=True)), abs=1e-9)
    assert "|tok:ptb-java|" in content["signature"]


@pytest.mark.skipif("VISATTN_GOLDEN" not in os.environ, reason="VISATTN_GOLDEN names no file of official scores")
def test_golden_scores_of_raw_captions(run):
    golden = json.loads(Path(os.environ["VISATTN_GOLDEN"]).read_text())
    captions = [{"image_id": int(i), "caption": c} for i, several in golden["references"].items() for c in several]
    candidates = [{"image_id": i, "caption": golden["candidates"][str(i)][0]} for i in golden["ids"]]
    references = {"images": [{"id": i} for i in golden["ids"]], "annotations": captions}
    content = run(references, candidates, *([] if NO_JAVA else ["--meteor"]))[2]
    official = {"CIDEr": "CIDEr-D", "ROUGE_L": "ROUGE-L"} | {f"Bleu_{n}": f"BLEU-{n}" for n in (1, 2, 3, 4)}
    for theirs, ours in (official | ({} if NO_JAVA else {"METEOR": "METEOR"})).items():
        assert content["scores"][ours] == pytest.approx(golden["scores"][theirs], abs=1e-6)
        per_image = [content["per_image"][str(i)][ours] for i in golden["ids"]]
        assert per_image == pytest.approx(golden["per_image"][theirs], abs=1e-6)


def test_help(capsys):
    with pytest.raises(SystemExit) as exit_:
        evaluate.main(["--help"])
    assert exit_.value.code == 0
    assert "--references" in capsys.readouterr().out
