"""Untrusted checkpoints: none runs code, and mismatches are errors."""

import os
import random
import signal
import subprocess
import time
import zipfile

import pytest
import torch
from conftest import CONFIGS, FAST, SMALL_SHAPES
from test_resuming import fork

from visattn.cli import benchmark, caption, ground, main, overlay
from visattn.errors import InputError
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import WholeCheckpoints, load_model, read, remove_unfinished
from visattn.training.checkpoints.agreement import differences
from visattn.training.runs.program import run_cli

WORDS = ["--config", str(CONFIGS / "shapes_captioner.yaml"), *FAST, *SMALL_SHAPES]
DECODER = "--model.init_args.decoder.init_args"


def sentence(capsys):
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture
def changed(captioner_checkpoint, tmp_path):
    """Makes a copy of a good checkpoint with something done to its content."""

    def change(edit):
        checkpoint = torch.load(captioner_checkpoint, weights_only=True)
        edit(checkpoint)
        path = tmp_path / "changed.ckpt"
        torch.save(checkpoint, path)
        return path

    return change


class Payload:
    """What pickle runs when it is loaded."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_file_that_would_run_code_leaves_no_trace(changed, photographs, tmp_path, monkeypatch, capsys):
    """For every option that takes a checkpoint, and for any of PyTorch's environment variables."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker, run = tmp_path / "marker", tmp_path / "run"
    path = changed(lambda checkpoint: checkpoint.update(extra=Payload(marker)))
    checkpoint, output = ["--checkpoint", str(path)], ["--output", str(tmp_path / "made")]
    doors = [
        lambda: main(["fit", *WORDS, f"--output={run}", f"--ckpt_path={path}"]),
        lambda: main(["fit", *WORDS, f"--output={run}", f"--start_from={path}"]),
        lambda: main(["validate", *WORDS, f"--output={run}", f"--ckpt_path={path}"]),
        lambda: caption.main([str(photographs), *checkpoint, *output]),
        lambda: overlay.main([str(photographs), *checkpoint, *output]),
        lambda: ground.main(["--root=x", "--annotations=x", "--instances=x", *checkpoint, *output]),
        lambda: benchmark.main(["decoding", *checkpoint]),
    ]
    for door in doors:
        assert door() == 2
        assert f"{path} is refused: it names posix.system" in sentence(capsys)
    run.mkdir(exist_ok=True)
    path.replace(run / "last.ckpt")
    assert main(["fit", *WORDS, f"--output={run}", "--resume=auto"]) == 2
    assert "damaged" in sentence(capsys)
    assert not marker.exists()
    torch.load(run / "last.ckpt", weights_only=False)  # it is a payload indeed
    assert marker.exists()


@pytest.mark.parametrize(
    "edit",
    [
        lambda options: options.update(_instantiator="os.system"),
        lambda options: options.update(_class_path="subprocess.getoutput"),
        lambda options: options.update(decoder="os.kill"),
        lambda options: options["decoder"]["init_args"].update(attention={"class_path": "antigravity.Attention"}),
    ],
)
def test_forbidden_checkpoint_paths(edit, changed):
    path = changed(lambda checkpoint: edit(checkpoint["hyper_parameters"]))
    with pytest.raises(InputError, match=r"refused: .*not part of visattn"):
        load_model(path, Captioner)


def test_addresses_are_refused(tmp_path, capsys):
    assert main(["test", *WORDS, f"--output={tmp_path}", "--ckpt_path=https://example.org/best.ckpt"]) == 2
    assert "https://example.org/best.ckpt is a URL" in sentence(capsys)
    with pytest.raises(InputError, match="is a URL"):
        load_model("http://127.0.0.1:9/best.ckpt", Captioner)


