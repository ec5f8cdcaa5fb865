"""One process and two are equivalent: gradients, baselines, losses, scores, predictions; random numbers differ.

Two processes are started by torchrun, and by Lightning for a run with a signal on the way. Draws are prescribed where
runs are compared (`shares.py`).
"""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import shares
import torch
from conftest import CONFIGS, TALKATIVE

from visattn.cli import main
from visattn.data import ShapesCaptions
from visattn.errors import InputError
from visattn.training import processes
from visattn.training.evaluation import collect

TESTS = Path(__file__).parent
TIMEOUT = 400  # seconds; on a quiet machine a launch takes about fifteen

TWO = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
ONE = ["--trainer.accelerator=cpu"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.log_every_n_steps=1"]
SCENES = [
    f"--data.init_args.{option}" for option in ("train_size=17", "val_size=7", "test_size=11", "eval_batch_size=3")
]
# Adam would make steps of one size of gradients that are nothing but rounding.
PLAIN_DESCENT = [f"--model.init_args.optimization.init_args.{option}" for option in ("optimizer=sgd", "lr=0.1")]
CAPTIONER = ["--config", str(CONFIGS / "shapes_captioner.yaml"), *SCENES, *QUIET, TALKATIVE, *PLAIN_DESCENT]
HARD = ["--config", str(CONFIGS / "attention" / "hard_published.yaml")]
# Batch normalisation counts in each process by itself, so the encoder stays as it is.
FROZEN = {"encoder": {"init_args": {"train_from": None}}}
SECOND_PLACE = {"attention": {"class_path": "shares.SecondPlace", "init_args": {"probability": 1.0}}}
CLASSIFIER = ["--config", str(CONFIGS / "shapes_vit.yaml"), "--data=shares.StillClasses", *QUIET]
GLIMPSES = {  # whose locations are trained by draws, baseline and all, and which learn to stop
    "model": {
        "class_path": "visattn.models.GlimpseModel",
        "init_args": {
            "glimpses": 3,
            "hidden": 11,
            "stop": True,
            "sensor": {"class_path": "visattn.models.Retina", "init_args": {"size": 5, "scales": 2}},
            "policy": {"class_path": "shares.SecondCell", "init_args": {"rows": 3, "columns": 5}},
            "glimpse": {"class_path": "visattn.models.GlimpseNetwork", "init_args": {"widths": [3], "where": 2}},
            "context": {"class_path": "visattn.models.ContextNetwork", "init_args": {"side": 7, "widths": [3]}},
        },
    },
    "loss": {"class_path": "visattn.training.objectives.GlimpseLoss", "init_args": {"price": 0.01}},
}


def batch(size):
    return [f"--data.init_args.batch_size={size}", "--trainer.max_epochs=2"]


def overlay(folder, name, parts):
    """An own configuration over the captioner's."""
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps({"model": {"init_args": parts}}))  # JSON is YAML
    return ["--config", str(file)]


def witness(folder):
    return ["--trainer.callbacks+=shares.Witness", f"--trainer.callbacks.init_args.folder={folder}"]


