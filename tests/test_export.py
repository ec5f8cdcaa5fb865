import functools
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from visattn import registry
from visattn.attention import (
    DotScore,
    GeneralScore,
    HardAttention,
    LocationScore,
    MonotonicLocalAttention,
    MultiHeadAttention,
    PredictiveLocalAttention,
    ScaledDotScore,
    SoftAttention,
)
from visattn.cli import caption, export
from visattn.data.inputs import read_inputs
from visattn.data.shapes import make_scene
from visattn.decoding import Greedy
from visattn.errors import InputError
from visattn.export import ExportedCaptioner, ExportedClassifier, load_captioner, load_classifier
from visattn.export.blueprint import describe, read
from visattn.export.folder import DESCRIPTION, WEIGHTS, write_description, write_weights
from visattn.export.parity import compare_captioners
from visattn.models import Encoder, LSTMDecoder, LuongDecoder, Normalise, TransformerDecoder, VisionTransformer
from visattn.tasks import export as work
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import load_model
from visattn.training.classifier import Classifier
from visattn.vocabulary import SPECIALS, Vocabulary

ROOT = Path(__file__).parent.parent
WORDS = [*SPECIALS, "a", "dog", "cat", "on", "grass", "jumps", "red"]
SIZE = (32, 48)
VIT = {"patch": 8, "size": 30, "depth": 2, "heads": 5, "mlp_ratio": 2.0, "drop_path": 0.0}


def part(cls, **arguments):
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments}


def made(cls, **arguments):
    """A constructor of what `part` describes, without a line of the code that is tested."""
    inner = {"attention", "score"} & arguments.keys()
    classes = {c.__qualname__: c for c in (*MECHANISMS, *SCORES)}
    for name in inner:
        blueprint = arguments[name]
        cls_of = classes[blueprint["class_path"].rsplit(".", 1)[1]]
        arguments[name] = made(cls_of, **blueprint["init_args"])
    return functools.partial(cls, **arguments)


MECHANISMS = (
    SoftAttention,
    HardAttention,
    MonotonicLocalAttention,
    PredictiveLocalAttention,
    MultiHeadAttention,
)
SCORES = (DotScore, GeneralScore, LocationScore, ScaledDotScore)
DECODERS = {
    "Xu, soft": (LSTMDecoder, {"hidden": 17, "embedding": 19, "dropout": 0.5}),
    "Xu, hard, location": (
        LSTMDecoder,
        {
            "attention": part(HardAttention, score=part(LocationScore, places=29), evaluation="argmax"),
            "hidden": 17,
            "embedding": 19,
        },
    ),
    "Luong, hard, scaled dot": (
        LuongDecoder,
        {"attention": part(HardAttention, score=part(ScaledDotScore), evaluation="expected"), "hidden": 48},
    ),
    "Luong, local-m": (
        LuongDecoder,
        {"attention": part(MonotonicLocalAttention, window=1, stride=2), "hidden": 17, "embedding": 13},
    ),
    "Luong, placed": (LuongDecoder, {"hidden": 17, "embedding": 13, "placed": 20}),
    "Xu, local-p": (LSTMDecoder, {"attention": part(PredictiveLocalAttention, hidden=7), "hidden": 17}),
    "Xu, multi-head": (LSTMDecoder, {"attention": part(MultiHeadAttention, heads=3, size=15), "hidden": 17}),
    "Transformer": (TransformerDecoder, {"size": 20, "layers": 2, "heads": 5, "map_layer": 0}),
}


def captioner(name="Xu, soft"):
    """A captioner that has not learnt anything, with statistics in its norms that are not those of the constructor."""
    cls, arguments = DECODERS[name]
    torch.manual_seed(0)
    stage = "head" if cls is TransformerDecoder else 2
    encoder = Encoder("test_resnet", stage=stage, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.7), train_from=None)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    decoder = made(cls, **dict(arguments))(len(WORDS), encoder.size)
    parts = {
        "encoder": part(Encoder, backbone="test_resnet", stage=stage, options=None),
        "decoder": part(cls, **arguments),
    }
    return ExportedCaptioner(encoder.eval(), decoder.eval(), Vocabulary(WORDS), SIZE, "squash", 11, parts)


