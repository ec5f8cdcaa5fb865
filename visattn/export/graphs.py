"""ONNX graphs: encoder, preparation and decoding step of a captioner; a classifier. Needs the extra `onnx`.

All take batches of any size, of images of the model's input size. docs/export.md lists inputs and outputs.
"""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor, nn

from visattn.attention import HardAttention, Memory
from visattn.errors import InputError, install
from visattn.export.folder import ExportedCaptioner, ExportedClassifier
from visattn.export.states import StateTensors, state_tensors
from visattn.files import write_bytes
from visattn.models import Decoder, Normalise, VisionTransformer

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
ENCODER, PREPARE, STEP, CLASSIFIER = "encoder.onnx", "prepare.onnx", "step.onnx", "classifier.onnx"
_BATCH, _WORDS = 2, 3  # of the examples; PyTorch's exporter treats axes of size 0 or 1 as fixed

Tensors = dict[str, Tensor]


def check_installed() -> None:
    """Raise an `InputError` if the packages for writing and running graphs are not installed."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise InputError(f"ONNX needs {', '.join(missing)}: {install('onnx')}")


def write_captioner_graphs(folder: Path, exported: ExportedCaptioner) -> None:
    """Write the graphs of the encoder, of the decoder's preparation (once per image), and of one decoding step.

    Raises:
        InputError: if the packages are missing, or attention samples.
    """
    check_installed()
    encoder, size = exported.encoder, exported.image_size
    write_decoder_graphs(folder, exported.decoder, encoder.size, encoder.grid(size))
    _write(folder / ENCODER, _Encode(encoder), {"images": torch.zeros(_BATCH, 3, *size, dtype=torch.uint8)})


def write_decoder_graphs(folder: Path, decoder: Decoder, value_size: int, grid: tuple[int, int]) -> None:
    """Write the graphs of preparation (once per image) and one decoding step, for a fixed size and grid of vectors.

    Raises:
        InputError: if the packages are missing, or attention samples.
    """
    check_installed()
    states = state_tensors(decoder)
    if any(isinstance(m, HardAttention) and m.evaluation == "sample" for m in decoder.modules()):
        raise InputError("its hard attention samples places, which a graph cannot do; give --places argmax or expected")
    values = {"values": torch.zeros(_BATCH, grid[0] * grid[1], value_size)}
    start = _write(folder / PREPARE, _Prepare(decoder, states, grid), values)
    kind = type(decoder.prepare(values["values"], grid))
    for name, axis in states.growing.items():
        shape = list(start[name].shape)
        shape[axis] = _WORDS
        start[name] = start[name].new_zeros(shape)
    token = {"token": torch.zeros(_BATCH, dtype=torch.long)}
    looked_at = {} if "placed" in start else values
    _write(folder / STEP, _Step(decoder, states, grid, kind), {**token, **looked_at, **start}, states.growing)


def write_classifier_graph(folder: Path, exported: ExportedClassifier, maps: bool = False) -> None:
    """Write the classifier's graph.

    Args:
        folder: the output folder.
        exported: the model.
        maps: also output the attention weights of each block.

    Raises:
        InputError: if the packages are missing, or it is a glimpse model.
    """
    check_installed()
    if not isinstance(exported.model, VisionTransformer):
        raise InputError(
            "ONNX graphs are for captioners and Vision Transformers; export a glimpse model as safetensors"
        )
    images = {"images": torch.zeros(_BATCH, 3, *exported.image_size, dtype=torch.uint8)}
    module = (_ClassifyWithMaps if maps else _Classify)(exported.normalise, exported.model)
    _write(folder / CLASSIFIER, module, images)


class _Encode(nn.Module):
    """Images (B, 3, h, w) uint8 to annotation vectors (B, L, D)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, given: Tensors) -> Tensors:
        return {"values": self.encoder(given["images"]).values}


