"""Running exported graphs in onnxruntime. Needs the extra `onnx`."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from visattn.attention import Glimpse, Memory
from visattn.errors import InputError
from visattn.export.description import read_description, read_file
from visattn.export.folder import ExportedCaptioner, build
from visattn.export.graphs import CLASSIFIER, ENCODER, PREPARE, STEP
from visattn.models import Annotations, Decoder
from visattn.vocabulary import Vocabulary

Arrays = dict[str, np.ndarray]


class Graph:
    """An ONNX graph on the CPU: arrays by name to arrays by name.

    Attributes:
        inputs: names and shapes of the inputs; dynamic axes have a name instead of a size.
        outputs: names and shapes of the outputs.

    Raises:
        InputError: if the file is not a graph.
    """

    def __init__(self, content: bytes, path: Path) -> None:
        try:
            self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise InputError(f"{path} is not a graph that onnxruntime can run: {str(error)[:200]}") from error
        self.inputs, self.outputs = (
            {value.name: value.shape for value in values}
            for values in (self._session.get_inputs(), self._session.get_outputs())
        )

    def __call__(self, arrays: Arrays) -> Arrays:
        """The outputs by name; arrays that are not inputs are ignored."""
        outputs = self._session.run(None, {name: arrays[name] for name in self.inputs})
        return dict(zip(self.outputs, outputs, strict=True))


class GraphEncoder(nn.Module):
    """`encoder.onnx` as an encoder."""

    def __init__(self, graph: Graph, grid: tuple[int, int]) -> None:
        super().__init__()
        self._graph, self._grid = graph, grid

    def forward(self, images: Tensor) -> Annotations:
        """Images (B, 3, h, w) uint8 to annotation vectors (B, L, D) and their grid."""
        return Annotations(torch.from_numpy(self._graph({"images": images.numpy()})["values"]), self._grid)


class GraphState(NamedTuple):
    """The decoder's state: the graph's arrays, with one row per caption, and the memory.

    Attributes:
        arrays: inputs of a step other than the word: annotation vectors, keys and others that depend only on the image,
            and the state.
        memory: of the images.
    """

    arrays: Arrays
    memory: Memory

    def rows(self, captions: Tensor, images: Tensor | None = None) -> "GraphState":
        """See `Decoder.init`; here every array has one row per caption."""
        index = captions.numpy()
        arrays = {name: array[index] if array.ndim else array for name, array in self.arrays.items()}
        return GraphState(arrays, self.memory if images is None else self.memory.rows(images))


class GraphDecoder(Decoder):
    """`prepare.onnx` and `step.onnx` as a decoder."""

    def __init__(self, prepare: Graph, step: Graph) -> None:
        super().__init__()
        self._prepare, self._step = prepare, step

    def prepare(self, values: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> Memory:
        """The memory has only keys; masks are not supported."""
        if mask is not None:
            raise ValueError("exported graphs do not support masks")
        keys = self._prepare({"values": values.numpy()})["keys"]
        return Memory(values, torch.from_numpy(keys), grid)

    def init(self, memory: Memory, captions: int = 1) -> GraphState:
        values = memory.values.repeat_interleave(captions, dim=0).numpy()
        return GraphState({"values": values, **self._prepare({"values": values})}, memory)

    def step(self, state: GraphState, token: Tensor) -> tuple[Tensor, Glimpse, GraphState]:
        """The glimpse has no context, which is not an output of the graph."""
        outputs = self._step({"token": token.numpy(), **state.arrays})
        logits, alpha, focus, beta = (torch.from_numpy(outputs[n]) for n in ("logits", "alpha", "focus", "beta"))
        glimpse = Glimpse(alpha.new_empty(len(alpha), 0), alpha, focus, torch.zeros_like(beta), beta)
        after = {name.removeprefix("next_"): array for name, array in outputs.items() if name.startswith("next_")}
        return logits, glimpse, state._replace(arrays={**state.arrays, **after})

    def forward(self, memory: Memory, tokens: Tensor) -> tuple[Tensor, Glimpse]:
        state, steps = self.init(memory, len(tokens) // len(memory.values)), []
        for token in tokens.unbind(1):
            *step, state = self.step(state, token)
            steps.append(step)
        logits, glimpses = zip(*steps, strict=True)
        return torch.stack(logits, dim=1), Glimpse.stack(glimpses)


def load_captioner_graphs(folder: str | Path) -> ExportedCaptioner:
    """Load a captioner from a folder of graphs; encoder and decoder run in onnxruntime.

    Raises:
        InputError: as `load_captioner`.
    """
    folder = Path(folder)
    described = read_description(folder, "captioner")
    encoder, prepare, step = (
        Graph(read_file(folder, name, described), folder / name) for name in (ENCODER, PREPARE, STEP)
    )
    vocabulary = build(folder, lambda: Vocabulary(described["vocabulary"], described["tokens"]))
    return ExportedCaptioner(
        GraphEncoder(encoder, tuple(described["grid"])),
        GraphDecoder(prepare, step),
        vocabulary,
        tuple(described["image_size"]),
        described["fit"],
        described["max_length"],
        {name: described[name] for name in ("encoder", "decoder")},
        search=described["search"],
        no_repeat=described["no_repeat"],
    )


def load_classifier_graph(folder: str | Path) -> Graph:
    """Load a classifier's graph: `images` to `logits`, and to `attention` if it was exported with maps.

    Raises:
        InputError: as `load_classifier`.
    """
    folder = Path(folder)
    return Graph(read_file(folder, CLASSIFIER, read_description(folder, "classifier")), folder / CLASSIFIER)