def classifier():
    torch.manual_seed(1)
    model = VisionTransformer(3, SIZE, **VIT).eval()
    torch.nn.init.normal_(model.head.weight)
    normalise = Normalise((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))
    return ExportedClassifier(
        normalise, model, ["b", "a", "c"], SIZE, "crop", {"model": part(VisionTransformer, **VIT)}
    )


def images(count=5, size=SIZE):
    return torch.from_numpy(np.random.default_rng(3).integers(0, 256, (count, 3, *size), dtype=np.uint8))


def written(folder, exported, dtype=torch.float32):
    folder.mkdir()
    write_weights(folder, exported, dtype)
    write_description(folder, exported)
    return folder


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_comes_back_bit_for_bit(name, tmp_path):
    ours = captioner(name)
    theirs = load_captioner(written(tmp_path / "model", ours))
    assert compare_captioners(ours, theirs, images()).within(0)
    assert theirs.describe() == {**ours.describe(), **theirs.parts}
    assert not theirs.decoder.training
    assert not theirs.encoder.training
    assert theirs.encoder.normalise.std.flatten().tolist() == torch.tensor([0.4, 0.5, 0.7]).tolist()
    assert (theirs.vocabulary.words, theirs.image_size, theirs.fit, theirs.max_length) == (WORDS, SIZE, "squash", 11)


def test_a_classifier_comes_back_bit_for_bit(tmp_path):
    ours = classifier()
    theirs = load_classifier(written(tmp_path / "model", ours))
    pixels = theirs.normalise(images())
    assert torch.equal(pixels, ours.normalise(images()))
    assert torch.equal(theirs.model(pixels), ours.model(pixels))
    assert (theirs.class_names, theirs.image_size, theirs.fit) == (["b", "a", "c"], SIZE, "crop")
    assert json.loads((tmp_path / "model" / DESCRIPTION).read_text())["mean"] == [0.4914, 0.4822, 0.4465]


def test_a_checkpoint_of_a_captioner_is_exported(captioner_checkpoint, tmp_path, capsys):
    output = tmp_path / "exported"
    assert export.main(["--checkpoint", str(captioner_checkpoint), "--output", str(output)]) == 0
    assert "8 of 8 the same; largest differences: annotation vectors 0, logits 0, alpha 0" in capsys.readouterr().out
    assert {path.name for path in output.iterdir()} == {DESCRIPTION, WEIGHTS}
    ours, theirs = load_model(captioner_checkpoint, Captioner), load_captioner(output)
    with torch.inference_mode():
        memory = theirs.decoder.prepare(*theirs.encoder(images(3, ours.image_size)))
        expected = ours.decoder.prepare(*ours.encoder(images(3, ours.image_size)))
        tokens = torch.tensor([[1, 5, 4, 7]] * 3)
        assert torch.equal(theirs.decoder(memory, tokens)[0], ours.decoder(expected, tokens)[0])
    assert str(captioner_checkpoint.parent) not in (output / DESCRIPTION).read_text()


def other_captioner(checkpoint, path, change=lambda state: None):
    """A captioner whose decoder has other weights than that of a checkpoint, and the same encoder."""
    stored = torch.load(checkpoint, weights_only=True)
    generator = torch.Generator().manual_seed(5)
    for name, tensor in stored["state_dict"].items():
        if name.startswith("decoder.") and tensor.is_floating_point():
            tensor += 0.3 * torch.randn(tensor.shape, generator=generator)
    change(stored)
    torch.save(stored, path)
    return path


def test_several_captioners_are_exported_as_an_ensemble(captioner_checkpoint, tmp_path):
    other, output = other_captioner(captioner_checkpoint, tmp_path / "other.ckpt"), tmp_path / "exported"
    both = [captioner_checkpoint, other]
    assert export.main(["--checkpoint", *map(str, both), "--output", str(output), "--dtype", "float32"]) == 0
    first, second = (load_model(path, Captioner) for path in both)
    found = load_model(output, Captioner)
    pixels, tokens = images(3, first.image_size), torch.tensor([[1, 5, 4, 7]] * 3)
    with torch.inference_mode():
        single = [m.decoder(m.decoder.prepare(*m.encoder(pixels)), tokens)[0].softmax(-1) for m in (first, second)]
        logits, _ = found.decoder(found.decoder.prepare(*found.encoder(pixels)), tokens)
    assert not torch.allclose(*single, atol=1e-2)
    torch.testing.assert_close(logits.exp(), (single[0] + single[1]) / 2)
    Image.fromarray(pixels[0].permute(1, 2, 0).numpy()).save(tmp_path / "scene.png")
    words = ["--checkpoint", str(output), "--output", str(tmp_path / "captions"), "--map", "relevance"]
    assert caption.main([*words, "--beam", "2", str(tmp_path / "scene.png")]) == 0
    again = ["--checkpoint", str(output), str(other), "--output", str(tmp_path / "three")]
    assert export.main(again) == 0  # an ensemble may be a member


