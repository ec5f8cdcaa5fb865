"""The program: its commands, the scripts, and configurations by name."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from conftest import CONFIGS, FAST, SMALL_SHAPES
from PIL import Image

import visattn.cli as cli
from visattn.attention.hard import Evaluation
from visattn.cli import COMMANDS, TRAINING, main
from visattn.errors import InputError
from visattn.explain.faithfulness import Units
from visattn.explain.libraries.loading import MAX_SIDE
from visattn.explain.rollout import Fusion
from visattn.export.folder import DTYPES, EncoderWeights
from visattn.overlay import style
from visattn.overlay.viewer import SIDE
from visattn.precision import OPTIONS
from visattn.results import CaptionExport, ClassExport
from visattn.studies import estimators, sequences
from visattn.studies.benchmarks import decoding, maps
from visattn.studies.faithfulness import CLASS_METHODS, SUBSTRATES, WORD_METHODS
from visattn.tasks import benchmark, caption, compare, overlay, rank
from visattn.training.runs.configurations import packaged, resolved

SCRIPTS = sorted(path for path in (Path(__file__).parent.parent / "scripts").glob("*.py"))


def test_every_command_has_a_script_with_the_same_options():
    assert {path.stem.replace("_", "-") for path in SCRIPTS} == set(COMMANDS) - set(TRAINING)
    for path in SCRIPTS:
        assert len(path.read_text().splitlines()) <= 15
        assert f'main(["{path.stem.replace("_", "-")}", *sys.argv[1:]])' in path.read_text()


def test_the_program_loads_no_command_to_list_them():
    heavy = "torch", "lightning", "numpy", "matplotlib"
    code = (
        f"import sys; from visattn.cli import main; main(['--help']); print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


LIGHT = sorted(set(COMMANDS) - set(TRAINING))


@pytest.mark.parametrize("command", LIGHT)
def test_help_loads_nothing_heavy(command):
    heavy = "torch", "torchvision", "timm", "lightning", "torchmetrics", "matplotlib"
    code = (
        f"import sys; from visattn.cli import main\ntry: main(['{command}', '--help'])\nexcept SystemExit: pass\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"usage: visattn {command}" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_lightning_is_loaded_for_checkpoints_only(tmp_path):
    Image.fromarray(np.zeros((41, 37, 3), np.uint8)).save(tmp_path / "a.png")
    options = [str(tmp_path / "a.png"), "--export", "npz"]
    words = ["caption", "--checkpoint", "captioner-shapes", "--output", str(tmp_path / "captions"), *options]
    others = ["overlay", "--checkpoint", "vit-cifar10", "--output", str(tmp_path / "classes"), *options]
    code = (
        f"import sys; from visattn.cli import main; assert main({words}) == main({others}) == 0\n"
        "print([m for m in ('lightning', 'torchmetrics') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_choices_of_options_match_the_functions():
    """Commands state their choices themselves, so that --help loads no model."""
    for name in (*LIGHT, "deletion", "models", "pictures"):
        importlib.import_module(f"visattn.cli.{name.replace('-', '_')}")
    assert get_args(caption.Map) == cli.caption.MAPS
    assert get_args(CaptionExport) == cli.caption.EXPORTS
    assert get_args(Evaluation) == cli.caption.PLACES
    assert tuple(overlay.METHODS) == cli.overlay.METHODS
    assert get_args(Fusion) == cli.overlay.FUSIONS
    assert get_args(ClassExport) == cli.overlay.EXPORTS
    assert cli.overlay.MAX_SIDE == MAX_SIDE
    assert {*CLASS_METHODS, *WORD_METHODS} == set(cli.faithfulness.METHODS)
    assert get_args(Units) == cli.deletion.UNITS
    assert tuple(rank.DATA) == cli.rank.DATA
    assert SUBSTRATES == cli.deletion.SUBSTRATES
    assert tuple(compare.SOURCES) == cli.compare.DATA
    assert tuple(compare.MECHANISMS) == cli.compare.MECHANISMS
    assert (tuple(sequences.TASKS), tuple(sequences.MECHANISMS), sequences.BATCH) == (
        cli.sequences.TASKS,
        cli.sequences.MECHANISMS,
        cli.sequences.BATCH,
    )
    assert get_args(sequences.Encoding) == cli.sequences.ENCODERS
    assert sequences.LENGTHS == (5, 12)  # the default of --train-lengths
    assert tuple(estimators.METHODS) == cli.estimators.METHODS
    assert tuple(DTYPES) == cli.export.DTYPES
    assert get_args(EncoderWeights) == cli.export.ENCODER_WEIGHTS
    assert list(benchmark.SUBJECTS) == list(cli.benchmark.SUBJECTS)
    assert (style.COLOUR_MAP, style.OPACITY, style.WORD_SIZE) == (
        cli.pictures.COLOUR_MAP,
        cli.pictures.OPACITY,
        cli.pictures.WORD_SIZE,
    )
    assert set(cli.models.PRECISIONS) == set(OPTIONS)
    defaults = vars(cli.benchmark.parser().parse_args(["decoding"]))
    assert (defaults["images"], defaults["beam"], defaults["max_length"]) == decoding.FULL
    defaults = vars(cli.benchmark.parser().parse_args(["maps"]))
    assert (defaults["timm"], defaults["images"]) == maps.FULL
    assert f"(default: {SIDE})" in Path(cli.view.__file__).read_text()


@pytest.mark.parametrize(("words", "said"), [([], "no command"), (["capton"], "caption"), (["--absent"], "--absent")])
def test_an_unknown_command_is_one_sentence(words, said, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [["sequences"], ["gpu-check", "--device", "cpu", "--parts", "vit"]])
@pytest.mark.parametrize("inside", ["", "new"])
def test_a_file_in_place_of_a_folder_is_named(words, inside, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main([*words, "--output", str(tmp_path / "file" / inside)]) == 2
    assert f"error: {tmp_path / 'file'} is a file, where a folder is needed" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("visattn ")


def test_configurations_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("{}")
    words = ["fit", "--config", "attention/hard", "--config=shapes_vit", "-c", "mine.yaml", "--output", "shapes_vit"]
    hard, vit = CONFIGS / "attention" / "hard.yaml", CONFIGS / "shapes_vit.yaml"
    expected = ["fit", "--config", str(hard), f"--config={vit}", "-c", "mine.yaml", "--output", "shapes_vit"]
    assert resolved(words) == expected
    Path("shapes_captioner").mkdir()  # a run's folder of that name hides nothing
    assert resolved(["--config", "shapes_captioner"]) == ["--config", str(CONFIGS / "shapes_captioner.yaml")]
    with pytest.raises(InputError, match="shapes_captioner"):
        packaged("shapes_captoner")


def test_a_training_by_the_name_of_its_configuration(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--config=shapes_captioner", "--config", "attention/multihead", "--output=run", *FAST, *SMALL_SHAPES]
    assert main(["fit", *words]) == 0
    (saved,) = Path("run").rglob("config.yaml")
    assert "MultiHeadAttention" in saved.read_text()
    assert main(["fit", "--config", "attention/hart", "--output=other", *FAST]) == 2
    assert "attention/hard" in capsys.readouterr().err
    assert not Path("other").exists()


def test_an_interrupt_while_loading_a_command_gives_no_traceback(monkeypatch, capsys):
    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("visattn.cli.importlib.import_module", interrupt)
    assert main(["caption", "photo.jpg"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("words", [["--help"], ["view", "--help"]])
def test_output_that_nobody_reads_is_no_error(words):
    """As with `| head -1`."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "visattn", *words], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode in (0, 141)  # argparse passes over it
