"""A run's files, with any loggers and callbacks: all below --output, and none of the user's overwritten."""

import re
import signal

import pytest
import yaml
from conftest import CONFIGS, FAST, SMALL_SHAPES

from visattn.cli import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a configuration of the user's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("# my notes\n" + (CONFIGS / "shapes_vit.yaml").read_text())
    return tmp_path


def fit(*options, output="run", config="config.yaml"):
    small = ["--model.model.size=12", "--model.model.depth=1", *SMALL_SHAPES]
    return main(["fit", "--config", config, *FAST, *small, f"--output={output}", *options])


def saved(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.yaml") if path.name != "hparams.yaml")


LOGGERS = {
    "none": (["--trainer.logger=false"], ["config.yaml"]),
    "empty": (["--trainer.logger=[]"], ["config.yaml"]),
    "default": ([], ["logs/version_0/config.yaml"]),
    "true": (["--trainer.logger=true"], ["logs/version_0/config.yaml"]),
    "inside": (
        ["--trainer.logger=lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir=run/own"],
        ["own/lightning_logs/version_0/config.yaml"],
    ),
    "outside": (
        ["--trainer.logger=lightning.pytorch.loggers.TensorBoardLogger", "--trainer.logger.save_dir=board"],
        ["config.yaml"],
    ),
}


@pytest.mark.parametrize("logger", LOGGERS)
def test_the_configuration_is_kept_in_the_output(logger, here):
    options, expected = LOGGERS[logger]
    before = (here / "config.yaml").read_bytes()
    assert fit(*options) == 0
    assert (here / "config.yaml").read_bytes() == before
    assert {path.name for path in here.iterdir()} - {"board"} == {"config.yaml", "run"}
    assert not [path for path in (here / "board").rglob("*.yaml") if path.name == "config.yaml"]
    assert saved(here / "run") == expected
    assert yaml.safe_load((here / "run" / expected[0]).read_text())["output"] == "run"
    assert (here / "run" / "last.ckpt").is_file()


def test_a_configuration_in_the_output_is_not_written_over(here):
    run = here / "run"
    run.mkdir()
    given = run / "config.yaml"
    (here / "config.yaml").replace(given)
    before = given.read_bytes()
    options = {"config": "run/config.yaml"}
    assert fit("--trainer.logger=false", **options) == 0
    assert fit("--trainer.logger=false", "--resume=auto", "--trainer.max_epochs=2", **options) == 0
    assert given.read_bytes() == before
    assert saved(run) == ["config-2.yaml", "config-3.yaml", "config.yaml"]
    assert yaml.safe_load((run / "config-3.yaml").read_text())["resume"] == "auto"
    assert {path.name for path in here.iterdir()} == {"run"}


def test_a_run_needs_no_checkpoints_and_no_logs(here):
    handlers = signal.getsignal(signal.SIGTERM)
    assert fit("--trainer.enable_checkpointing=false", "--trainer.logger=false") == 0
    assert saved(here / "run") == ["config.yaml"]
    assert not list((here / "run").glob("*.ckpt"))
    assert {path.name for path in here.iterdir()} == {"config.yaml", "run"}
    assert signal.getsignal(signal.SIGTERM) == handlers


def test_other_commands_need_no_logs_either(here, classifier_checkpoint):
    for subcommand in ("validate", "test", "predict"):
        words = [subcommand, "--config=config.yaml", *FAST, *SMALL_SHAPES, f"--ckpt_path={classifier_checkpoint}"]
        assert main([*words, "--output=run", "--trainer.logger=false", "--trainer.enable_checkpointing=false"]) == 0
    assert saved(here / "run") == ["config-2.yaml", "config-3.yaml", "config.yaml"]
    assert {path.name for path in here.iterdir()} == {"config.yaml", "run"}


@pytest.mark.parametrize("callback", ["LearningRateMonitor", "ModelCheckpoint"])
def test_unsupported_requests_are_refused_by_name(callback, here, capsys):
    options = [f"--trainer.callbacks+=lightning.pytorch.callbacks.{callback}"]
    assert fit(*options, "--trainer.logger=false", "--trainer.enable_checkpointing=false") == 2
    assert callback in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--trainer.barebones=true"], "barebones"),
        (["--trainer.barebones=true", "--trainer.logger=false", "--trainer.fast_dev_run=true"], "barebones"),
        (["--trainer.strategy=fsdp"], "FSDP|fsdp"),
        (["--trainer.strategy=nothing"], "strategy"),
        (["--trainer.accelerator=abacus"], "abacus"),
        (["--trainer.precision=3"], "precision"),
    ],
)
def test_options_of_the_trainer_that_cannot_be(options, named, here, capsys):
    assert fit(*options) == 2
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.search(named, sentence)
    assert {path.name for path in here.iterdir()} == {"config.yaml"}
