# %% [markdown]
# # 8. What maps mean
#
# **Objectives.** After this chapter you can
#
# - compute three maps of one decision: raw attention, rollout and relevance, and say what each of them is a map *of*;
# - test a map by deletion, against random maps and the distance to the middle;
# - test whether a map depends on what the model has learnt at all;
# - give a case in which attention weights lie.
#
# The pictures are drawings of ships, because no photographs come with the package. With a few drawings you learn the
# method, not the truth about a model; docs/faithfulness.md has the study on real data.

# %%
import copy

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw

from visattn.explain import Raw, Relevance, Rollout, ViT, rollout
from visattn.explain.faithfulness import area, centre_map, descending, random_map, taken, transition
from visattn.export.shipped import load_shipped
from visattn.images import Geometry
from visattn.overlay import heatmap

plt.rcParams.update({"figure.dpi": 110, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})


def draw_ship(x, y, colour, side=320):
    """A ship whose middle is at (x, y), in units of 1/32 of the side."""
    u = side / 32
    picture = Image.new("RGB", (side, side), (165, 200, 230))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, (y + 4) * u, side, side), fill=(40, 80, 130))
    draw.polygon([((x + dx) * u, (y + dy) * u) for dx, dy in ((-11, 0), (11, 0), (8, 6), (-8, 6))], fill=(60, 60, 70))
    draw.rectangle(((x - 6) * u, (y - 5) * u, (x + 6) * u, y * u), fill=(230, 230, 230))
    draw.rectangle(((x - 1) * u, (y - 10) * u, (x + 3) * u, (y - 5) * u), fill=colour)
    return picture


rng = np.random.default_rng(0)
colours = [(180, 50, 40), (30, 30, 30), (220, 160, 40)]
places = np.stack([rng.uniform(11, 21, size=8), rng.uniform(14, 22, size=8)], axis=1)
ships = [draw_ship(x, y, colours[n % 3]) for n, (x, y) in enumerate(places)]

exported = load_shipped("vit-cifar10")
vit = ViT(exported.model)
small = [np.asarray(ship.resize((32, 32), Image.Resampling.BOX)) for ship in ships]
images = exported.normalise(torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2))
ship = exported.class_names.index("ship")
with torch.no_grad():
    chances = exported.model(images).softmax(dim=-1)
print("probability of ship:", "  ".join(f"{chance:.2f}" for chance in chances[:, ship]))

# %% [markdown]
# ## Three maps
#
# - **Raw attention**: what the class token attends to in one layer, the mean of the heads. It says where one layer
#   *reads*. Deep tokens have already mixed what they stand for, so that is not where the information *came from*.
# - **Rollout** (Abnar and Zuidema 2020, section 3): follows attention back through all layers. Each layer passes on
#   half of a token and half of what it attended to, Â = (A + I) / 2, and the layers' matrices are multiplied, Â_L … Â_2
#   Â_1. It is the same for every class.
# - **Relevance** (Chefer, Gur, Wolf 2021, eq. 5 and 6): weights each entry of A by the gradient of *one class*, keeps
#   the positive part, Ā = Eₕ((∇A ∘ A)⁺), and adds up, R ← R + Ā R. It says what speaks for that class.

# %%
targets = torch.full((len(images),), ship)
methods = {"raw, last layer": Raw(layer=-1), "rollout": Rollout(), "relevance": Relevance()}
maps = {name: method(vit, images, targets).detach().numpy() for name, method in methods.items()}

geometry = Geometry.identity((320, 320))._replace(input=(32, 32), scale=(0.1, 0.1), cell_shift=vit.cells((32, 32)))
figure, axes = plt.subplots(2, 4, figsize=(9, 4.7), layout="constrained")
for row in range(2):
    axes[row, 0].imshow(ships[row])
    for axis, (name, found) in zip(axes[row, 1:], maps.items(), strict=True):
        axis.imshow(heatmap(np.asarray(ships[row]), found[row], geometry))
        axis.set_title(name if row == 0 else "")
    for axis in axes[row]:
        axis.set_axis_off()
plt.show()

# %% [markdown]
# ## Deletion: take away what the map calls important
#
# If a map is faithful, removing its strongest cells first should make the class less probable quickly: the smaller the
# area under the curve, the better (Petsiuk et al. 2018, "RISE", section 4.3). Cells are replaced by the mean colour of
# the data. The number alone says nothing; it needs controls: random maps, and "near the middle first", which knows
# nothing of the picture.

# %%
identity, steps = Geometry.identity((32, 32)), 16


def log_probability(batch):
    return exported.model(batch).log_softmax(dim=-1)[:, [ship]]


def deletion(weights, image):
    """The probability of "ship" while more and more of the picture is taken away, (steps + 1,)."""
    order = descending(weights, identity, units="cells")
    return transition(log_probability, image, torch.zeros_like(image), order, steps)[:, 0].exp().numpy()


candidates = {
    **maps,
    "near the middle": [centre_map((8, 8), identity)] * len(images),
    "random": [random_map((8, 8), seed) for seed in range(len(images))],
}
share = taken(64, steps) / 64
curves = {name: [deletion(*pair) for pair in zip(found, images, strict=True)] for name, found in candidates.items()}
areas = {name: area(np.array(found), share) for name, found in curves.items()}
for name, found in areas.items():
    print(f"{name:16} area {found.mean():.3f} ± {found.std(ddof=1) / len(found) ** 0.5:.3f}")