def test_captioners_that_cannot_be_an_ensemble_are_refused(
    captioner_checkpoint, classifier_checkpoint, tmp_path, capsys
):
    def train_encoder(stored):
        name = next(name for name in stored["state_dict"] if name.startswith("encoder.") and name.endswith("weight"))
        stored["state_dict"][name] += 1.0

    def rename(stored):
        words = stored["hyper_parameters"]["output_names"]
        words[-1], words[-2] = words[-2], words[-1]

    trained = other_captioner(captioner_checkpoint, tmp_path / "trained.ckpt", train_encoder)
    renamed = other_captioner(captioner_checkpoint, tmp_path / "renamed.ckpt", rename)
    for other, said in (
        (trained, "encoders see an image differently"),
        (renamed, "differ in their words"),
        (classifier_checkpoint, "is not a captioner"),
        (captioner_checkpoint, "twice"),
    ):
        words = ["--checkpoint", str(captioner_checkpoint), str(other), "--output", str(tmp_path / "out")]
        assert export.main(words) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_exported_folder_captions_as_its_checkpoint(captioner_checkpoint, tmp_path):
    folder, found = tmp_path / "exported", {}
    assert export.main(["--checkpoint", str(captioner_checkpoint), "--output", str(folder)]) == 0
    pixels = images(1, (53, 71))[0].permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    for name, model in (("ours", captioner_checkpoint), ("theirs", folder)):
        words = [str(tmp_path / "scene.png"), "--checkpoint", str(model), "--output", str(tmp_path / name)]
        assert caption.main([*words, "--decode", "beam", "--export", "npz"]) == 0
        with np.load(tmp_path / name / "scene.npz") as arrays:
            found[name] = dict(arrays)
    assert found["ours"].keys() == found["theirs"].keys()
    for key, value in found["ours"].items():
        np.testing.assert_array_equal(found["theirs"][key], value)
    assert (
        caption.main([str(tmp_path / "scene.png"), "--checkpoint", "vit-cifar10", "--output", str(tmp_path / "no")])
        == 2
    )


def decoded(model, folder, *options):
    """Words and log-probabilities of a scene's caption."""
    folder.mkdir()
    make_scene(np.random.default_rng(3), 2).picture(64).save(folder / "scene.png")
    words = [
        str(folder / "scene.png"),
        "--checkpoint",
        str(model),
        "--output",
        str(folder),
        "--export",
        "npz",
        *options,
    ]
    assert caption.main(words) == 0
    with np.load(folder / "scene.npz") as arrays:
        return arrays["words"].tolist(), arrays["log_probs"].tolist()


DECODING = ["--beam", "7", "--length-penalty", "0.3", "--no-repeat", "1", "--max-length", "11"]


def test_decoding_options_are_exported_and_may_be_overridden(tmp_path):
    folder = tmp_path / "exported"
    assert export.main(["--checkpoint", "captioner-shapes", "--output", str(folder), *DECODING]) == 0
    greedily = decoded("captioner-shapes", tmp_path / "greedy")
    asked = decoded("captioner-shapes", tmp_path / "asked", *DECODING)
    assert asked != greedily
    assert decoded(folder, tmp_path / "own") == asked
    back = ["--decode", "greedy", "--no-repeat", "0", "--max-length", "25"]
    assert decoded(folder, tmp_path / "over", *back) == greedily
    model = load_captioner(folder).model()
    assert (model.search.width, model.search.length_penalty, model.no_repeat, model.max_length) == (7, 0.3, 1, 11)
    again = tmp_path / "again"  # from the folder, without options
    assert export.main(["--checkpoint", str(folder), "--output", str(again)]) == 0
    assert (again / DESCRIPTION).read_text() == (folder / DESCRIPTION).read_text()


