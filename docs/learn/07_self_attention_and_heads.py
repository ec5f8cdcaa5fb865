# %% [markdown]
# # 7. Self-attention, heads, and a Vision Transformer in one sitting
#
# **Objectives.** After this chapter you can
#
# - write multi-head self-attention and a whole Vision Transformer in plain PyTorch;
# - show that yours computes the same as `visattn.models.VisionTransformer`;
# - look at the heads of a trained one, and measure how far each of them looks.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional as F

from visattn.explain import ViT
from visattn.export.shipped import load_shipped
from visattn.images import fit_image
from visattn.models import VisionTransformer
from visattn.overlay import heatmap

plt.rcParams.update({"figure.dpi": 110, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
torch.manual_seed(0)

# %% [markdown]
# ## Self-attention, several times at once
#
# In chapter 2 every word asked, and every word answered. That is *self*-attention: queries, keys and values all come
# from the same tokens. One softmax gives each token one weighted mean. Several **heads** give it several: the D numbers
# of a token are cut into h parts of d = D / h, each head attends with its own part, and the results are put side by
# side (Vaswani et al. 2017, section 3.2.2):
#
# MultiHead(x) = [head₁, …, headₕ] W_O, headᵢ = softmax(Qᵢ Kᵢᵀ / √d) Vᵢ.


# %%
class SelfAttention(nn.Module):
    def __init__(self, size, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(size, 3 * size)  # W_Q, W_K and W_V in one matrix
        self.proj = nn.Linear(size, size)  # W_O

    def forward(self, x):  # (B, N, D)
        B, N, D = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)  # (B, heads, N, d)
        weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1)  # (B, heads, N, N)
        return self.proj((weights @ v).transpose(1, 2).reshape(B, N, D))


# %% [markdown]
# ## The whole network
#
# A Vision Transformer (Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words", eq. 1 to 4) cuts the picture into
# patches, makes a token of each by one matrix product, puts a class token in front, and adds a learnt position to each.
# Then L times:
#
# z' = z + MultiHead(norm(z)), z'' = z' + MLP(norm(z')),
#
# and the class is read from the class token. That is all:


# %%
class Block(nn.Module):
    def __init__(self, size, heads):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(size, eps=1e-6), SelfAttention(size, heads)
        self.norm2 = nn.LayerNorm(size, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(size, 4 * size), "fc2": nn.Linear(4 * size, size)})

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class MyViT(nn.Module):
    def __init__(self, classes, side, patch, size, depth, heads):
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, size, patch, stride=patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (side // patch) ** 2, size))
        self.blocks = nn.Sequential(*(Block(size, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(size, eps=1e-6), nn.Linear(size, classes)

    def forward(self, images):  # (B, 3, side, side)
        patches = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)  # (B, N, D)
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


# %% [markdown]
# The names are those of the package (and of timm), so the weights of one fit the other. Both in 64 bits, with equal
# random weights:

# %%
theirs = VisionTransformer(classes=10, image_size=(32, 32), patch=4, size=48, depth=2, heads=3).double().eval()
nn.init.normal_(theirs.head.weight)  # which starts at zero, and would hide any difference
mine = MyViT(classes=10, side=32, patch=4, size=48, depth=2, heads=3).double().eval()
mine.load_state_dict(theirs.state_dict())
pictures = torch.randn(5, 3, 32, 32, dtype=torch.double)
with torch.no_grad():
    difference = (mine(pictures) - theirs.plain_forward(pictures)).abs().max()
print(f"{sum(part.numel() for part in mine.parameters()):,} numbers; equal logits:", bool(difference < 1e-5))
print(f"largest difference {difference:.0e}")

# %% [markdown]
# What difference there is comes from the softmax, which the package computes in 32 bits (chapter 2).
#
# ## A trained one
#
# `vit-cifar10` comes with the package: 4 blocks of 3 heads over 8 × 8 places, trained on CIFAR-10. The photographs of
# that data set do not come with it, so this chapter *draws* a car. That is not what the model was trained on; it
# recognises it all the same, but do not conclude from one drawing how the model treats photographs.


# %%
def draw_car(side=384):
    u = side / 32
    picture = Image.new("RGB", (side, side), (150, 190, 225))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 21 * u, side, side), fill=(110, 110, 112))
    draw.polygon([(8 * u, 13 * u), (12 * u, 8 * u), (21 * u, 8 * u), (25 * u, 13 * u)], fill=(190, 40, 35))
    draw.rectangle((4 * u, 13 * u, 28 * u, 21 * u), fill=(190, 40, 35))
    draw.polygon([(10 * u, 13 * u), (13 * u, 9.5 * u), (20 * u, 9.5 * u), (23 * u, 13 * u)], fill=(70, 90, 110))
    for x in (9.5, 22.5):
        for radius, colour in ((3, (25, 25, 25)), (1.3, (180, 180, 180))):
            box = (x - radius, 21 - radius, x + radius, 21 + radius)
            draw.ellipse([corner * u for corner in box], fill=colour)
    return picture


exported = load_shipped("vit-cifar10")
picture = draw_car()
fitted, geometry = fit_image(picture, exported.image_size, exported.fit)
geometry = geometry._replace(cell_shift=ViT(exported.model).cells(exported.image_size))
pixels = torch.from_numpy(np.array(fitted)).permute(2, 0, 1)[None]
with torch.no_grad():
    logits, layers = exported.model.with_weights(exported.normalise(pixels))
chances = logits.softmax(dim=-1)[0]
for number in chances.argsort(descending=True)[:3].tolist():
    print(f"{exported.class_names[number]:12} {chances[number]:.2f}")

# %% [markdown]
# The answer is "automobile", with a probability of `0.84`. Below is what the class token attends to, for each layer
# (column) and head (row), each map on its own scale:

# %%
figure, axes = plt.subplots(3, 5, figsize=(9, 5.4), layout="constrained")
for axis in axes.flat:
    axis.set_axis_off()
axes[0, 0].imshow(picture)
axes[0, 0].set_title("the drawing")
for layer, weights in enumerate(layers):
    for head in range(3):
        axis = axes[head, layer + 1]
        axis.imshow(heatmap(np.asarray(picture), weights[0, head, 0, 1:].reshape(8, 8).numpy(), geometry))
        axis.set_title(f"layer {layer}, head {head}")
plt.show()

# %% [markdown]
# ## How far does a head look?
#
# Pictures of heads invite stories. A number is safer: the mean distance, in cells, between the place that asks and the
# places that it attends to, weighted by attention (Dosovitskiy et al. 2020, figure 7, right). The class token is left
# out on both sides. A head with uniform weights would have `4.14`.


# %%
row, column = np.divmod(np.arange(64), 8)
distance = np.hypot(row[:, None] - row, column[:, None] - column)  # (64, 64), in cells
print(f"uniform weights: {distance.mean():.2f} cells")
far = []
for layer, weights in enumerate(layers):
    patches = weights[0, :, 1:, 1:].numpy()
    patches = patches / patches.sum(axis=-1, keepdims=True)
    far.append((patches * distance).sum(axis=-1).mean(axis=-1))
    print(f"layer {layer}:", "  ".join(f"{cells:.2f}" for cells in far[-1]))

figure, axis = plt.subplots(figsize=(5, 2.8), layout="constrained")
axis.axhline(distance.mean(), color="0.5", linestyle=":", label="uniform weights")
for head in range(3):
    axis.plot(range(4), [cells[head] for cells in far], "o", label=f"head {head}")
axis.set(xlabel="layer", ylabel="mean distance in cells", ylim=(0, 5), xticks=range(4))
axis.legend(frameon=False, loc="lower right", ncols=2)
plt.show()

# %% [markdown]
# All lie between `3.51` and `4.43` cells, close to uniform weights: none of these heads looks only at its neighbours.
# In the large models of the paper some heads of the first layers do. This small model has convolutions in front, which
# have mixed neighbours already. A story about a single head ("it finds wheels") would rest on one drawing; test it on
# many pictures before you tell it.
#
# ## Exercise
#
# Another number for a head: how many places does it look at? The entropy of a row of weights, H = −Σⱼ αⱼ log αⱼ, is
# 0 for one place and log N for all N alike; so exp(H) counts places. Complete `answer`: exp of the mean entropy of the
# rows, for each head.


# %%
def answer(weights):
    """Weights (heads, N, N), rows sum to 1, to (heads,)."""
    return None  # your code here


def check(answer):
    uniform, one = np.full((2, 7, 7), 1 / 7), np.broadcast_to(np.eye(7), (2, 7, 7))
    for name, weights, right in (("uniform weights", uniform, 7), ("a single place", one, 1)):
        count = answer(weights)
        if np.shape(count) != (2,):
            return "Not yet: return a number for each head."
        if not np.allclose(count, right):
            return f"Not yet: for {name} it should be {right}, not {count[0]:.2f}. (0 log 0 counts as 0.)"
    mixed = np.stack([np.concatenate([uniform[0, :3], one[0, 3:]])])
    if not np.allclose(answer(mixed), 7 ** (3 / 7)):
        return "Not yet: take the mean of the entropies first, then exp."
    return "Right: this is the number of places that a head looks at."


print(check(answer))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def answer(weights):
#     logs = np.log(np.where(weights > 0, weights, 1))
#     return np.exp(-(weights * logs).sum(axis=-1).mean(axis=-1))
# ```
#
# </details>
#
# ## Further reading
#
# - Vaswani et al. 2017, "Attention Is All You Need", section 3.2.2.
# - Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale".
# - Raghu et al. 2021, "Do Vision Transformers See Like Convolutional Neural Networks?": how far heads look.
# - Darcet et al. 2023, "Vision Transformers Need Registers": some tokens become scratch paper, and maps show it.
# - `visattn/models/vit.py` and `visattn/attention/multihead.py`: the package's own, with a fast path.