def launch(command, folder, status=0):
    """Run to its end, with everything that it started; what it said."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]),
    }
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # a run in this process has left them
        environment.pop(name, None)
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=TIMEOUT)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == status, said
    return said


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def torchrun(folder):
    """By torchrun: what it said; its runs are in folders of their names, those of one process in `name_one`."""
    best = ["--ckpt_path", str(folder / "soft" / "best.ckpt")]
    captioner = [*CAPTIONER, *overlay(folder, "frozen", FROZEN)]
    hard = [*CAPTIONER, *HARD, *overlay(folder, "hard", FROZEN | {"decoder": {"init_args": SECOND_PLACE}})]
    glimpses = ["--config", "shapes_glimpse", "--data=shares.StillClasses", "--data.init_args.train_size=23", *QUIET]
    glimpses += [*overlay(folder, "glimpses", GLIMPSES), *PLAIN_DESCENT]
    critical = ["--config", str(CONFIGS / "training" / "self_critical.yaml"), "--trainer.limit_train_batches=2"]
    runs = {
        "soft": ["fit", *captioner, "--features", str(folder / "features")],
        "validate": ["validate", *captioner, *best],
        "predict": ["predict", *captioner, *best],
        "classifier": ["fit", *CLASSIFIER],
        "glimpses": ["fit", *glimpses],
        "critical": ["fit", *captioner, *critical, "--start_from", str(folder / "soft" / "last.ckpt")],
        "hard": ["fit", *hard],
    }
    (folder / "hard.json").write_text(json.dumps([*runs["hard"], *batch(4), *TWO]))

    two = [
        [*run, *TWO, "--output", str(folder / name)]
        + ([*batch(4), *witness(folder / f"{name}_witness")] if run[0] == "fit" else [])
        for name, run in runs.items()
    ]
    (folder / "runs.json").write_text(json.dumps(two))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    said = launch([*command, str(TESTS / "shares.py"), str(folder / "steps.pt"), str(folder / "runs.json")], folder)
    for name in ("validate", "predict", "soft", "classifier", "glimpses", "hard"):
        size = batch(8) if runs[name][0] == "fit" else []
        assert main([*runs[name], *ONE, *size, "--output", str(folder / f"{name}_one")]) == 0
    return said


def logged(folder):
    """The rows of a run's log, as numbers.

    Left out is what is measured in seconds, and pointing: where weights are nearly even, rounding decides the largest.
    """
    with (folder / "logs" / "version_0" / "metrics.csv").open() as file:
        return [
            {
                key: float(value)
                for key, value in row.items()
                if value and not key.endswith(("_per_s", "seconds", "processor_s", "pointing"))
            }
            for row in csv.DictReader(file)
        ]


def assert_logged_alike(one, other):
    """As near as several steps of sums in another order leave them; `test_two_shares…` is stricter, step by step."""
    one, other = logged(one), logged(other)
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-5, nan_ok=True)


def assert_weights_alike(one, other):
    one, other = (torch.load(path / "last.ckpt", weights_only=True)["state_dict"] for path in (one, other))
    assert set(one) == set(other)
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-3, atol=1e-5, msg=name)


def seen(folder):
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", shares.REGIMES)
def test_two_shares_of_a_batch_are_the_batch(name, torchrun, folder, monkeypatch):
    """Gradients, baseline, losses and all that is logged, in every regime, for three steps."""
    monkeypatch.setattr("visattn.training.regimes.Sampling", shares.Ranked)
    alone, together = shares.steps(name), torch.load(folder / "steps.pt", weights_only=True)[name]
    assert set(alone) == set(together)
    assert any(value.abs().sum() > 0 for key, value in alone.items() if key.startswith("2 ∂decoder.attention"))
    for key, value in alone.items():
        torch.testing.assert_close(
            together[key].to(value), value, rtol=2e-5, atol=2e-6, msg=lambda m, key=key: f"{key}: {m}"
        )


def test_shares_of_these_batches_have_different_numbers_of_words():
    """So that a mean of the processes' means would be noticed."""
    words = (shares.captions() != 0).sum(dim=1)
    assert words[1::2].sum() > 1.5 * words[::2].sum()


def test_hard_attention_trains_alike(torchrun, folder):
    """Every step's loss and diagnostics, every epoch's scores, the baseline and the weights."""
    hard = folder / "hard"
    assert_logged_alike(hard, folder / "hard_one")
    assert_weights_alike(hard, folder / "hard_one")
    baseline = torch.load(hard / "last.ckpt", weights_only=True)["state_dict"]["loss.reinforce.baseline.average"]
    assert baseline.item() > 1
    columns = set().union(*logged(hard))
    assert {"train/advantage_variance", "train/reinforce_gradient_share", "val/CIDEr-D", "val/gap"} <= columns


def test_the_best_checkpoint_is_the_same_for_all(torchrun, folder):
    first, second = seen(folder / "hard_witness")
    assert first["best"] == second["best"]
    assert first["logged"] == second["logged"]
    assert first["weights"] == second["weights"]


def test_a_signal_to_one_of_lightnings_processes_ends_all_after_the_step_and_they_go_on(torchrun, folder):
    """To the process that writes no checkpoint; the resumed run equals the uninterrupted one."""
    words = [sys.executable, "-m", "visattn", *json.loads((folder / "hard.json").read_text())]
    run = ["--output", str(folder / "signalled")]
    callback = [f"--trainer.callbacks.init_args.{name}" for name in (f"number={signal.SIGUSR1:d}", "rank=1", "step=1")]
    stop = ["--trainer.callbacks+=shares.Signalled", *callback]
    said = launch([*words, *run, *stop], folder, status=128 + signal.SIGUSR1)
    assert said.count("Starting with 2 processes") == 1
    assert "Using `DistributedSampler`" not in said
    assert said.count("SIGUSR1: stopped after step 2; resume with --ckpt_path ") == 1
    saved = torch.load(folder / "signalled" / "last.ckpt", weights_only=True)
    assert (saved["global_step"], len(saved["random_states"])) == (2, 2)
    launch([*words, *run, "--ckpt_path", "last"], folder)
    ends = [
        torch.load(path / "last.ckpt", weights_only=True)["state_dict"]
        for path in (folder / "hard", folder / "signalled")
    ]
    for name, tensor in ends[0].items():
        assert torch.equal(tensor, ends[1][name]), name