def test_options_of_a_search_that_are_left_out_are_the_checkpoints(tmp_path):
    folder = tmp_path / "exported"
    assert export.main(["--checkpoint", "captioner-shapes", "--output", str(folder), *DECODING]) == 0
    for n, (options, expected) in enumerate(
        (
            (["--length-penalty", "1.5"], ("BeamSearch", {"size": 7, "length_penalty": 1.5, "best": 1})),
            (["--beam", "3"], ("BeamSearch", {"size": 3, "length_penalty": 0.3, "best": 1})),
            (["--decode", "beam"], ("BeamSearch", {"size": 7, "length_penalty": 0.3, "best": 1})),
            (["--decode", "sample", "--top-k", "2"], ("Sampling", {"top_k": 2})),
        )
    ):
        again = tmp_path / str(n)
        assert export.main(["--checkpoint", str(folder), "--output", str(again), *options]) == 0
        search = json.loads((again / DESCRIPTION).read_text())["search"]
        assert (search["class_path"].rsplit(".")[-1], search["init_args"]) == expected
    whole = [*DECODING, "--n-best", "9", "--beam", "9"]
    asked = decoded("captioner-shapes", tmp_path / "asked", *whole)
    assert decoded(folder, tmp_path / "nine", "--n-best", "9") == asked  # the beam grows to hold them


def test_the_search_of_training_is_exported(captioner_checkpoint, tmp_path):
    checkpoint = torch.load(captioner_checkpoint, weights_only=True)
    sampling = {"class_path": "visattn.decoding.Sampling", "init_args": {"count": 3, "top_p": 0.9}}
    checkpoint["hyper_parameters"] |= {"search": sampling, "no_repeat": 2}
    torch.save(checkpoint, tmp_path / "best.ckpt")
    words = ["--checkpoint", str(tmp_path / "best.ckpt"), "--output", str(tmp_path / "exported")]
    assert export.main(words) == 0
    model = load_captioner(tmp_path / "exported").model()
    assert (model.search.best, model.search.top_p, model.no_repeat) == (3, 0.9, 2)
    decoded(tmp_path / "best.ckpt", tmp_path / "captions", "--top-k", "1")
    (entry,) = json.loads((tmp_path / "captions" / "captions.json").read_text())
    assert len(entry["captions"]) == 3  # as in training, and all alike
    assert len({said["caption"] for said in entry["captions"]}) == 1


def test_folders_without_a_search_decode_greedily(good):
    assert "search" not in json.loads((good / DESCRIPTION).read_text())
    model = load_captioner(good).model()
    assert (type(model.search), model.no_repeat) == (Greedy, 0)


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("captioner-shapes", ["--beam", "0"], "beam's size is 0"),
        ("captioner-shapes", ["--length-penalty", "1"], "--length-penalty needs --decode beam"),
        ("captioner-shapes", ["--no-repeat", "-1"], "--no-repeat is -1"),
        ("captioner-shapes", ["--beam", "2", "--caution", "0.2"], "caution needs a captioner whose words are English"),
        ("vit-cifar10", ["--beam", "3"], "are for captioners"),
    ],
)
def test_decoding_options_that_cannot_be_used(model, options, said, tmp_path, capsys):
    assert export.main(["--checkpoint", model, "--output", str(tmp_path / "exported"), *options]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "exported").exists()


def test_a_checkpoint_of_a_classifier_is_exported(classifier_checkpoint, tmp_path):
    assert export.main(["--checkpoint", str(classifier_checkpoint), "--output", str(tmp_path / "exported")]) == 0
    ours, theirs = load_model(classifier_checkpoint, Classifier), load_classifier(tmp_path / "exported")
    pictures = images(3, ours.image_size)
    with torch.inference_mode():
        assert torch.equal(theirs.model(theirs.normalise(pictures)), ours(pictures))