# %%
figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
styles = ["-", "-", "-", "--", ":"]
shades = ["tab:orange", "tab:green", "tab:blue", "0.45", "0.6"]
for (name, found), style, shade in zip(curves.items(), styles, shades, strict=True):
    axis.plot(share, np.mean(found, axis=0), style, color=shade, label=name)
axis.set(xlabel="share of the picture that is taken away", ylabel="probability of ship", ylim=(0, None), xlim=(0, 1))
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# Relevance has an area of `0.180` and rollout one of `0.233`, clearly below random maps with `0.323`: the answer hangs
# on what they call important. The raw map of the last layer has `0.399`, no better than random; yet it is the map that
# is shown most often. (On CIFAR-10's own pictures raw attention does no
# better, and there rollout and relevance are no better than the distance to the middle: `docs/cifar10.md`.)
#
# ## Random weights: does the map know the model?
#
# Adebayo et al. 2018 ("Sanity Checks for Saliency Maps") ask: if all weights are replaced by random ones, does the map
# change? If not, it shows the picture or the architecture, and nothing that was learnt. Here the map of the trained
# model is compared with that of the same network with random weights, by the correlation of their ranks.

# %%
torch.manual_seed(0)
untrained = copy.deepcopy(exported.model)
for module in untrained.modules():
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()
random_vit = ViT(untrained.eval())


def rank_correlation(one, other):
    ranks = [part.ravel().argsort().argsort() for part in (one, other)]
    return np.corrcoef(*ranks)[0, 1]


for name, method in methods.items():
    theirs = method(random_vit, images, targets).detach().numpy()
    found = [rank_correlation(*pair) for pair in zip(maps[name], theirs, strict=True)]
    print(f"{name:16} rank correlation with an untrained model {np.mean(found):.2f}")

# %% [markdown]
# The correlations are low, the largest `0.25`: these maps do depend on what was learnt. A method that came near 1 here
# would draw the same map for a model that knows nothing.
#
# ## When a weight lies
#
# Attention is a weighted mean of *values*, and a weight says nothing about the value that it multiplies. Let a place
# have the weight 0.60 and a value that is nearly zero: it adds nothing to the output. What counts is the length of what
# is added, ‖αᵢ vᵢ‖ (Kobayashi et al. 2020, "Attention is Not Only a Weight").

# %%
alpha = np.array([0.60, 0.20, 0.10, 0.10])
values = np.array([[0.01, 0.0], [1.0, 0.5], [-0.5, 1.0], [0.0, -1.0]])
added = np.linalg.norm(alpha[:, None] * values, axis=1)
without = alpha[1:] @ values[1:]
print("weights       ", alpha)
print("what they add ", added.round(3))
print("output        ", (alpha @ values).round(3), "  without the first place", without.round(3))

# %% [markdown]
# The place with the largest weight adds `0.006`, and the output is practically the same without it. Trained networks do
# this on purpose: where a head has nothing to say, it puts its weight on a token with a short value ("attention
# sinks"). Further ways to be misled: tokens that have mixed before the layer that is drawn; a colour scale of its own
# for each map, which makes noise look like structure; a map in the wrong place (chapter 5); and a single, well chosen
# picture.
#
# ## Exercise
#
# Complete `answer`: rollout of the layers' weights, with the mean of the heads and Â = (A + I) / 2, in NumPy.


# %%
def answer(layers):
    """A list of (heads, N, N) weights, first layer first, to (N, N)."""
    return None  # your code here


def check(answer):
    random = np.random.default_rng(13)
    layers = [random.dirichlet(np.ones(5), size=(3, 5)) for _ in range(4)]
    found = answer(layers)
    if np.shape(found) != (5, 5):
        return "Not yet: return one (N, N) matrix."
    if not np.allclose(np.sum(found, axis=1), 1):
        return "Not yet: the rows do not sum to 1."
    right = rollout(torch.from_numpy(layer)[None] for layer in layers)[0].numpy()
    if not np.allclose(found, right):
        return "Not yet: the numbers differ. Is the last layer's matrix on the left?"
    return "Right: this is visattn.explain.rollout."


print(check(answer))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def answer(layers):
#     result = np.eye(layers[0].shape[-1])
#     for weights in layers:
#         passed = (weights.mean(axis=0) + np.eye(len(result))) / 2
#         result = passed @ result
#     return result
# ```
#
# </details>
#
# ## Further reading
#
# - Jain and Wallace 2019, "Attention is not Explanation", and the reply, Wiegreffe and Pinter 2019, "Attention is not
#   not Explanation".
# - Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers": rollout.
# - Chefer, Gur, Wolf 2021, "Generic Attention-model Explainability": relevance.
# - Adebayo et al. 2018, "Sanity Checks for Saliency Maps"; Petsiuk et al. 2018, "RISE": the two tests above.
# - Kobayashi et al. 2020, "Attention is Not Only a Weight"; Xiao et al. 2023, on attention sinks.
# - `docs/faithfulness.md`: the same questions on real data, with the captioners of this package.
