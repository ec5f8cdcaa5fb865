"""Weights and default type in bfloat16, float64 or float16: every run succeeds, or ends with a one-sentence error."""

import csv
import json

import pytest
import torch
from conftest import CONFIGS, FAST, SMALL_SHAPES

from visattn.cli import main
from visattn.training import processes
from visattn.training.checkpoints import read

DTYPES = {"bf16-true": torch.bfloat16, "64-true": torch.float64}
SMALL_CAPTIONER = ["--model.decoder.hidden=16", "--model.decoder.embedding=8", "--data.batch_size=13"]
SCORE = "--model.decoder.attention.score=visattn.attention"


def runs(config, overlays, folder, options, *after):
    """Fit, then other commands; the checkpoint and the numbers in the fit's log."""
    words = [word for name in (config, *overlays) for word in ("--config", str(CONFIGS / name))]
    words += [*FAST, *SMALL_SHAPES, *options, "--data.eval_batch_size=3", f"--output={folder}"]
    for subcommand in ("fit", *after):
        assert main([subcommand, *words, *(["--ckpt_path=last"] if subcommand != "fit" else [])]) == 0
    with (folder / "logs" / "version_0" / "metrics.csv").open() as log:
        rows = list(csv.DictReader(log))
    numbers = {name: float(row[name]) for row in rows for name in row if row[name]}
    return read(folder / "last.ckpt"), numbers


CAPTIONERS = {
    "soft": [],
    "hard": ["attention/hard.yaml"],
    "hard_published": ["attention/hard_published.yaml"],
    "local_m": ["attention/local_m.yaml"],
    "local_p": ["attention/local_p.yaml"],
    "luong": ["attention/luong.yaml"],
    "multihead": ["attention/multihead.yaml"],
    "transformer": ["attention/transformer.yaml"],
    "regularised": ["training/regularised.yaml"],
    "scheduled": ["training/scheduled_sampling.yaml"],
    "self_critical": ["training/self_critical.yaml"],
}
MORE = {
    "soft": [
        "--model.search=visattn.decoding.BeamSearch",
        "--model.no_repeat=2",
        "--trainer.callbacks+=visattn.training.callbacks.AttentionSheets",
    ],
    "hard": ["--model.search=visattn.decoding.Sampling", "--model.search.top_p=0.9"],
    "scheduled": ["--model.regime.schedule.start=0.5"],
    "self_critical": ["--model.regime.baseline=greedy"],
}


IN_64 = ("soft", "hard", "transformer", "self_critical")  # a tensor of its own type is out of place in both


@pytest.mark.parametrize(
    ("name", "precision"), [(name, "bf16-true") for name in CAPTIONERS] + [(name, "64-true") for name in IN_64]
)
def test_every_captioner(name, precision, tmp_path):
    size = ["--model.decoder.size=16"] if name == "transformer" else SMALL_CAPTIONER[:2]
    options = [*size, SMALL_CAPTIONER[2], f"--trainer.precision={precision}", *MORE.get(name, [])]
    after = ("validate", "test", "predict") if name == "soft" else ()
    checkpoint, numbers = runs("shapes_captioner.yaml", CAPTIONERS[name], tmp_path, options, *after)
    trained = checkpoint.get("current_model_state", checkpoint["state_dict"])  # beside an average in float32
    assert trained["decoder.out.weight"].dtype == DTYPES[precision]
    assert checkpoint["precision"] == precision
    assert "val/CIDEr-D" in numbers
    assert "val/grounding_pointing" in numbers
    assert not after or len(json.loads((tmp_path / "predictions.json").read_text())) == 6


@pytest.mark.parametrize(("precision", "mixed"), [("bf16-true", True), ("64-true", False)])
def test_every_classifier(precision, mixed, tmp_path):
    options = [
        "--model.model.size=12",
        "--model.model.depth=1",
        "--data.batch_size=11",
        f"--trainer.precision={precision}",
    ]
    options += ["--model.mixup=0.8", "--model.cutmix=1.0", "--model.label_smoothing=0.1"] if mixed else []
    options += ["--trainer.callbacks+=visattn.training.callbacks.AttentionSheets"]
    checkpoint, numbers = runs("shapes_vit.yaml", [], tmp_path, options, "validate", "test", "predict")
    assert checkpoint["state_dict"]["model.head.weight"].dtype == DTYPES[precision]
    assert "val/accuracy" in numbers
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == 6


@pytest.mark.parametrize("precision", DTYPES)
def test_features_are_kept(precision, karpathy_root, tmp_path):
    options = [f"--data.root={karpathy_root}", "--data.workers=0", "--data.min_count=1", "--data.image_size=64"]
    options += [
        "--model.encoder.weights=random",
        "--model.encoder.backbone=test_resnet",
        f"--features={tmp_path / 'kept'}",
    ]
    options += [*SMALL_CAPTIONER, "--data.mirror=true", f"--trainer.precision={precision}"]
    words = ["--config", str(CONFIGS / "flickr8k_soft.yaml"), *FAST, *options, f"--output={tmp_path / 'run'}"]
    assert main(["fit", *words]) == 0
    assert main(["validate", *words, "--ckpt_path=last"]) == 0


@pytest.mark.parametrize(
    ("config", "precision"),
    [
        ("shapes_captioner.yaml", "16-true"),
        ("shapes_vit.yaml", "16-true"),
        ("shapes_vit.yaml", "16-mixed"),
        ("shapes_vit.yaml", "transformer-engine"),
    ],
)
@pytest.mark.filterwarnings("ignore:You passed `Trainer")
def test_other_precisions_succeed_or_give_one_sentence(config, precision, tmp_path, capsys):
    words = ["--config", str(CONFIGS / config), *FAST, *SMALL_SHAPES, "--data.batch_size=5", f"--output={tmp_path}"]
    status = main(["fit", *words, f"--trainer.precision={precision}"])
    assert status == 0 or (status == 2 and "error: " in capsys.readouterr().err)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_counts_are_exact_whatever_the_default_type(dtype):
    """257 cannot be represented in bfloat16."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        assert processes.mean(torch.tensor(257)).item() == 257
        assert processes.mean(torch.tensor([257, 1031])).tolist() == [257, 1031]
    finally:
        torch.set_default_dtype(default)
