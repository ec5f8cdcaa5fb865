import functools
import json
import re
import sys

import numpy as np
import pytest
import torch
from test_export import captioner, classifier, example, images, run_without

from visattn.attention import (
    AdditiveScore,
    GeneralScore,
    HardAttention,
    MonotonicLocalAttention,
    MultiHeadAttention,
    PredictiveLocalAttention,
    SoftAttention,
    WholeAttention,
)
from visattn.cli import export
from visattn.data.inputs import read_inputs
from visattn.decoding import BeamSearch, decode
from visattn.errors import InputError
from visattn.export.graphs import PACKAGES, PREPARE, STEP, write_decoder_graphs
from visattn.models import LSTMDecoder, LuongDecoder, TransformerDecoder
from visattn.tasks import export as work
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import load_model

for package in PACKAGES:
    pytest.importorskip(package, reason="the extra 'onnx' is not installed")

from visattn.export.runtime import Graph, GraphDecoder, load_captioner_graphs, load_classifier_graph  # noqa: E402

WORDS, DEPTH, GRID = 23, 13, (5, 7)
partial = functools.partial
LSTM, LUONG = partial(LSTMDecoder, hidden=17, embedding=19), partial(LuongDecoder, hidden=17, embedding=19)
DECODERS = {
    "Xu, soft, additive": partial(LSTM, attention=partial(SoftAttention, score=partial(AdditiveScore, hidden=11))),
    "Luong, hard, general": partial(LUONG, attention=partial(HardAttention, score=GeneralScore)),
    "Luong, local-m": partial(LUONG, attention=partial(MonotonicLocalAttention, score=GeneralScore)),
    "Xu, local-p": partial(LSTM, attention=partial(PredictiveLocalAttention, window=2, hidden=3)),
    "Xu, multi-head": partial(LSTM, attention=partial(MultiHeadAttention, heads=3, size=15)),
    "Luong, placed": partial(LUONG, placed=20),
    "Luong, learned initial state": partial(LUONG, initial_state="learned", input_feeding=False),
    "Luong, whole": partial(LUONG, attention=WholeAttention),
    "Transformer": partial(TransformerDecoder, size=20, layers=2, heads=5, map_layer=0),
}


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_the_graphs_of_a_decoder_are_the_decoder(name, tmp_path):
    torch.manual_seed(2)
    ours = DECODERS[name](WORDS, DEPTH).eval()
    write_decoder_graphs(tmp_path, ours, DEPTH, GRID)
    theirs = GraphDecoder(*(Graph((tmp_path / file).read_bytes(), tmp_path / file) for file in (PREPARE, STEP)))
    for count in (1, 3):  # neither is the size of the example that the graph was made with
        values = torch.randn(count, GRID[0] * GRID[1], DEPTH)
        memory, their_memory = (decoder.prepare(values, GRID) for decoder in (ours, theirs))
        tokens = torch.randint(4, WORDS, (count, 9))
        (logits, seen), (their_logits, their_seen) = ours(memory, tokens), theirs(their_memory, tokens)
        torch.testing.assert_close(their_logits, logits, atol=1e-5, rtol=0)
        for part in ("weights", "focus", "gate"):
            torch.testing.assert_close(getattr(their_seen, part), getattr(seen, part), atol=1e-5, rtol=0)
        for search in (None, BeamSearch(3)):
            a, b = decode(ours, memory, search, 8), decode(theirs, their_memory, search, 8)
            assert a.tokens.tolist() == b.tokens.tolist()
            torch.testing.assert_close(b.weights, a.weights, atol=1e-5, rtol=0)


def test_a_captioner_is_exported_and_the_example_captions_without_pytorch(
    captioner_checkpoint, photographs, tmp_path, capsys
):
    output, arguments = tmp_path / "exported", ["--checkpoint", str(captioner_checkpoint), "--format", "both"]
    assert export.main([*arguments, "--output", str(output), "--images", str(photographs)]) == 0
    out = capsys.readouterr().out
    assert "ONNX: captions: 2 of 2 the same; largest differences: annotation vectors " in out
    described = json.loads((output / "model.json").read_text())
    files = {"encoder.onnx", "prepare.onnx", "step.onnx", "model.safetensors"}
    assert set(described["files"]) == files == {path.name for path in output.iterdir()} - {"model.json"}
    model = load_model(captioner_checkpoint, Captioner)
    (item,) = read_inputs([photographs / "turned.jpg"], model.image_size, model.fit)
    ((caption,),) = model.caption(item.tensor.unsqueeze(0))
    blocked = ["torch", "torchvision", "timm", "lightning", "visattn", "onnx", "onnxscript", "safetensors"]
    assert run_without(blocked, example(1), output, item.path) == " ".join(caption.words)

    step = output / "step.onnx"
    graph = Graph(step.read_bytes(), step)
    takes, gives = graph.inputs, graph.outputs
    assert takes["token"] == ["batch"]
    assert takes["placed"] == ["batch", 64, 96]
    assert takes["hidden"] == gives["next_hidden"] == ["batch", 128]
    assert takes["t"] == gives["next_t"] == []
    assert gives["logits"] == ["batch", len(model.vocabulary)]
    assert gives["alpha"] == gives["focus"] == ["batch", 64]
    assert gives["beta"] == ["batch"]
    for file in files:
        assert not re.search(rb"[a-z_]{4}\.py", (output / file).read_bytes())  # of the machine that it was made on
    step.write_bytes(step.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"step\.onnx .* is not the exported file"):
        load_captioner_graphs(output)
    with pytest.raises(InputError, match=r"step\.onnx .*onnxruntime"):
        Graph(step.read_bytes()[: len(step.read_bytes()) // 2], step)


def test_the_graph_of_a_classifier_is_the_classifier(tmp_path):
    ours = classifier()
    found = work.export(ours, tmp_path / "out", images(), weights=None, onnx=True, maps=True)
    assert found["ONNX"].within(1e-4)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"classifier.onnx", "model.json"}
    with pytest.raises(InputError, match=r"was exported without model\.safetensors"):
        work.load_classifier(tmp_path / "out")
    graph = load_classifier_graph(tmp_path / "out")
    given = graph({"images": images(7).numpy()})
    pixels = ours.normalise(images(7))
    np.testing.assert_allclose(given["logits"], ours.model(pixels).detach().numpy(), atol=1e-4)
    np.testing.assert_allclose(given["attention"], ours.model.attention_maps(pixels).detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(given["attention"].sum(-1), 1, atol=1e-5)


def test_graphs_that_are_not_the_model_are_not_kept(tmp_path):
    sentence = r"more than 1e-12 and were not kept: 5 of 5 the same; .*: logits [^,]*; try other"
    with pytest.raises(InputError, match=sentence):
        work.export(classifier(), tmp_path / "out", images(), onnx=True, tolerance=1e-12)
    assert list(tmp_path.iterdir()) == []


def test_attention_that_draws_and_packages_that_are_missing_are_named(tmp_path, monkeypatch):
    ours = captioner("Luong, hard, scaled dot")
    ours.decoder.attention.evaluation = "sample"
    with pytest.raises(InputError, match=r"hard attention samples.*--places argmax"):
        work.export(ours, tmp_path / "out", images(), onnx=True)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    find_spec = work.check_installed.__globals__["importlib"].util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else find_spec(name))
    with pytest.raises(InputError, match=r"onnxscript.*pip install 'visattn\[onnx\]'"):
        work.export(ours, tmp_path / "out", images(), onnx=True)
    assert list(tmp_path.iterdir()) == []
