"""Attention during training, through the command line."""

import json
import logging

import numpy as np
import pytest
import torch
from conftest import CONFIGS, FAST, SMALL_SHAPES, TALKATIVE
from PIL import Image

from visattn.cli import main
from visattn.decoding import captions
from visattn.training.runs.program import run_cli

SHEETS = ["--trainer.callbacks+=visattn.training.callbacks.AttentionSheets", "--trainer.callbacks.images=3"]


def words(config, output, *options):
    return ["fit", "--config", str(CONFIGS / config), "--output", str(output), *FAST, *SMALL_SHAPES, *options]


def lines(output):
    return [json.loads(line) for line in (output / "attention" / "health.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("config", ["shapes_captioner.yaml", "shapes_vit.yaml"])
def test_sheets_and_health_of_every_second_epoch(config, tmp_path):
    yaml = tmp_path / "sheets.yaml"
    yaml.write_text(
        "trainer:\n  callbacks:\n    - class_path: visattn.training.callbacks.AttentionSheets\n"
        "      init_args: {images: 3, every_n_epochs: 2}\n"
    )
    output = tmp_path / "run"
    assert main([*words(config, output), "--config", str(yaml), "--trainer.max_epochs=3"]) == 0
    sheets = sorted(path.relative_to(output / "attention") for path in output.rglob("*.png"))
    assert {str(path.parent) for path in sheets} == {"epoch_000", "epoch_002"}
    first, second = ([path.name for path in sheets if str(path.parent) == e] for e in ("epoch_000", "epoch_002"))
    assert first == second  # a fixed set
    assert [name[:3] for name in first] == ["00_", "01_", "02_"]
    for path in sheets:
        with Image.open(output / "attention" / path) as sheet:
            assert sheet.format == "PNG"
            assert np.ptp(np.asarray(sheet)) > 200
    assert not [path for path in output.rglob("*") if path.name.endswith(".tmp")]
    found = lines(output)
    assert [line["epoch"] for line in found] == [0, 1, 2]
    for line in found:
        assert 0 < line["relative_entropy"] <= 1 + 1e-6
        assert line["entropy"] == pytest.approx(line["relative_entropy"] * np.log(64))
        assert 1 / 64 <= line["largest_weight"] <= 1
        assert 0 <= line["coverage"] <= 1
        assert ("gate" in line) == ("doubly_stochastic" in line) == ("captioner" in config)
        assert line["maps"] > 0
    (metrics,) = output.rglob("metrics.csv")
    header = metrics.read_text().splitlines()[0].split(",")
    assert {"val/attention_relative_entropy", "val/attention_largest_weight", "val/attention_coverage"} <= set(header)


def test_health_is_that_of_the_generated_captions(tmp_path):
    cli = run_cli(words("shapes_captioner.yaml", tmp_path / "run"))
    data, model = cli.datamodule, cli.model.eval()
    images = torch.stack([data.load(example)[0] for example in data.examples("val")])
    captions = [found[0] for found in model.caption(images)]
    (line,) = lines(tmp_path / "run")
    assert line["maps"] == sum(len(caption.words) for caption in captions)
    assert line["largest_weight"] == pytest.approx(
        np.mean([weights.max() for caption in captions for weights in caption.weights]), rel=1e-5
    )
    assert line["gate"] == pytest.approx(np.mean([gate for caption in captions for gate in caption.gates]), rel=1e-5)
    assert float(cli.trainer.callback_metrics["val/attention_gate"]) == pytest.approx(line["gate"], rel=1e-5)


def test_maps_that_do_not_differ_are_reported_once(tmp_path, monkeypatch, caplog):
    def still(*parts):
        return [caption._replace(weights=np.full_like(caption.weights, 1 / 64)) for caption in captions(*parts)]

    monkeypatch.setattr("visattn.training.captioner.captions", still)
    with caplog.at_level(logging.WARNING, logger="visattn"):
        assert main([*words("shapes_captioner.yaml", tmp_path / "run", TALKATIVE), "--trainer.max_epochs=2"]) == 0
    told = [record.getMessage() for record in caplog.records if "attention hardly changes" in record.getMessage()]
    assert len(told) == 1
    assert "epoch 0" in told[0]
    assert [line["change"] for line in lines(tmp_path / "run")] == [0, 0]


def test_sheets_do_not_affect_the_training(tmp_path):
    """Also with sampled attention: the same random numbers, and so the same weights."""
    hard = ["--config", str(CONFIGS / "attention" / "hard.yaml"), "--trainer.max_epochs=2"]
    for name, options in (("without", []), ("with", SHEETS)):
        assert main([*words("shapes_captioner.yaml", tmp_path / name, *hard, *options)]) == 0
    states = [
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"] for name in ("without", "with")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert len(list((tmp_path / "with").rglob("*.png"))) == 6


def test_a_resumed_run_has_each_epoch_once(tmp_path):
    output = tmp_path / "run"
    assert main(words("shapes_captioner.yaml", output, "--trainer.max_epochs=2")) == 0
    before = lines(output)
    with (output / "attention" / "health.jsonl").open("a") as file:  # as of a run that was killed after its epoch 2
        file.write(json.dumps(before[1] | {"epoch": 2, "maps": -1}) + "\n")
    on = ["--ckpt_path", str(output / "last.ckpt"), "--trainer.max_epochs=3"]
    assert main(words("shapes_captioner.yaml", output, *on)) == 0
    after = lines(output)
    assert [line["epoch"] for line in after] == [0, 1, 2]
    assert after[0] == before[0]
    assert after[2]["maps"] > 0


def test_sheets_show_the_original_photographs(karpathy_root, tmp_path):
    options = [
        f"--data.init_args.root={karpathy_root}",
        "--data.init_args.workers=0",
        "--data.init_args.min_count=1",
        "--data.init_args.image_size=64",
        "--model.init_args.encoder.init_args.weights=random",
        f"--features={karpathy_root / 'features'}",
        "--trainer.callbacks+=visattn.training.callbacks.AttentionSheets",
    ]
    output = tmp_path / "run"
    assert main(["fit", "--config", str(CONFIGS / "flickr8k_soft.yaml"), "--output", str(output), *FAST, *options]) == 0
    names = sorted(path.name for path in output.rglob("*.png"))
    assert names == ["00_7.png", "01_8.png", "02_9.png"]  # all three that there are


def test_tensorboard_shows_the_sheets(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = ["--trainer.logger=TensorBoardLogger", f"--trainer.logger.save_dir={tmp_path / 'board'}"]
    output = tmp_path / "run"
    assert main(words("shapes_captioner.yaml", output, *SHEETS, *logger, TALKATIVE)) == 0
    (events,) = (tmp_path / "board").rglob("events.out.*")
    board = EventAccumulator(str(events.parent), size_guidance={"images": 0})
    board.Reload()
    files = sorted(output.rglob("*.png"))
    assert sorted(board.Tags()["images"]) == [f"attention/{path.stem}" for path in files]
    shown = board.Images(f"attention/{files[0].stem}")[0]
    with Image.open(files[0]) as sheet:
        assert (shown.width, shown.height) == sheet.size
    assert "val/attention_change" in board.Tags()["scalars"]


@pytest.mark.parametrize("option", ["images", "every_n_epochs"])
def test_numbers_of_sheets_out_of_range_are_named(option, tmp_path, capsys):
    options = [*SHEETS, f"--trainer.callbacks.{option}=0"]
    assert main(words("shapes_captioner.yaml", tmp_path / "run", *options)) == 2
    assert f"{option} of AttentionSheets is 0" in capsys.readouterr().err
