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
from visattn.explain.reading import Act, overheard, running


class Attention:
    """One act of attention, as it was recorded.

    Attributes:
        name: qualified name of the module that attended, as in `model.named_modules()`; "" is the model itself.
        shape: (B, heads, N, M): images, or pieces of images such as windows, those of the first image first; heads;
            queries; keys.
    """

    def __init__(self, name: str, act: Act, rows: slice | None, heads: Sequence[int] | None) -> None:
        self.name, self.shape = name, act.shape
        self._act: Act | None = act
        self._kept: Tensor | None = None
        if rows is not None or heads is not None:
            if heads is not None and not all(0 <= head < self.heads for head in heads):
                raise InputError(f"{name} has {self.heads} heads, counted from 0, and not {list(heads)}")
            self._kept = act.weights(rows or slice(None), slice(None) if heads is None else list(heads))
            self._act = None

    @property
    def heads(self) -> int:
        """How many heads attended."""
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

        Where a fused kernel ran they are computed now, and take memory for what is asked for. Where the module wrote
        them down they are copied: what the values were multiplied by, before dropout.

        Args:
            rows: of which queries.
            heads: which heads; None for all.

        Raises:
            InputError: where there is no such head.
            RuntimeError: where the weights do not make the module's output, as with dropout in a fused kernel.
        """
        count = self.heads if self._kept is None else self._kept.shape[1]
        if heads is not None and not all(0 <= head < count for head in heads):
            raise InputError(f"{self.name} has {count} recorded heads, counted from 0, and not {list(heads)}")
        chosen = slice(None) if heads is None else list(heads)
        if self._act is not None:
            return self._act.weights(rows, chosen)
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
    """Record every act of attention of a model that runs within the context, in its order.

    Seen are `scaled_dot_product_attention`, whichever kernel it takes, `nn.MultiheadAttention`, and modules that take a
    softmax over the last axis and multiply values by it, as timm's and transformers' do without a fused kernel. Outputs
    and gradients are those without the recorder, to the last bit; only PyTorch's inference path of
    `nn.MultiheadAttention` and `nn.TransformerEncoder`, which hides its attention in one call, is left for the plain
    path, which rounds differently. What was compiled runs as it was written. Not seen are attention without a softmax,
    `flex_attention`, kernels of other packages, and programs that were traced.

    Args:
        model: any module; other models that run meanwhile are not recorded.
        rows: of which queries weights are kept. Given this or `heads`, the weights are computed while the model runs
            and nothing else is kept. By default queries, keys and values are kept until the entry goes, and weights are
            computed when they are asked for.
        heads: of which heads, counted from 0; None for all.
        where: takes a module's name; whether to record it. None records all.

    Yields:
        A list, which grows by an `Attention` for each act.

    Raises:
        InputError: where the model is no module, or a traced program.
    """
    traced = (torch.jit.ScriptModule, torch.fx.GraphModule)
    if not isinstance(model, nn.Module) or any(isinstance(part, traced) for part in model.modules()):
        raise InputError(f"{type(model).__name__} cannot be recorded: give a torch.nn.Module, and no traced program")
    names = {id(part): name.replace("_orig_mod.", "") for name, part in model.named_modules()}
    names[id(model)] = ""
    recorded: list[Attention] = []

    def hear(act: Act) -> None:
        module = running(lambda part: id(part) in names)
        if module is not None and (where is None or where(names[id(module)])):
            recorded.append(Attention(names[id(module)], act, rows, heads))

    with overheard(hear):
        yield recorded
