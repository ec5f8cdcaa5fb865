"""Grad-CAM with a transformer's tokens as the feature map.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization".
The features are what the last block's first norm gives, the usual choice for Vision Transformers: after the last block
patches no longer reach a class token. Only their patch tokens count.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visattn.errors import InputError
from visattn.explain.targets import checked_targets, require_classes, total_score
from visattn.explain.vit import ViT

_FIRST_NORMS = ("norm1", "in_norm", "ln_1", "layernorm_before", "layer_norm1")
"""Names of the norm before attention in blocks of timm and visattn, torchvision and OpenCLIP, and transformers."""


@dataclass(frozen=True)
class GradCAM:
    """ReLU(Σ_k a_k A_k), a_k the mean over the patches of ∂y/∂A_k (their eq. 1 and 2), A the tokens (B, H W, D).

    Args:
        layer: from 0; -1 is the last.
    """

    layer: int = -1

    def __call__(self, vit: ViT, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Normalised images (B, 3, h, w) and classes (B,), by default the likeliest, to maps (B, H, W), at least 0.

        Raises:
            InputError: if the model has no classes, no such class or layer, or its blocks no first norm.
        """
        vit.require("Grad-CAM")
        require_classes(vit.classes, vit.name)
        block = vit.blocks[vit.layer(self.layer)] if len(vit.blocks) == vit.depth else None
        norm = next((part for name in _FIRST_NORMS if (part := getattr(block, name, None)) is not None), None)
        if not isinstance(norm, nn.Module):
            raise InputError(f"Grad-CAM needs the norm before attention, and {vit.name} has none; choose relevance")
        tokens: list[Tensor] = []

        def keep(module: nn.Module, given: Any, out: Tensor) -> None:
            tokens.append(out.requires_grad_())  # where all parameters are frozen it does not yet

        with norm.register_forward_hook(keep), torch.inference_mode(False), torch.enable_grad():
            seen = vit.run(images.detach().clone(), lambda layer, call: None)
            score = total_score(seen.logits, checked_targets(seen.logits, targets, vit.name))
            (gradient,) = torch.autograd.grad(score, tokens)
        features, gradient = (part[:, vit.prefix :].detach().float() for part in (tokens[0], gradient))
        cam = (features * gradient.mean(dim=1, keepdim=True)).sum(dim=-1).clamp_(min=0)
        return cam.unflatten(-1, seen.grid)

    def __str__(self) -> str:
        return "Grad-CAM on tokens" if self.layer == -1 else f"Grad-CAM on tokens, layer {self.layer}"