def test_damaged_files_are_named_with_their_size(captioner_checkpoint, tmp_path, capsys):
    """Empty, truncated, and with a flipped bit in a weight, which PyTorch does not detect."""
    whole, path = captioner_checkpoint.read_bytes(), tmp_path / "x.ckpt"
    with zipfile.ZipFile(captioner_checkpoint) as parts:
        weights = parts.read(max(parts.infolist(), key=lambda part: part.file_size))
    rotten = bytearray(whole)
    rotten[whole.index(weights) + len(weights) // 2] ^= 4
    for content in (b"", whole[:1], whole[:10007], whole[:-1], bytes(rotten), b"<html>no model here</html>"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"x.ckpt is damaged \({len(content)} bytes"):
            read(path)
    assert main(["test", *WORDS, f"--output={tmp_path}", f"--ckpt_path={path}"]) == 2
    assert f"{path} is damaged" in sentence(capsys)


def test_a_hyperparameter_of_another_version_is_named(changed, tmp_path, capsys):
    path = changed(lambda checkpoint: checkpoint["hyper_parameters"].update(whiskers=7))
    with pytest.raises(InputError, match=r"whiskers=7.*Captioner"):
        load_model(path, Captioner)
    path = changed(lambda checkpoint: checkpoint["hyper_parameters"]["decoder"]["init_args"].update(whiskers=7))
    with pytest.raises(InputError, match=r"this version of visattn: .*whiskers"):
        load_model(path, Captioner)
    assert main(["test", *WORDS, f"--output={tmp_path}", f"--ckpt_path={path}"]) == 2
    assert "whiskers" in sentence(capsys)


def test_weights_of_another_shape_are_named(changed, tmp_path, capsys):
    def cut(checkpoint):
        state = checkpoint["state_dict"]
        state["decoder.out.bias"] = state["decoder.out.bias"][:-1]

    path = changed(cut)
    with pytest.raises(InputError, match=r"this version .*decoder.out.bias"):
        load_model(path, Captioner)
    assert main(["test", *WORDS, f"--output={tmp_path}", f"--ckpt_path={path}"]) == 2
    words = len(torch.load(path, weights_only=True)["hyper_parameters"]["output_names"])
    assert f"has ({words - 1},) for decoder.out.bias, but this model has ({words},)" in sentence(capsys)


@pytest.mark.parametrize(
    ("subcommand", "options", "said"),
    [
        ("fit", [f"{DECODER}.hidden=5"], "decoder.init_args.hidden is 5 here and 128 in"),
        (
            "test",
            [f"{DECODER}.attention.init_args.score.init_args.hidden=7"],
            "score.init_args.hidden is 7 here and 64",
        ),
        (
            "validate",
            ["--config", str(CONFIGS / "attention" / "local_m.yaml")],
            "attention is 'visattn.attention.MonotonicLocalAttention' here and 'visattn.attention.SoftAttention' in",
        ),
        ("fit", ["--model.init_args.optimization.init_args.lr=3"], "lr is 3.0 here and 0.008 in"),
        ("validate", ["--data.init_args.train_size=7"], "words, but this data has"),
        ("validate", ["--data.init_args.image_size=[72,72]"], "image_size is (72, 72) here and (64, 64) in"),
        (
            "test",
            ["--config", str(CONFIGS / "shapes_vit.yaml")],
            "Captioner, but the configuration has visattn",
        ),
    ],
)
def test_options_that_contradict_the_checkpoint(subcommand, options, said, captioner_checkpoint, tmp_path, capsys):
    words = [subcommand, *WORDS, *options, f"--output={tmp_path / 'run'}", f"--ckpt_path={captioner_checkpoint}"]
    if "shapes_vit" in options[-1]:
        words = [subcommand, *options, *FAST, *words[-2:]]
    assert main(words) == 2
    assert said in sentence(capsys)
    assert not (tmp_path / "run").exists()


def test_overridden_values_are_used(captioner_checkpoint, tmp_path):
    """Otherwise, options that are not given come from the checkpoint; decoding options need no permission."""
    smoothed = "--model.init_args.loss.init_args.label_smoothing=0.25"
    decoding = ["--model.init_args.no_repeat=2", "--model.init_args.max_length=7"]
    words = ["validate", *WORDS, f"--output={tmp_path}", f"--ckpt_path={captioner_checkpoint}", *decoding]
    assert main([*words, smoothed]) == 2
    cli = run_cli([*words, smoothed, "--override_checkpoint"])
    assert (cli.model.loss.label_smoothing, cli.model.no_repeat, cli.model.max_length) == (0.25, 2, 7)
    assert torch.equal(cli.model.decoder.out.bias, load_model(captioner_checkpoint, Captioner).decoder.out.bias)


def test_an_option_that_is_newer_than_the_checkpoint_had_its_default(captioner_checkpoint, tmp_path):
    """Giving the default is no contradiction; the default is used if nothing, or something else, is given."""
    checkpoint = read(captioner_checkpoint)
    assert checkpoint["hyper_parameters"].pop("no_repeat") == 0
    del checkpoint["hyper_parameters"]["loss"]["init_args"]["label_smoothing"]
    torch.save(checkpoint, old := tmp_path / "old.ckpt")
    words = ["validate", *WORDS, f"--output={tmp_path}", f"--ckpt_path={old}"]
    for stated in ([], ["--model.init_args.loss.init_args.label_smoothing=0", "--model.init_args.no_repeat=0"]):
        cli = run_cli([*words, *stated])
        assert (cli.model.loss.label_smoothing, cli.model.no_repeat) == (0, 0)
    smoothed = "--model.init_args.loss.init_args.label_smoothing=0.25"
    with pytest.raises(InputError, match=r"label_smoothing .*0.25 .*0.0 .*old\.ckpt"):
        run_cli([*words, smoothed])
    assert run_cli([*words, smoothed, "--override_checkpoint"]).model.loss.label_smoothing == 0.25


def test_differences():
    saved = {"a": {"class_path": "x.A", "init_args": {"n": 3, "m": [1, 2], "inner": None}}, "b": 0.5}
    assert not list(differences({}, saved))
    assert not list(differences({"a": {"class_path": "x.A", "init_args": {"m": (1, 2)}}, "b": 0.5}, saved))
    assert list(differences({"a": {"class_path": "x.B", "init_args": {"n": 3}}}, saved)) == [("a", "x.B", "x.A")]
    inner = {"class_path": "y.C"}
    found = list(differences({"a": {"class_path": "x.A", "init_args": {"n": 5, "inner": inner}}, "c": 1}, saved))
    assert found == [("a.init_args.n", 5, 3), ("a.init_args.inner", "y.C", None), ("c", 1, None)]


# Writing -------------------------------------------------------------------------------------------------------------


def content(number):
    return {"state_dict": {"w": torch.full((300_000,), float(number))}, "hyper_parameters": {}, "number": number}


def write_for_ever(folder):
    for number in range(1_000_000):
        WholeCheckpoints().save_checkpoint(content(number), folder / "last.ckpt", folder / "previous.ckpt")


def test_a_checkpoint_survives_twenty_kills_while_writing(tmp_path):
    """And the previous one; partial files are removed."""
    chance, left = random.Random(0), 0
    for _ in range(20):
        for name in ("last.ckpt", "previous.ckpt"):
            (tmp_path / name).unlink(missing_ok=True)
        process = fork(write_for_ever, tmp_path)
        while not (tmp_path / "last.ckpt").exists():
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.03))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        number = read(tmp_path / "last.ckpt")["number"]
        if (tmp_path / "previous.ckpt").exists():
            assert read(tmp_path / "previous.ckpt")["number"] in (number, number - 1)
        left += len(list(tmp_path.glob(".*.tmp")))
        remove_unfinished(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} <= {"last.ckpt", "previous.ckpt"}
    assert left  # kills did fall into writing


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_costs_no_checkpoint(small_disk, capsys):
    """There is space for one checkpoint of 3.9 MB, but not for a second."""
    run = small_disk / "run"
    assert main(["fit", *WORDS, f"--output={run}", "--last.every_steps=1"]) == 2
    assert "No space left on device" in (said := sentence(capsys))
    assert str(run / "last.ckpt") in said
    assert read(run / "last.ckpt")["global_step"] == 1
    assert not list(run.glob(".*.tmp"))
