"""Attention of any PyTorch model, recorded while it runs.

with record(model) as attention:
    model(images)
attention[-1].name, attention[-1].weights(rows=slice(0, 1))
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from visattn.errors import InputError
from visattn.explain.calls import AttentionCall
from visattn.explain.reading import intercepted, running


class Attention:
    """A recorded attention call.

    Attributes:
        name: qualified name of the module that attended, as in `model.named_modules()`; "" is the model itself.
        shape: (B, heads, N, M): images, or pieces of images such as windows, those of the first image first; heads;
            queries; keys.
    """

    def __init__(self, name: str, call: AttentionCall, rows: slice | None, heads: Sequence[int] | None) -> None:
        self.name, self.shape = name, call.shape
        self._call: AttentionCall | None = call
        self._kept: Tensor | None = None
        if rows is not None or heads is not None:
            if heads is not None and not all(0 <= head < self.heads for head in heads):
                raise InputError(f"{name} has {self.heads} heads, counted from 0, and not {list(heads)}")
            self._kept = call.weights(rows or slice(None), slice(None) if heads is None else list(heads))
            self._call = None

    @property
    def heads(self) -> int:
        """Number of heads."""
        return self.shape[1]

    @property
    def queries(self) -> int:
        """N."""
        return self.shape[2]

    @property
    def keys(self) -> int:
        """M."""
        return self.shape[3]

    def weights(self, rows: slice = slice(None), heads: Sequence[int] | None = None) -> Tensor:
        """The weights (B, heads, rows, M), float32, of those that were recorded.

        For a fused kernel they are computed now, for the rows and heads asked for. If the module computed them itself,
        they are copied: the factors of the values, before dropout.

        Args:
            rows: of which queries.
            heads: which heads; None for all.

        Raises:
            InputError: if there is no such head.
            RuntimeError: if the weights do not reproduce the module's output, as with dropout in a fused kernel.
        """
        count = self.heads if self._kept is None else self._kept.shape[1]
        if heads is not None and not all(0 <= head < count for head in heads):
            raise InputError(f"{self.name} has {count} recorded heads, counted from 0, and not {list(heads)}")
        chosen = slice(None) if heads is None else list(heads)
        if self._call is not None:
            return self._call.weights(rows, chosen)
        assert self._kept is not None  # one of the two is there
        return self._kept[:, :, rows][:, chosen]

    def __repr__(self) -> str:
        pieces, heads, queries, keys = self.shape
        return f"Attention({self.name!r}, {pieces} × {heads} heads × {queries} queries × {keys} keys)"


@contextmanager
def record(
    model: nn.Module,
    rows: slice | None = None,
    heads: Sequence[int] | None = None,
    where: Callable[[str], bool] | None = None,
) -> Iterator[list[Attention]]:
    """Record every attention call of a model that runs within the context, in order.

    Recorded are `scaled_dot_product_attention` with any kernel, `nn.MultiheadAttention`, and modules that multiply
    values by a softmax over the last axis, as those of timm and transformers do without a fused kernel. Outputs and
    gradients are bit-identical to those without the recorder, with one exception: PyTorch's fast path of
    `nn.MultiheadAttention` and `nn.TransformerEncoder` for inference, which hides its attention in one call, is
    replaced by the plain path, which rounds differently. Compiled modules run eagerly. Not recorded: attention without
    a softmax, `flex_attention`, kernels of other packages, traced programs.

    Args:
        model: any module; other models that run within the context are not recorded.
        rows: the queries whose weights are kept. With this or `heads`, the weights are computed while the model runs
            and nothing else is kept. By default queries, keys and values are kept as long as the entry, and weights are
            computed on demand.
        heads: the heads whose weights are kept, counted from 0; None for all.
        where: whether to record a module, from its name; None records all.

    Yields:
        A list, which grows by an `Attention` for each call.

    Raises:
        InputError: if the model is not a module, or is a traced program.
    """
    traced = (torch.jit.ScriptModule, torch.fx.GraphModule)
    if not isinstance(model, nn.Module) or any(isinstance(part, traced) for part in model.modules()):
        raise InputError(f"{type(model).__name__} cannot be recorded: give a torch.nn.Module, and no traced program")
    names = {id(part): name.replace("_orig_mod.", "") for name, part in model.named_modules()}
    names[id(model)] = ""
    recorded: list[Attention] = []

    def on_call(call: AttentionCall) -> None:
        module = running(lambda part: id(part) in names)
        if module is not None and (where is None or where(names[id(module)])):
            recorded.append(Attention(names[id(module)], call, rows, heads))

    with intercepted(on_call):
        yield recorded
