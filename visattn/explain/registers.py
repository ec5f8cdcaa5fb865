"""Test-time registers: outlier norms moved off the picture onto a token of their own, without training.

Jiang, Dravid, Efros and Gandelsman 2025, "Vision Transformers Don't Need Trained Registers". In large Vision
Transformers a few patches have norms many times those of the others (Darcet et al. 2024), which they get from a few
neurons of the MLPs, the register neurons. A further token that starts as zeros takes these neurons' largest activation
among the patches, and in the patches the neurons are silenced: what was stored in patches is stored in the register.

Axis letters: B images, N tokens, H W a grid, K neurons.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from visattn.errors import InputError
from visattn.explain.features import ARTEFACT, features
from visattn.explain.place import require_one_grid
from visattn.explain.vit import ViT


class RegisterNeurons(NamedTuple):
    """The neurons that give patches their outlier norms.

    Attributes:
        neurons: (layer, number of the hidden unit of its MLP), the strongest first.
        layer: where outliers were taken: the first that has at least half as many as any other.
        outliers: how many patches were.
        patches: of how many.
    """

    neurons: list[tuple[int, int]]
    layer: int
    outliers: int
    patches: int


class WithRegister(ViT):
    """A Vision Transformer with a test-time register, which stands after its own class tokens and registers.

    It shares the network of the model that it is made from. Maps and features are those of a run with the register,
    which is left out of the maps as other registers are, and taken away before the last norm.

    Args:
        vit: the model.
        neurons: (layer, number of the hidden unit of its MLP), as `register_neurons` finds them.

    Raises:
        InputError: if the model's layers do not attend over one grid, its blocks have no MLP, or it averages its
            class token with the patches.
    """

    def __init__(self, vit: ViT, neurons: Sequence[tuple[int, int]]) -> None:
        require_one_grid(vit, "--test-time-registers")
        self.__dict__.update(vars(vit))
        if not vit._latent and vit._rows.stop is None:
            if vit._rows.start != vit.prefix:
                raise InputError(f"{vit.name} averages its first tokens with its patches; it takes no further one")
            self._rows = slice(vit.prefix + 1, None)
        self._place, self._network_run = vit.prefix, vit._interface.run
        self.prefix, self.registers = vit.prefix + 1, vit.registers + 1
        self._neurons: dict[int, list[int]] = {}
        for layer, neuron in neurons:
            self._neurons.setdefault(layer, []).append(neuron)
        self._last_linears = [last_linear(vit, layer) for layer in range(vit.depth)]
        self._interface = vit._interface._replace(run=self._run_with_register)
        self._logits = functools.partial(self._run_with_register, *vit._logits.args)

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of normalised images (B, 3, h, w), or features, with the register."""
        return self._logits(images)

    def _run_with_register(self, network: Callable[..., Any], images: Tensor) -> Tensor:
        try:
            with self._hooked():
                return self._network_run(network, images)
        except RuntimeError as error:  # relative positions between a fixed number of tokens
            raise InputError(
                f"{self.name} takes no further token, so it can have no test-time register: "
                f"{' '.join(str(error).split())[:150]}"
            ) from error

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        place = self._place

        def insert(module: nn.Module, args: tuple, options: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            tokens = args[0] if args else options["hidden_states"]
            register = tokens.new_zeros(len(tokens), 1, tokens.shape[2])
            tokens = torch.cat([tokens[:, :place], register, tokens[:, place:]], dim=1)
            return ((tokens, *args[1:]), options) if args else (args, options | {"hidden_states": tokens})

        def remove(module: nn.Module, args: tuple, out: Any) -> Any:
            tokens = out[0] if isinstance(out, tuple) else out
            tokens = torch.cat([tokens[:, :place], tokens[:, place + 1 :]], dim=1)
            return (tokens, *out[1:]) if isinstance(out, tuple) else tokens

        def move(neurons: list[int], module: nn.Module, args: tuple) -> Tensor:
            hidden = args[0].clone()
            hidden[:, place, neurons] = hidden[:, place + 1 :, neurons].amax(dim=1)
            hidden[:, place + 1 :, neurons] = 0
            return hidden

        with ExitStack() as hooks:
            for layer, neurons in self._neurons.items():
                linear = self._last_linears[layer]
                hooks.enter_context(linear.register_forward_pre_hook(functools.partial(move, neurons)))
            hooks.enter_context(self.blocks[0].register_forward_pre_hook(insert, with_kwargs=True))
            hooks.enter_context(self.blocks[-1].register_forward_hook(remove))
            yield


def last_linear(vit: ViT, layer: int) -> nn.Linear:
    """The second linear layer of a block's MLP, whose inputs are its neurons.

    Raises:
        InputError: if the block ends with none.
    """
    found = [part for part in vit.blocks[layer].modules() if isinstance(part, nn.Linear)] if vit.blocks else []
    if not found or found[-1].in_features <= found[-1].out_features:
        raise InputError(f"layer {layer} of {vit.name} has no MLP whose neurons are known")
    return found[-1]


def outlying(norms: Tensor, times: float = ARTEFACT) -> Tensor:
    """Which patches have norms above so many times their image's median: (…, H W) to (…, H W) bool."""
    return norms > times * norms.quantile(0.5, dim=-1, keepdim=True)


@torch.no_grad()
def register_neurons(vit: ViT, images: Sequence[Tensor], count: int = 10, times: float = ARTEFACT) -> RegisterNeurons:
    """Find the neurons that give patches outlier norms (the paper's algorithm 1, with differences).

    A neuron's score is the mean magnitude of its activation in outliers, less that in the other patches: the paper
    takes the first alone, which neurons that are always active win, too. Neurons of layers after the outliers' are left
    out, as in the paper. What is an outlier is relative to the median, where the paper has a norm for each model.

    Args:
        vit: the model.
        images: batches of normalised images (B, 3, h, w), on the model's device.
        count: K, of neurons.
        times: outliers have norms above so many times their image's median.

    Raises:
        InputError: if no layer has outliers, or the model's layers do not attend over one grid.
    """
    norms = torch.cat([features(vit, batch).norms[..., vit.prefix :] for batch in images])  # (B, L, H W)
    outliers = outlying(norms, times)
    by_layer = outliers.sum(dim=(0, 2))
    if not by_layer.any():
        largest = (norms / norms.quantile(0.5, dim=-1, keepdim=True)).max()
        raise InputError(
            f"{vit.name} has no outliers that a register could take: in none of its layers does a patch of the "
            f"{len(norms)} images have a norm above {times:g} times the median (the largest has {largest:.1f} times); "
            "leave out --test-time-registers"
        )
    layer = int((by_layer * 2 >= by_layer.max()).nonzero()[0])
    linears = [last_linear(vit, number) for number in range(layer + 1)]
    chosen, total = outliers[:, layer], [torch.zeros(2, part.in_features, device=norms.device) for part in linears]
    first = 0

    def add(number: int, module: nn.Module, args: tuple) -> None:
        activations = args[0][:, vit.prefix :].abs().float()
        where = chosen[first : first + len(activations)].to(activations.device)
        total[number] += torch.stack([activations[where].sum(dim=0), activations[~where].sum(dim=0)])

    with ExitStack() as hooks:
        for number, part in enumerate(linears):
            hooks.enter_context(part.register_forward_pre_hook(functools.partial(add, number)))
        for batch in images:
            vit.run(batch, lambda *_: None)
            first += len(batch)
    inside, patches = int(chosen.sum()), chosen.numel()
    sums = torch.stack([part / part.new_tensor([[inside], [patches - inside]]) for part in total])
    scores = (sums[:, 0] - sums[:, 1]).flatten()
    best = scores.topk(min(count, len(scores))).indices.tolist()
    width = sums.shape[-1]
    return RegisterNeurons([(number // width, number % width) for number in best], layer, inside, patches)