def test_a_validation_counts_every_image_once(torchrun, folder):
    """Seven images for two processes: one is seen twice, and counts once."""

    def report(name):  # null is NaN
        known = (folder / name / "exposure_val.json").read_text()
        return json.loads(known.replace("null", "NaN"))

    one, two = report("validate_one"), report("validate")
    assert two["scores"] == pytest.approx(one["scores"], rel=1e-5, abs=1e-6, nan_ok=True)
    assert two["overall"] == pytest.approx(one["overall"], rel=1e-5, abs=1e-6, nan_ok=True)
    assert two["positions"]["tokens"] == one["positions"]["tokens"]
    for name, values in one["positions"].items():
        assert two["positions"][name] == pytest.approx(values, rel=1e-5, abs=1e-6, nan_ok=True)
    references = [caption for captions in ShapesCaptions(val_size=7).references("val").values() for caption in captions]
    assert two["positions"]["tokens"][0] == len(references) == 35
    assert two["scores"]["BLEU-1"] > 0
    things = [len(ShapesCaptions().scene(f"val-{i}").things) for i in range(7)]
    share = sum(two["scores"][f"true_{n}"] * things.count(n) for n in set(things)) / 7
    assert two["scores"]["true"] == pytest.approx(share)
    assert two["scores"]["ground_truth_grounding_words"] > 35
    assert (folder / "validate" / "exposure_val.png").exists()
    assert "no exposure report" not in torchrun


def test_predictions_have_every_image_once_in_order(torchrun, folder):
    one, two = (json.loads((folder / name / "predictions.json").read_text()) for name in ("predict_one", "predict"))
    assert [entry["image_id"] for entry in two] == [f"test-{i}" for i in range(11)]
    assert [entry["caption"] for entry in two] == [entry["caption"] for entry in one]
    assert torchrun.count("11 predictions in") == 1


def test_kept_features_serve_both(torchrun, folder):
    """Computed once, by two processes; trained on by two and by one, alike."""
    assert torchrun.count("Encoding images once") >= 1
    assert len(list((folder / "features").iterdir())) == 1
    assert_logged_alike(folder / "soft", folder / "soft_one")
    assert_weights_alike(folder / "soft", folder / "soft_one")


def test_a_classifier_trains_and_validates_alike(torchrun, folder):
    """23 images in batches of 8: the last has 4 for one process and 3 for the other."""
    assert_logged_alike(folder / "classifier", folder / "classifier_one")
    assert_weights_alike(folder / "classifier", folder / "classifier_one")


def test_a_glimpse_model_trains_and_validates_alike(torchrun, folder):
    """The classes, the locations, their baseline, and when to stop."""
    assert_logged_alike(folder / "glimpses", folder / "glimpses_one")
    assert_weights_alike(folder / "glimpses", folder / "glimpses_one")
    first, second = seen(folder / "glimpses_witness")
    assert first["weights"] == second["weights"]
    columns = set().union(*logged(folder / "glimpses"))
    assert {"train/advantage_variance", "train/glimpses", "val/accuracy_3", "val/glimpses", "val/seen"} <= columns


def test_random_numbers_differ_between_processes_and_are_repeatable(torchrun, folder):
    """Python's, NumPy's and PyTorch's numbers at the first step."""
    runs = [seen(folder / f"{name}_witness") for name in ("hard", "soft", "critical")]
    for first, second in runs:
        assert all(a != b for a, b in zip(first["drawn"], second["drawn"], strict=True))
    assert len({tuple(first["drawn"][:2]) for first, _ in runs}) == 1
    assert len({tuple(second["drawn"][:2]) for _, second in runs}) == 1


def test_self_critical_training_leaves_all_with_the_same_weights(torchrun, folder):
    first, second = seen(folder / "critical_witness")
    assert first["weights"] == second["weights"]
    assert first["logged"] == second["logged"]
    assert "train/reward" in set().union(*logged(folder / "critical"))


def test_a_single_process_changes_nothing():
    x = torch.tensor([3.0, 5.0], requires_grad=True)
    assert (processes.world(), processes.rank()) == (1, 0)
    for y in (processes.total(x), processes.mean(x)):
        assert torch.equal(y, x)
        assert not y.requires_grad
        assert y.data_ptr() != x.data_ptr()
    assert processes.gathered("a") == ["a"]
    assert processes.once(lambda: 7) == 7
    before = torch.get_rng_state()
    processes.draw_apart()
    assert torch.equal(torch.get_rng_state(), before)


class Seen:
    """What `collect` asks a trainer."""

    sanity_checking = False
    limit_val_batches = 1.0


def test_images_seen_by_no_process_are_named(monkeypatch):
    names = ["a", "b", "c"]
    monkeypatch.setattr(processes, "gathered", lambda own: [own, {"c": 3, "a": 1}])
    assert list(collect({"b": 2, "a": 1}, names, "val", Seen()).items()) == [("a", 1), ("b", 2), ("c", 3)]
    with pytest.raises(InputError, match=r"2 images of the val split.* 3, .* b"):
        collect({"a": 1}, names, "val", Seen())
    with pytest.raises(InputError, match="such as elsewhere"):
        collect({"elsewhere": 1, "b": 2}, names, "val", Seen())
    monkeypatch.setattr(Seen, "limit_val_batches", 1)
    assert collect({"a": 1}, names, "val", Seen()) == {"a": 1, "c": 3}
