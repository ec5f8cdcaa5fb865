"""Truth where it is used: logged by validation and test, to choose checkpoints by, and as a reward."""

import csv
import json

import numpy as np
import pytest
import torch
from conftest import CONFIGS, FAST, SMALL_SHAPES, fit
from test_decoders import GRID, D, L
from test_program import photograph_options

from visattn.cli import main
from visattn.data import ShapesCaptions
from visattn.data.batch import CaptionBatch
from visattn.errors import InputError
from visattn.metrics import Facts, Grammar, TruthReward, truth_scores
from visattn.models import LSTMDecoder
from visattn.training.objectives import CaptionLoss
from visattn.training.regimes import SelfCritical, TeacherForcing
from visattn.training.runs.program import run_cli
from visattn.vocabulary import END, PAD, SPECIALS, Vocabulary

BY_TRUTH = ["--checkpoint.monitor=val/true", "--checkpoint.mode=max"]
REWARD = ["--config", str(CONFIGS / "training" / "self_critical.yaml"), "--model.regime.reward=truth"]


def logged(run):
    with (run / "logs" / "version_0" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_validation_and_test_log_truth_and_checkpoints_are_chosen_by_it(tmp_path):
    best = fit("shapes_captioner.yaml", tmp_path / "run", *SMALL_SHAPES, *BY_TRUTH)
    (row,) = [row for row in logged(tmp_path / "run") if row["val/true"]]
    assert {"val/complete", "val/exist", "val/outside_grammar"} <= set(row)
    saved = torch.load(best, weights_only=True)["callbacks"]
    (chosen,) = [state for name, state in saved.items() if name.startswith("ModelCheckpoint")]
    assert chosen["monitor"] == "val/true"
    assert float(chosen["best_model_score"]) == pytest.approx(float(row["val/true"]))

    words = ["test", "--config", str(CONFIGS / "shapes_captioner.yaml"), *FAST, *SMALL_SHAPES]
    cli = run_cli([*words, "--ckpt_path", str(best), "--output", str(tmp_path / "test")])
    images = cli.model.evaluated.images
    verdicts = [cli.datamodule.facts(name).judge(image.words) for name, image in images.items()]
    assert [image.verdict for image in images.values()] == verdicts
    for name, value in truth_scores(verdicts).items():
        assert float(cli.trainer.callback_metrics[f"test/{name}"]) == pytest.approx(value)


def test_true_captions_score_one_in_validation(tmp_path, monkeypatch):
    """Where the captioner says a reference of each image."""
    data, told = ShapesCaptions(), []
    judge = Facts.judge

    def of_reference(self, words):
        told.append(words)
        name = f"val-{len(told) - 1}"
        assert self == data.facts(name)
        return judge(self, data.references("val")[name][0])

    monkeypatch.setattr(Facts, "judge", of_reference)
    fit("shapes_captioner.yaml", tmp_path / "run", *SMALL_SHAPES)
    (row,) = [row for row in logged(tmp_path / "run") if row["val/true"]]
    assert len(told) == 7
    assert {float(row[f"val/{name}"]) for name in ("true", "complete", "exist", "relation", "true_3")} == {1}


def test_of_photographs_no_truth_is_logged(karpathy_root, tmp_path):
    fit("flickr8k_soft.yaml", tmp_path / "run", *photograph_options(karpathy_root))
    (row,) = [row for row in logged(tmp_path / "run") if row.get("val/CIDEr-D")]
    assert not [name for name in row if "true" in name.split("/")[-1] or "grammar" in name or "complete" in name]


BY_CHAIR = ["--checkpoint.monitor=val/CHAIR-i", "--checkpoint.mode=min"]


def test_objects_named_are_logged_where_those_in_the_photographs_are_known(karpathy_root, tmp_path, monkeypatch):
    """Each generated caption is read as "a cat and a dog", each of validation's references as "a dog"."""
    path = karpathy_root / "dataset_flickr8k.json"
    content = json.loads(path.read_text())
    for image in content["images"]:
        if image["split"] == "val":
            image["sentences"] = [{"tokens": ["a", "dog", "sleeps"]}]
    path.write_text(json.dumps(content))
    images = [
        {"id": n, "file_name": image["filename"], "height": 37, "width": 53}
        for n, image in enumerate(content["images"])
    ]
    described = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "dog"}]}
    (karpathy_root / "instances.json").write_text(json.dumps(described))
    monkeypatch.setattr(
        "visattn.data.photographs.objects", lambda said: ["dog"] if "sleeps" in said else ["cat", "dog"]
    )
    options = [*photograph_options(karpathy_root), "--data.instances=instances.json", *BY_CHAIR]
    fit("flickr8k_soft.yaml", tmp_path / "run", *options)
    (row,) = [row for row in logged(tmp_path / "run") if row.get("val/CIDEr-D")]
    expected = {"CHAIR-i": 0.5, "CHAIR-s": 1, "object_recall": 1, "mentions": 2}
    assert {name: float(row[f"val/{name}"]) for name in expected} == expected