class _Prepare(nn.Module):
    """Annotation vectors to the rest of the memory and the initial state."""

    def __init__(self, decoder: Decoder, states: type[StateTensors], grid: tuple[int, int]) -> None:
        super().__init__()
        self.decoder, self.states, self.grid = decoder, states, grid

    def forward(self, given: Tensors) -> Tensors:
        memory = self.decoder.prepare(given["values"], self.grid)
        more = {name: getattr(memory, name) for name in _further(type(memory))}
        placed = {} if memory.values is given["values"] else {"placed": memory.values}
        return {"keys": memory.keys, **more, **placed, **self.states.pack(self.decoder.init(memory))}


class _Step(_Prepare):
    """A word, the memory (of class `kind`) and the state to logits, glimpse and next state."""

    def __init__(self, decoder: Decoder, states: type[StateTensors], grid: tuple[int, int], kind: type[Memory]) -> None:
        super().__init__(decoder, states, grid)
        self.kind = kind

    def forward(self, given: Tensors) -> Tensors:
        values = given["placed"] if "placed" in given else given["values"]
        more = {name: given[name] for name in _further(self.kind)}
        memory = self.kind(values, given["keys"], self.grid, **more)
        logits, glimpse, state = self.decoder.step(self.states.unpack(given, memory), given["token"])
        seen = {"alpha": glimpse.weights, "focus": glimpse.focus, "beta": glimpse.gate}
        return {"logits": logits, **seen, **{f"next_{name}": x for name, x in self.states.pack(state).items()}}


def _further(kind: type[Memory]) -> list[str]:
    """Names of the fields that a mechanism's memory has in addition to `Memory`."""
    return [field.name for field in fields(kind)[len(fields(Memory)) :]]


class _Classify(nn.Module):
    """Images (B, 3, h, w) uint8 to logits (B, classes)."""

    def __init__(self, normalise: Normalise, model: VisionTransformer) -> None:
        super().__init__()
        self.normalise, self.model = normalise, model

    def forward(self, given: Tensors) -> Tensors:
        return {"logits": self.model(self.normalise(given["images"]))}


class _ClassifyWithMaps(_Classify):
    """Also outputs the attention weights of each block, (B, depth, heads, 1 + L, 1 + L)."""

    def forward(self, given: Tensors) -> Tensors:
        logits, attention = self.model.with_weights(self.normalise(given["images"]))
        return {"logits": logits, "attention": torch.stack(attention, dim=1)}


@torch.no_grad()
def _write(path: Path, module: nn.Module, inputs: Tensors, growing: dict[str, int] | None = None) -> Tensors:
    """Write a module's graph for any batch size, including its weights; returns the outputs for the example.

    Args:
        path: of the file.
        module: takes and returns tensors by name; their first axis is the batch, except for scalars.
        inputs: an example.
        growing: inputs with an axis over the words so far, and that axis.
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    growing = growing or {}
    batch, words = torch.export.Dim("batch"), torch.export.Dim("words")
    axes = {
        name: ({0: batch} if x.ndim else {}) | ({growing[name]: words} if name in growing else {})
        for name, x in inputs.items()
    }
    outputs = module.eval()(inputs)
    with _quiet():
        program = torch.onnx.export(
            module,
            kwargs={"given": inputs},
            dynamic_shapes={"given": axes},
            input_names=list(inputs),
            output_names=list(outputs),
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # it is where the exporter writes no file itself
    for value, (name, x) in zip(program.model.graph.outputs, outputs.items(), strict=True):
        axis = growing.get(name.removeprefix("next_"))  # replaces the exporter's names of these axes
        value.shape = type(value.shape)(
            "batch" if i == 0 else "words + 1" if i == axis else n for i, n in enumerate(x.shape)
        )
    ClearMetadataAndDocStringPass()(program.model)  # source locations on this machine
    write_bytes(path, program.model_proto.SerializeToString())
    return outputs


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the messages of PyTorch's exporter."""
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
