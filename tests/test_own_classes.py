"""docs/your_own_mechanism.md is run as written; unusable external classes give errors."""

import json
import re
import shlex
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FAST, SMALL_SHAPES
from torch import nn

import visattn
from visattn.attention import (
    AdditiveScore,
    DotScore,
    EntmaxAttention,
    FinalStateAttention,
    GeneralScore,
    HardAttention,
    LocationScore,
    MeanAttention,
    MonotonicLocalAttention,
    MultiHeadAttention,
    PredictiveLocalAttention,
    ScaledDotScore,
    SentinelAttention,
    SigmoidAttention,
    SoftAttention,
    SparsemaxAttention,
    SpatialAttention,
    WholeAttention,
)
from visattn.cli import main
from visattn.data.shapes import make_scene
from visattn.errors import InputError
from visattn.export import load_captioner
from visattn.imports import import_classes
from visattn.models import Encoder, GridEncoder, LSTMDecoder, LuongDecoder, TransformerDecoder
from visattn.testing import check_attention, check_decoder, check_encoder

PAGE = (Path(__file__).parent.parent / "docs" / "your_own_mechanism.md").read_text()
ATTENTION, CHECK, DECODER, ENCODER, REGISTER = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(SHELL,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [shlex.split(line.removeprefix("uv run "))[1:] for line in SHELL.replace("\\\n", " ").splitlines()]
SMALL = [*FAST, *SMALL_SHAPES, "--model.init_args.encoder.init_args.options={layers: [1, 1, 1, 1]}"]
MORE = {"fit": SMALL, "test": SMALL, "faithfulness": ["--limit", "2", "--steps", "2", "--seeds", "1"]}
NAMES = ("my_attention", "my_decoder", "my_encoder")
LATER = ("my_data",)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with the page's files and a picture, in which nothing of them has been imported."""
    folder = tmp_path_factory.mktemp("own")
    for name, text in zip(NAMES, (ATTENTION, DECODER, ENCODER), strict=True):
        (folder / f"{name}.py").write_text(text)
    make_scene(np.random.default_rng(0), 2).picture(97).save(folder / "scene.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
        for name in (*NAMES, *LATER):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def done(here):
    """The page's commands have run."""
    for words in COMMANDS:
        assert main([*words, *MORE.get(words[0], [])]) == 0, words


def test_the_page_is_short():
    assert len(ATTENTION.splitlines()) < 40
    assert [words[0] for words in COMMANDS] == ["fit", "test", "caption", "view", "faithfulness", "export"]


def test_the_page_s_commands_write_what_they_say(done, here):
    (entry,) = json.loads((here / "runs" / "captions" / "captions.json").read_text())
    maps = np.load(here / "runs" / "captions" / "scene.npz")["alpha"]
    assert "scene.npz" in entry["files"]
    assert maps.sum(axis=(1, 2)) == pytest.approx(1)
    assert (here / "view.html").stat().st_size > 10_000
    assert (here / "runs" / "faithful" / "faithfulness.md").is_file()
    assert (here / "exported" / "step.onnx").is_file()


def test_the_page_s_checks_pass(done):
    exec(CHECK, {})
    exec(REGISTER, {})
    check_decoder(sys.modules.get("my_decoder", _module("my_decoder")).GRUDecoder)
    check_encoder(sys.modules.get("my_encoder", _module("my_encoder")).SmallEncoder())


def test_python_reads_the_export_once_the_class_is_registered(done):
    assert type(load_captioner("exported").decoder.attention).__name__ == "SigmoidAttention"


def test_decoder_and_encoder_go_through_training_captions_and_export(done, here):
    words = ["--import", "my_decoder.py", "--import", "my_encoder"]
    own = ["--model.encoder=my_encoder.SmallEncoder", "--model.decoder=my_decoder.GRUDecoder"]
    fit = ["fit", *words, "--config", "shapes_captioner", "--output", "runs/own", *own, *FAST, *SMALL_SHAPES]
    assert main([*fit, "--model.decoder.attention=my_attention.SigmoidAttention"]) == 0
    checkpoint = ["--checkpoint", "runs/own/best.ckpt"]
    assert main(["caption", *words, *checkpoint, "--output", "runs/own_captions", "scene.png"]) == 0
    assert main(["export", *words, *checkpoint, "--format", "both", "--output", "exported_own"]) == 0
    loaded = load_captioner("exported_own")
    assert (type(loaded.encoder).__name__, type(loaded.decoder).__name__) == ("SmallEncoder", "GRUDecoder")
    assert loaded.encoder.cell_shift((64, 64)).stride == (8, 8)


def test_a_data_set_of_one_s_own_is_trained_on(here):
    """docs/training.md, as written, but smaller."""
    page = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
    (source,) = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Squares" in code]
    (command,) = [code for code in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) if "my_data.Squares" in code]
    Path("my_data.py").write_text(source)
    words = shlex.split(command.replace("\\\n", " ").removeprefix("uv run "))[1:]
    small = [*FAST, "--data.count=60", "--model.init_args.encoder.init_args.options={layers: [1, 1, 1, 1]}"]
    assert main([*words, *small]) == 0
    data = sys.modules["my_data"].Squares(count=60)
    assert [len(data.examples(split)) for split in ("train", "val", "test")] == [48, 12, 0]
    images = [data.load(example)[0] for example in data.examples("train")]
    assert {example.captions[0][1] for example in data.examples("train")} == {"red", "green", "blue"}
    assert all(image.shape == (3, 64, 64) and image.float().std() > 5 for image in images)


def test_without_its_name_a_checkpoint_s_class_is_refused(done, capsys):
    module = sys.modules.pop("my_attention")
    known = visattn.registry._registered["attention"].pop("my_attention.SigmoidAttention")
    try:
        words = ["--checkpoint", "runs/sigmoid/best.ckpt", "--output", "refused", "scene.png"]
        assert main(["caption", *words]) == 2
        assert "--import" in capsys.readouterr().err
        with pytest.raises(InputError, match=r"visattn\.register"):
            load_captioner("exported")
    finally:
        sys.modules["my_attention"] = module
        visattn.register(known)


MECHANISMS = {
    **{
        f"soft {score.__name__}": (lambda q, d, s=score: SoftAttention(q, d, s), {})
        for score in (AdditiveScore, GeneralScore)
    },
    **{
        f"soft {score.__name__}": (lambda q, d, s=score: SoftAttention(q, d, s), {"query_size": 44})
        for score in (DotScore, ScaledDotScore)
    },
    "soft by location": (lambda q, d: SoftAttention(q, d, partial(LocationScore, places=41)), {"permutes": False}),
    "hard, argmax": (partial(HardAttention, evaluation="argmax"), {}),
    "hard, expected": (partial(HardAttention, evaluation="expected"), {}),
    "hard, sample": (partial(HardAttention, evaluation="sample"), {}),
    "local-m": (MonotonicLocalAttention, {"permutes": False}),
    "local-p": (PredictiveLocalAttention, {"permutes": False}),
    "sparsemax": (SparsemaxAttention, {}),
    "entmax": (EntmaxAttention, {}),
    "sigmoid": (SigmoidAttention, {}),
    "sentinel": (SentinelAttention, {}),
    "whole": (WholeAttention, {}),
    "mean": (MeanAttention, {}),
    "final states": (FinalStateAttention, {"permutes": False}),
    "final state": (partial(FinalStateAttention, bidirectional=False), {"permutes": False}),
    "multi-head": (MultiHeadAttention, {}),
}


@pytest.mark.parametrize("name", MECHANISMS)
def test_our_own_mechanisms_keep_the_contract(name):
    make, options = MECHANISMS[name]
    check_attention(make, **options)


@pytest.mark.parametrize("decoder", [LSTMDecoder, LuongDecoder, partial(TransformerDecoder, size=56)])
def test_our_own_decoders_keep_the_contract(decoder):
    check_decoder(decoder)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_our_own_encoder_keeps_the_contract(backbone):
    size = (160, 160) if backbone == "test_vit" else (192, 224)
    check_encoder(Encoder(backbone, stage=1), size)


class Wrong(SoftAttention):
    """A correct implementation, of which a test breaks one part."""

    def forward(self, query, memory, t):
        return self.broken(super().forward(query, memory, t))


@pytest.mark.parametrize(
    ("law", "broken"),
    [
        ("weights", lambda g: g._replace(weights=2 * g.weights)),
        ("float32", lambda g: g._replace(weights=g.weights.double())),
        ("shapes", lambda g: g._replace(context=g.context[:, 1:])),
        ("masks", lambda g: g._replace(weights=torch.full_like(g.weights, 1 / g.weights.shape[1]))),
        ("order", lambda g: g._replace(weights=g.weights.cumsum(-1) * (g.weights > 0) / 100, context=0 * g.context)),
        ("images", lambda g: g._replace(context=g.context + g.context.mean())),
    ],
)
def test_a_broken_law_is_named(law, broken):
    kind = type("Mine", (Wrong,), {"broken": staticmethod(broken)})
    with pytest.raises(AssertionError, match=law):
        check_attention(kind)


def test_an_encoder_whose_cells_look_elsewhere_is_found():
    class Shifted(GridEncoder):
        def cell_shift(self, image_size):
            cells = super().cell_shift(image_size)
            return type(cells)((cells[0] + 5, cells[1]), cells.stride, cells.seen)

    with pytest.raises(AssertionError, match="places"):
        check_encoder(Shifted(nn.Sequential(nn.Conv2d(3, 7, 5, 4, 2), nn.Conv2d(7, 7, 3, padding=1)), 7))


def _module(name):
    """A module of the page's, imported."""
    import_classes(f"{name}.py")
    return sys.modules[name]


def test_a_file_that_is_no_python_file_is_one_sentence(tmp_path):
    path = tmp_path / "mechanism.txt"
    path.write_text("x = 1")
    with pytest.raises(InputError, match=r"must end in \.py"):
        import_classes(str(path))
    assert "mechanism" not in sys.modules


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file"),
        ("x = 1", "no class that visattn can use"),
        ("import absent_module", "ModuleNotFoundError"),
        ("def f(:", "SyntaxError"),
        ("raise ValueError('oh')", r"ValueError: oh \(bad.py, line 1\)"),
        ("from visattn.attention import SpatialAttention\nclass A(SpatialAttention): pass", "does not define keys"),
        (
            "from visattn.attention import SoftAttention\n"
            "class A(SoftAttention):\n    def __init__(self, q, d, size): super().__init__(q, d)",
            "'size'",
        ),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(text, said, tmp_path, capsys):
    path = tmp_path / "bad.py"
    if text is not None:
        path.write_text(text)
    for command in (["caption", "x.png"], ["fit", "--config", "shapes_captioner"]):
        assert main([*command, "--import", str(path)]) == 2
        error = capsys.readouterr().err
        assert re.search(said, error)
        assert error.count("error: ") == 1
        assert str(path) in error or "bad.A" in error
        sys.modules.pop("bad", None)


@pytest.mark.parametrize("name", ["absent.module", "not-a-module", "json"])
def test_a_module_s_name_that_is_of_no_use_is_one_sentence(name, capsys):
    assert main(["caption", "--import", name, "x.png"]) == 2
    assert f"--import {name}" in capsys.readouterr().err


def test_register_is_a_decorator_and_refuses_what_has_no_part():
    @visattn.register
    class Mine(SoftAttention):
        pass

    assert Mine in visattn.registry.registered("attention").values()
    with pytest.raises(InputError, match="must be a subclass of"):
        visattn.register(nn.Linear)
    with pytest.raises(InputError, match="does not define keys and forward"):
        visattn.register(type("Empty", (SpatialAttention,), {}))


def test_an_input_of_import_is_not_written_over(here, tmp_path, capsys):
    before = (here / "my_attention.py").read_bytes()
    words = ["--import", "my_attention.py", "--checkpoint", "captioner-shapes", "scene.png"]
    main(["caption", *words, "--output", "my_attention.py"])
    assert (here / "my_attention.py").read_bytes() == before


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps", "tpu", "nonsense"])
def test_a_device_that_is_not_there_is_one_sentence(device, tmp_path, capsys):
    if device.startswith("cuda") and torch.cuda.is_available() and device == "cuda":
        pytest.skip("there is one")
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is one")
    make_scene(np.random.default_rng(0), 1).picture(64).save(tmp_path / "a.png")
    for command in (["caption", "--checkpoint", "captioner-shapes"], ["overlay", "--checkpoint", "vit-cifar10"]):
        words = [*command, "--device", device, "--output", str(tmp_path / "out"), str(tmp_path / "a.png")]
        assert main(words) == 2
        assert f"--device is {device}" in capsys.readouterr().err


def test_bfloat16_captions_and_overlays_have_float32_maps_near_those_of_float32(tmp_path):
    make_scene(np.random.default_rng(0), 1).picture(64).save(tmp_path / "a.png")
    maps = {}
    for precision in ("32", "bf16"):
        words = ["--device", "cpu", "--precision", precision, "--export", "npz", str(tmp_path / "a.png")]
        out = tmp_path / precision
        assert main(["caption", "--checkpoint", "captioner-shapes", "--output", str(out / "c"), *words]) == 0
        assert main(["overlay", "--checkpoint", "vit-cifar10", "--output", str(out / "o"), *words]) == 0
        maps[precision] = [np.load(out / "c" / "a.npz")["alpha"][0], np.load(out / "o" / "a.npz")["rollout"]]
    for exact, rough in zip(*maps.values(), strict=True):
        assert rough.dtype == exact.dtype == np.float32
        np.testing.assert_allclose(rough, exact, atol=0.1 * exact.max())