def example(number):
    """A program from docs/export.md."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), flags=re.S)[number]


def run_without(modules, program, *args):
    """What a program prints where some modules cannot be imported."""
    block = f"import sys\nfor name in {modules!r}: sys.modules[name] = None\n"
    command = [sys.executable, "-c", block + program, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_example_captions_a_photograph_without_lightning(captioner_checkpoint, photographs, tmp_path):
    output = tmp_path / "exported"
    assert export.main(["--checkpoint", str(captioner_checkpoint), "--output", str(output)]) == 0
    model = load_model(captioner_checkpoint, Captioner)
    (item,) = read_inputs([photographs / "turned.jpg"], model.image_size, model.fit)
    ((caption,),) = model.caption(item.tensor.unsqueeze(0))
    blocked = ["lightning", "pytorch_lightning", "lightning_fabric", "jsonargparse", "onnx", "onnxruntime"]
    assert run_without(blocked, example(0), output, item.path) == " ".join(caption.words)


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float16, 11), (torch.bfloat16, 8)])
def test_half_precision_halves_the_file_and_rounds_the_weights(dtype, bits, tmp_path):
    ours = captioner()
    half, whole = written(tmp_path / "half", ours, dtype), written(tmp_path / "whole", ours)
    assert (half / WEIGHTS).stat().st_size < 0.6 * (whole / WEIGHTS).stat().st_size
    theirs = load_captioner(half)
    for name, value in ours.weights.state_dict().items():
        back = theirs.weights.state_dict()[name]
        assert back.dtype == value.dtype
        assert torch.equal(back, value.to(dtype).to(value.dtype) if value.is_floating_point() else value)
    parity = compare_captioners(ours, theirs, images())
    assert 0 < parity.differences["logits"] < 30 * 2.0**-bits


def test_what_float16_cannot_hold_is_refused_and_nothing_is_left(tmp_path):
    ours = captioner()
    ours.decoder.out.bias.data[5] = 70000.0
    with pytest.raises(InputError, match=r"decoder\.out\.bias .*7e\+04.*bfloat16"):
        work.export(ours, tmp_path / "out", images(), torch.float16)
    assert list(tmp_path.iterdir()) == []
    work.export(ours, tmp_path / "out", images(), torch.bfloat16)


def test_tensors_that_are_shared_or_views_are_kept(tmp_path):
    ours = captioner("Luong, local-m")
    ours.decoder.out = torch.nn.Linear(17, len(WORDS))
    ours.decoder.gates_of_word.weight = torch.nn.Parameter(torch.randn(13, 4 * 17).T)  # a view: not in one piece
    ours.decoder.init_cell.weight = ours.decoder.init_hidden.weight
    theirs = load_captioner(written(tmp_path / "model", ours))
    assert compare_captioners(ours, theirs, images()).within(0)


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    work.export(classifier(), tmp_path / "out", images())  # an empty one will do
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(InputError, match="is not empty; choose another --output"):
        work.export(classifier(), tmp_path / "out", images())
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(work, "load_classifier", lambda folder: classifier()._replace(normalise=Normalise()))
    with pytest.raises(RuntimeError, match=r"5 of 5 the same; .*logits 0\.5"):
        work.export(classifier(), tmp_path / "out", images())
    assert list(tmp_path.iterdir()) == []


class Grouped(LSTMDecoder):
    """A decoder of somebody else, whose members are numbers."""

    def __init__(self, vocabulary_size, value_size, members=(1,)):
        super().__init__(vocabulary_size, value_size, hidden=7, embedding=5)
        self.members = list(members)


def test_an_argument_with_the_name_of_an_ensembles_may_be_plain(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {role: dict(known) for role, known in registry._registered.items()})
    registry.register(Grouped)
    for members in ([2, 3], []):
        blueprint = describe("decoder", part(Grouped, members=members))
        assert read("decoder", blueprint)(len(WORDS), 11).members == members


def test_classes_of_others_are_not_exported():
    with pytest.raises(InputError, match=r"its score is 'mine\.Score', .*--import"):
        work.describe("attention", part(SoftAttention, score={"class_path": "mine.Score", "init_args": {}}))


def edit(folder, change):
    """Change a description, as an attacker would, and update the checksums."""
    described = json.loads((folder / DESCRIPTION).read_text())
    change(described)
    (folder / DESCRIPTION).write_text(json.dumps(described))


def put(*path):
    """A change that puts the last of these at the keys before it."""
    *keys, last, value = path

    def change(described):
        functools.reduce(dict.__getitem__, keys, described)[last] = value

    return change


HOSTILE = {
    "another format": (put("format", 2), "not of format 1"),
    "another kind": (put("kind", "classifier"), "describes a 'classifier', but a 'captioner' is needed here"),
    "an unknown key": (put("pickle", "x"), "has an unknown key 'pickle'"),
    "a missing key": (lambda d: d.pop("fit"), "has no key 'fit'"),
    "a wrong fit": (put("fit", "stretch"), "fit must be one of crop, pad, squash"),
    "a wrong size": (put("image_size", [32, -48]), "image_size must be height and width in pixels"),
    "no number": (put("std", [0.4, float("nan"), 0.7]), "std must be three numbers above 0"),
    "a word twice": (put("vocabulary", [*WORDS, "dog"]), "the word 'dog' occurs twice"),
    "no special tokens": (put("vocabulary", WORDS[4:]), "a vocabulary must begin with <pad>"),
    "another search": (put("search", {"class_path": "os.system"}), "its search is 'os.system'"),
    "no beam": (put("search", {"class_path": "visattn.decoding.BeamSearch", "init_args": {"size": 0}}), "size is 0"),
    "no search": (put("search", "beam"), "search must be null or an object"),
    "less than no repeat": (put("no_repeat", -1), "no_repeat must be a number of words, or 0"),
    "a function": (put("decoder", "class_path", "os.system"), "its decoder is 'os.system'"),
    "a class elsewhere": (put("encoder", "class_path", "torch.nn.Linear"), "its encoder is 'torch.nn.Linear'"),
    "a class of another part": (put("decoder", "class_path", "visattn.models.Encoder"), "its decoder is"),
    "a function within": (
        put("decoder", "init_args", "attention", {"class_path": "os.system", "init_args": {"command": "id"}}),
        "its attention is 'os.system'",
    ),
    "a path": (put("encoder", "init_args", "weights", "/etc/passwd"), "an argument 'weights', which Encoder does not"),
    "a checkpoint": (
        put("encoder", "init_args", "options", {"checkpoint_path": "evil.pt"}),
        "its encoder has the option 'checkpoint_path', which an exported model may not have",
    ),
    "a download": (
        put("encoder", "init_args", "options", {"pretrained": True}),
        "its encoder has the option 'pretrained'",
    ),
    "a hub": (
        put("encoder", "init_args", "backbone", "hf-hub:some/one"),
        "timm has no backbone named 'hf-hub:some/one'",
    ),
    "an unknown argument": (put("decoder", "init_args", "hook", "x"), "'hook', which LSTMDecoder does not take"),
    "not a plain value": (
        put("decoder", "init_args", "hidden", {"a": 1}),
        "the argument hidden of its decoder is not a plain",
    ),
    "a wrong type": (put("decoder", "init_args", "hidden", "many"), "does not describe a model"),
    "no part": (put("decoder", {"type": "LSTMDecoder"}), "its decoder must be an object with class_path"),
    "another size": (
        put("decoder", "init_args", "embedding", 23),
        r"decoder\.embedding\.weight as \(11, 19\) torch\.float32, but its model as \(11, 23\)",
    ),
    "an absurd size": (put("decoder", "init_args", "hidden", 2_000_000), r"as \(.*\) torch\.float32, but its model as"),
    "another decoder": (
        lambda d: d["decoder"].update(class_path="visattn.models.LuongDecoder"),
        r"lacks decoder\.attentional\.weight, which its model has",
    ),
    "another grid": (put("grid", [3, 4]), r"its encoder produces a grid of \[4, 6\], not \[3, 4\]"),
    "no sums": (put("files", {}), "was exported without model.safetensors"),
    "another sum": (put("files", WEIGHTS, "0" * 64), "is not the exported file: its SHA-256 differs"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return written(tmp_path_factory.mktemp("good") / "model", captioner())


@pytest.mark.parametrize("name", HOSTILE)
def test_a_description_that_is_wrong_is_named(name, good, tmp_path):
    change, sentence = HOSTILE[name]
    for path in good.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    edit(tmp_path, change)
    with pytest.raises(InputError, match=sentence) as error:
        load_captioner(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def damage_weights(folder, change):
    """Change the tensors of a weights file, its sum made good."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    seal(folder)


