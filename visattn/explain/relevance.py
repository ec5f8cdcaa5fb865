"""Relevance propagation without LRP: Chefer, Gur and Wolf 2021, "Generic Attention-model Explainability".

Equations are from the paper's section 3. R has a row for each token explained and a column for each token that may have
contributed. A is a layer's attention, ∇A the gradient of the explained output with respect to it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from visattn.explain.calls import AttentionCall
from visattn.explain.vit import Judged, ViT


def positive_part(weights: Tensor, gradient: Tensor) -> Tensor:
    """Ā = E_h((∇A ∘ A)⁺) (eq. 5): (B, heads, N, M) twice to (B, N, M)."""
    return (weights * gradient).clamp_(min=0).mean(dim=1)


def contribution(call: AttentionCall, of_out: Tensor) -> Tensor:
    """Ā of a layer, from the gradient by its output."""
    return positive_part(call.weights(), call.gradient(of_out))


def normalised(relevance: Tensor) -> Tensor:
    """R̄: (B, N, N), R − I normalised to rows that sum to 1, plus I (eq. 8 and 9); zero rows stay zero."""
    eye = torch.eye(relevance.shape[-1], dtype=relevance.dtype, device=relevance.device)
    added = relevance - eye
    total = added.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, added / total, 0.0) + eye


@dataclass(frozen=True)
class Relevance:
    """R ← R + Ā R, layer by layer, from R = I (eq. 6); the map is the class tokens' part of the final R − I.

    The paper only has class tokens, whose row is the same in R − I. Our extension: if the patches are averaged, the map
    is the mean of their rows, without the initial I, which does not depend on the image; if a latent query attends to
    the tokens, this is cross-attention, Ā R̄ (eq. 10, with one query that has not been mixed).
    """

    @torch.no_grad()
    def __call__(self, vit: ViT, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Normalised images (B, 3, h, w) and classes (B,), by default the likeliest, to maps (B, H, W), at least 0."""
        vit.require("relevance")
        judged = vit.judged(images, targets)
        with torch.autocast(images.device.type, enabled=False):
            return self._of(vit, judged)

    def _of(self, vit: ViT, judged: Judged) -> Tensor:
        seen, layers, of_pool = judged
        tokens = layers[0][0].shape[3]
        relevance = eye = torch.eye(tokens, dtype=torch.float32, device=seen.logits.device)
        for call, of_out in layers:
            relevance = relevance + contribution(call, of_out) @ relevance
        if seen.pool is None or of_pool is None:
            return vit.read(relevance - eye, seen)
        pooled = contribution(seen.pool, of_pool)  # (B, 1, n), n the tokens that are pooled, the last ones
        row = (pooled @ normalised(relevance)[:, -pooled.shape[-1] :])[:, 0]
        return row[:, vit.prefix :].unflatten(-1, seen.grid)

    def __str__(self) -> str:
        return "relevance"
