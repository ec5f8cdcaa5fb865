"""LeGrad: sensitivity of the features that form in each layer to that layer's attention.

Bousselham et al. 2024, "LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity".

Each layer's tokens are classified as if the layer were the last: s^l = head(norm(mean of the tokens)), as in the
authors' code. The map of a layer is the gradient of s^l by that layer's attention, positive values only, averaged over
heads and queries; the map is the mean over the layers (their section 3), without their final min-max normalisation:

    map = E_l E_h E_i (∂s^l / ∂A^l_hij)⁺
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from visattn.errors import InputError
from visattn.explain.calls import AttentionCall
from visattn.explain.features import watched
from visattn.explain.targets import checked_targets, require_classes, total_score
from visattn.explain.vit import ViT


@dataclass(frozen=True)
class LeGrad:
    """The mean over layers of each layer's positive attention gradients; see the head of this file.

    Args:
        layers: from 0, negative from the end; None for all.
    """

    layers: tuple[int, ...] | None = None

    def __call__(self, vit: ViT, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Normalised images (B, 3, h, w) and classes (B,), by default the likeliest, to maps (B, H, W), at least 0.

        Raises:
            InputError: if the model has no classes, no such class or layer, or no head for single tokens.
        """
        vit.require("LeGrad")
        require_classes(vit.classes, vit.name)
        head = vit.token_head
        if head is None or len(vit.blocks) != vit.depth:
            raise InputError(f"LeGrad needs a head that classifies a token, and {vit.name} has none; choose relevance")
        chosen = [vit.layer(number) for number in (range(vit.depth) if self.layers is None else self.layers)]
        calls: list[AttentionCall] = []
        tokens: list[Tensor] = []

        def on_call(layer: int, call: AttentionCall) -> None:
            call.out.requires_grad_()  # where all parameters are frozen it does not yet
            calls.append(call)

        maps: list[Tensor] = []
        with watched(vit, lambda layer, out: tokens.append(out)), torch.inference_mode(False), torch.enable_grad():
            seen = vit.run(images.detach().clone(), on_call)
            targets = checked_targets(seen.logits, targets, vit.name)
            for layer in chosen:
                score = total_score(head(tokens[layer].mean(dim=1)), targets)
                (of_out,) = torch.autograd.grad(score, calls[layer].out, retain_graph=True)
                maps.append(calls[layer].gradient(of_out).clamp_(min=0).mean(dim=(1, 2)))
        total = torch.stack(maps).mean(dim=0).detach()
        return total[:, vit.prefix :].unflatten(-1, seen.grid)

    def __str__(self) -> str:
        return "LeGrad" if self.layers is None else f"LeGrad, layers {', '.join(map(str, self.layers))}"