def seal(folder):
    edit(folder, put("files", WEIGHTS, hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()))


def test_weights_that_are_wrong_are_named(good, tmp_path):
    for path in good.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole, file = (good / WEIGHTS).read_bytes(), tmp_path / WEIGHTS
    for content in (whole[:-3], whole[:100], b"", whole[:-1] + b"\x00\x01", bytes([whole[0] ^ 1]) + whole[1:]):
        file.write_bytes(content)
        with pytest.raises(InputError, match=rf"{WEIGHTS} \({len(content)} bytes\) is not"):
            load_captioner(tmp_path)
    for content in (whole[:-3], whole[:100], b"", b"\xff" * 64):  # with its sum made good
        file.write_bytes(content)
        seal(tmp_path)
        with pytest.raises(InputError, match=f"{WEIGHTS} is damaged"):
            load_captioner(tmp_path)
    name = "decoder.out.bias"
    for change, sentence in (
        (lambda t: t.pop(name), f"lacks {name}, which its model has"),
        (lambda t: t.update(more=torch.zeros(3)), "has more, which its model lacks"),
        (
            lambda t: t.update({name: torch.zeros(13)}),
            rf"has {name} as \(13,\) torch.float32, but its model as \(11,\)",
        ),
        (lambda t: t.update({name: torch.zeros(11, dtype=torch.long)}), rf"has {name} as \(11,\) torch.int64"),
    ):
        file.write_bytes(whole)
        damage_weights(tmp_path, change)
        with pytest.raises(InputError, match=sentence):
            load_captioner(tmp_path)
    file.unlink()
    with pytest.raises(InputError, match=f"no .*{WEIGHTS}.*{DESCRIPTION}"):
        load_captioner(tmp_path)