def test_chair_is_refused_at_once_where_nothing_is_known(karpathy_root, tmp_path, capsys):
    options = [*photograph_options(karpathy_root), f"--features={tmp_path / 'features'}", *FAST, *BY_CHAIR]
    words = ["fit", "--config", str(CONFIGS / "flickr8k_soft.yaml"), *options, "--output", str(tmp_path / "run")]
    assert main(words) == 2
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "val/CHAIR-i cannot be monitored" in sentence
    assert "--data.instances" in sentence
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize("wanted", [REWARD, BY_TRUTH, ["--checkpoint.monitor=val/true_2"]], ids=["reward", "val", "2"])
def test_truth_is_refused_at_once_where_it_is_not_known(wanted, karpathy_root, tmp_path, capsys):
    options = [*photograph_options(karpathy_root), f"--features={tmp_path / 'features'}"]
    words = ["fit", "--config", str(CONFIGS / "flickr8k_soft.yaml"), *options, *FAST, *wanted]
    assert main([*words, "--output", str(tmp_path / "run")]) == 2
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "does not provide the content of its images" in sentence
    assert "ShapesCaptions" in sentence
    assert ("reward=CIDEr-D" if wanted is REWARD else "--checkpoint.monitor=val/CIDEr-D") in sentence
    assert not (tmp_path / "features").exists()
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_self_critical_training_on_truth(tmp_path):
    best = fit("shapes_captioner.yaml", tmp_path / "first", *SMALL_SHAPES)
    assert (
        main(
            [
                *("fit", "--config", str(CONFIGS / "shapes_captioner.yaml"), *REWARD, *FAST, *SMALL_SHAPES, *BY_TRUTH),
                *("--start_from", str(best), "--output", str(tmp_path / "run")),
            ]
        )
        == 0
    )
    rewards = [float(row["train/reward"]) for row in logged(tmp_path / "run") if row.get("train/reward")]
    assert rewards
    assert all(0 <= reward <= 1 for reward in rewards)


def test_an_unknown_reward_is_refused():
    with pytest.raises(InputError, match=r"'BLEU'.*CIDEr-D, truth"):
        SelfCritical(reward="BLEU")


GRAMMAR = Grammar(("small",), ("red", "blue"), ("circle",), ("above",))
VOCABULARY = Vocabulary([*SPECIALS, "a", "small", "red", "blue", "circle", "above"])


def thing(words):
    return dict(zip(("size", "colour", "shape"), words.split(), strict=True))


FACTS = {
    "image 0": Facts([thing("small red circle")], [["above"]], GRAMMAR),
    "image 1": Facts([thing("small blue circle")], [["above"]], GRAMMAR),
    "image 2": Facts([thing("small red circle"), thing("small blue circle")], [["", "above"], ["below", ""]], GRAMMAR),
}


def tokens(text, ended=True, width=12):
    row = VOCABULARY.encode(text.split())[1:][: None if ended else -1]
    return row + [PAD] * (width - len(row))


def test_the_reward_is_the_share_of_true_claims():
    reward = TruthReward(FACTS.get, VOCABULARY)
    cases = [
        ("image 0", "a red circle", True, 1),
        ("image 1", "a red circle", True, 0),
        ("image 2", "a red circle", True, 1 / 3),
        ("image 2", "a red circle above a small blue circle", True, 1),
        ("image 2", "a blue circle above a red circle", True, 2 / 3),
        ("image 2", "a red circle above a small blue circle", False, 0),  # unfinished
        ("image 0", "a red <unk>", True, 0),
        ("image 0", "", True, 0),
    ]
    rewards = reward([case[0] for case in cases], np.array([tokens(text, ended) for _, text, ended, _ in cases]))
    np.testing.assert_allclose(rewards, [case[-1] for case in cases])
    with pytest.raises(InputError, match="'dog' is unknown"):
        reward(["dog"], np.array([tokens("a")]))
    with pytest.raises(ValueError, match="shape"):
        reward(["image 0"], np.array([tokens("a")] * 2))
    with pytest.raises(ValueError, match="token 10 is not"):
        reward(["image 0"], np.array([[10, END]]))


def test_training_on_truth_raises_it():
    """A decoder that says either colour of either image learns which is there."""
    torch.manual_seed(0)
    model = LSTMDecoder(len(VOCABULARY), D, hidden=13, embedding=19, dropout=0.0)
    said = torch.tensor([[1, *tokens(f"a {colour} circle", width=4)] for _ in range(2) for colour in ("red", "blue")])
    seen = torch.ones(2, L, D) * torch.tensor([1.0, -1.0])[:, None, None]
    two = CaptionBatch(None, None, torch.tensor([0, 0, 1, 1]), said, ["image 0", "image 1"])
    critical = SelfCritical(reward="truth")
    assert critical.signature == "SCST|baseline:leave-one-out(5)|reward:truth|eos:required"
    critical.begin({}, VOCABULARY, 5, FACTS.get)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    rewards = []
    for regime, steps in ((TeacherForcing(), 40), (critical, 60)):
        for step in range(steps):
            taught = regime.teach(model, model.prepare(seen, GRID), two, CaptionLoss(), step)
            optimizer.zero_grad()
            taught.loss.backward()
            optimizer.step()
            rewards += [taught.logs["reward"].item()] if regime is critical else []
    assert np.mean(rewards[:5]) < 0.7
    assert np.mean(rewards[-10:]) > 0.95
