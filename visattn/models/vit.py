"""A small, readable Vision Transformer with timm's state dict (`vision_transformer.py`)."""

from collections.abc import Callable

import timm.layers
import torch
from torch import Tensor, nn

from visattn import fast
from visattn.attention import MultiHeadSelfAttention
from visattn.errors import InputError
from visattn.fast.linear import Linear


class PatchEmbedding(nn.Module):
    """Project each patch of the image to a token: a convolution whose stride is its kernel size."""

    def __init__(self, patch: int, size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, size, kernel_size=patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) to a grid of tokens (B, H, W, D)."""
        return self.proj(images).permute(0, 2, 3, 1)


class MLP(nn.Module):
    """Two linear layers with a GELU, for each token separately."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(size, hidden)
        self.fc2 = Linear(hidden, size)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block (Dosovitskiy 2020, eq. 2 and 3) with stochastic depth."""

    def __init__(self, size: int, heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size, eps=1e-6)
        self.attn = MultiHeadSelfAttention(size, heads)
        self.norm2 = nn.LayerNorm(size, eps=1e-6)
        self.mlp = MLP(size, int(size * mlp_ratio))
        self.drop_path = timm.layers.DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        return self.add(x, self.attn(self.norm1(x)))

    def first(self, x: Tensor) -> Tensor:
        """The output of `forward` at only the first token: (B, N, D) to (B, D)."""
        return self.add(x[:, 0], self.attn.first(self.norm1(x)))

    def add(self, x: Tensor, attended: Tensor) -> Tensor:
        """Tokens, all or some, and their attention output, (…, D) each, to the block's output."""
        x = x + self.drop_path(attended)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """Dosovitskiy 2020, with a class token, for any rectangular input whose sides are multiples of the patch.

    Interchangeable with `timm.models.vision_transformer.VisionTransformer(class_token=True, global_pool="token")`.

    Args:
        classes: number of classes.
        image_size: (h, w) of the position embeddings, which are interpolated for other sizes.
        patch: side of a patch, in pixels.
        size: D, size of a token.
        depth: number of blocks.
        heads: attention heads of each block; must divide `size`.
        mlp_ratio: hidden size of the MLP over D.
        drop_path: stochastic depth of the last block; it grows linearly from 0.
        embed: constructs, from `patch` and `size`, a module from images (B, 3, h, w) to the grid of tokens (B, H, W,
            D), such as `ConvolutionalStem`. The state dict is timm's only with the default.

    Raises:
        InputError: if the patch does not divide an image's sides, or the heads the size.
    """

    def __init__(
        self,
        classes: int,
        image_size: tuple[int, int],
        patch: int = 4,
        size: int = 192,
        depth: int = 6,
        heads: int = 3,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        embed: Callable[[int, int], nn.Module] = PatchEmbedding,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.grid = self.grid_of(*image_size)
        self.patch_embed = embed(patch, size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], size))
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        self.blocks = nn.Sequential(*(Block(size, heads, mlp_ratio, rate) for rate in rates))
        self.norm = nn.LayerNorm(size, eps=1e-6)
        self.head = Linear(size, classes)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            if name == "head":
                nn.init.zeros_(module.weight)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) of the patches of an image."""
        if height % self.patch or width % self.patch or not height or not width:
            raise InputError(
                f"an image of {height}×{width} pixels cannot be cut into patches of {self.patch}×{self.patch}"
            )
        return height // self.patch, width // self.patch

    def tokens(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, h, w) to the class token and the patches' tokens, (B, 1 + L, D), with positions."""
        grid = self.grid_of(*images.shape[-2:])
        x = self.patch_embed(images).flatten(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        positions = self.pos_embed
        if grid != self.grid:
            positions = timm.layers.resample_abs_pos_embed(positions, grid, self.grid, num_prefix_tokens=1)
        return x + positions

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, h, w) to logits (B, classes).

        Of the last block only the class token's output is needed, and only this is computed.
        """
        if not fast.enabled():
            return self.plain_forward(images)
        x = self.blocks[:-1](self.tokens(images))
        return self.head(self.norm(self.blocks[-1].first(x)))

    def plain_forward(self, images: Tensor) -> Tensor:
        """The same logits as published (eq. 1 to 4), with all tokens in all blocks, so that maps can be recorded."""
        x = self.blocks(self.tokens(images))
        return self.head(self.norm(x[:, 0]))

    def with_weights(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The same logits, and the attention weights of each block.

        They come from a single pass without fused attention, which is faster than a fused pass and another for the
        weights. Each block's weights are a separate tensor; one for all would be so large that malloc maps new pages.

        Returns:
            (B, classes), and for each block (B, heads, 1 + L, 1 + L) float32, whose rows sum to 1.
        """
        x, last, maps = self.tokens(images), self.blocks[-1], []
        for block in self.blocks:
            attended, weights = block.attn.with_weights(block.norm1(x))
            maps.append(weights)
            x = block.add(x, attended) if block is not last else block.add(x[:, 0], attended[:, 0])
        return self.head(self.norm(x)), maps

    def attention_maps(self, images: Tensor) -> Tensor:
        """The weights of `with_weights` in one tensor, (B, depth, heads, 1 + L, 1 + L)."""
        return torch.stack(self.with_weights(images)[1], dim=1)