def test_a_description_that_is_missing_or_damaged_is_named(good, tmp_path):
    with pytest.raises(InputError, match=f"no .*{DESCRIPTION}; visattn export"):
        load_captioner(tmp_path)
    for content in (b"", b"{", (good / DESCRIPTION).read_bytes()[:-40], b"\xff\xfe", b"[" * 100_000):
        (tmp_path / DESCRIPTION).write_bytes(content)
        with pytest.raises(InputError, match=f"{DESCRIPTION} is damaged"):
            load_captioner(tmp_path)
    (tmp_path / DESCRIPTION).write_text("[1]")
    with pytest.raises(InputError, match="not of format 1"):
        load_captioner(tmp_path)


def test_the_program_says_what_is_wrong(captioner_checkpoint, tmp_path, capsys):
    checkpoint = ["--checkpoint", str(captioner_checkpoint)]
    output = ["--output", str(tmp_path / "out")]
    for args, sentence in (
        ([*checkpoint, *output, "--format", "onnx", "--dtype", "float16"], "use --format both"),
        ([*checkpoint, *output, "--format", "onnx", "--encoder-weights", "pretrained"], "--encoder-weights concerns"),
        ([*checkpoint, *output, "--maps"], "--maps is for the ONNX graph of a classifier"),
        ([*checkpoint, *output, "--places", "argmax"], "has no hard attention; leave out --places"),
        (["--checkpoint", str(tmp_path / "none.ckpt"), *output], "there is no checkpoint"),
        ([*checkpoint, *output, "--images", str(tmp_path / "none.jpg")], "no such image"),
    ):
        assert export.main(args) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_places_of_hard_attention_are_written(hard_checkpoint, tmp_path):
    arguments = ["--checkpoint", str(hard_checkpoint), "--output", str(tmp_path / "out"), "--places", "expected"]
    assert export.main(arguments) == 0
    model = load_captioner(tmp_path / "out")
    assert model.decoder.attention.evaluation == "expected"
    memory = model.decoder.prepare(*model.encoder(images(2, model.image_size)))
    seen = model.decoder(memory, torch.tensor([[1, 4], [1, 5]]))[1]
    assert torch.equal(seen.focus, seen.weights)


def test_images_of_a_user_are_compared_on(captioner_checkpoint, photographs):
    exported = work.parts_of(captioner_checkpoint)
    found = work.comparison_images(exported, [photographs])
    assert found.shape == (2, 3, *exported.image_size)
    assert len(work.comparison_images(exported, [])) == 8
