# %% [markdown]
# # 10. Your own mechanism, from equation to overlay
#
# **Objectives.** After this chapter you can
#
# - turn an equation into a class that every decoder, command and overlay of the package accepts;
# - let the package check it: shapes, masks, gradients, and step by step the same as all at once;
# - put it into a trained captioner, and see on the picture what it changes.
#
# The command line for training it, and how to write your own decoder or encoder, are in `docs/your_own_mechanism.md`.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from visattn.attention import Glimpse, SoftAttention, SpatialAttention
from visattn.data import ShapesCaptions
from visattn.export.shipped import caption_model
from visattn.metrics import entropy, truth_scores
from visattn.overlay import heatmap, shared_limits
from visattn.testing import check_attention

plt.rcParams.update({"figure.dpi": 110, "font.size": 9})

# %% [markdown]
# ## The equation
#
# A softmax lets one place win: if one score is larger by 3, its weight is 20 times as large. Where several places
# should count alike, Chorowski et al. 2015 (section 2.3, "smoothing") put the bounded sigmoid σ in place of the
# exponential:
#
# αᵢ = σ(eᵢ) / Σⱼ σ(eⱼ), with eᵢ = (W q)ᵀ U aᵢ / √size.
#
# ## The class
#
# Two methods. `keys` computes what depends on the picture alone, once. `forward` is called for each word with the query
# and with the *memory*, which holds the values, the keys and the mask; it returns a `Glimpse`: the context and the
# weights. Several captions may share one picture, so queries are brought into the shape (images, captions, …) with
# `per_image`.


# %%
class SigmoidAttention(SpatialAttention):
    """α_i = σ(e_i) / Σ_j σ(e_j), with e_i = (W q)ᵀ U a_i / √size."""

    def __init__(self, query_size, value_size, size=64):
        super().__init__()
        self.query, self.key = nn.Linear(query_size, size), nn.Linear(value_size, size)
        self.scale = size**-0.5

    def keys(self, values):  # once per image
        return self.key(values)

    def forward(self, query, memory, t):  # at every word
        queries = memory.per_image(self.query(query)).to(memory.keys.dtype)  # (images, captions, size)
        scores = queries @ memory.keys.transpose(1, 2) * self.scale  # (images, captions, places)
        weights = torch.sigmoid(scores.float())
        if memory.mask is not None:
            weights = weights * memory.mask.unsqueeze(1)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        context = weights.to(memory.values.dtype) @ memory.values
        return Glimpse.soft(context.flatten(0, 1), weights.flatten(0, 1))


# %% [markdown]
# ## The check
#
# `check_attention` holds a mechanism to the contract that the package's own mechanisms keep. It says nothing where all
# is well, and names the law that is broken. Forget the mask, for example:

# %%
check_attention(SigmoidAttention)
print("SigmoidAttention keeps the contract")


class Forgetful(SigmoidAttention):
    def forward(self, query, memory, t):
        return super().forward(query, type(memory)(memory.values, memory.keys, memory.grid, mask=None), t)


try:
    check_attention(Forgetful)
except AssertionError as error:
    print("Forgetful does not:", str(error).splitlines()[0])

# %% [markdown]
# ## The overlay
#
# A mechanism with weights of its own must be trained (minutes for the generated scenes; the page above has the
# command). To see at once what the *sigmoid* changes, keep the trained scores of the included captioner, and change
# only the step from scores to weights. `SoftAttention` has a method for just that step, so the class has three lines:


# %%
class SmoothedAttention(SoftAttention):
    """α_i = σ(e_i) / Σ_j σ(e_j), with the scores of soft attention."""

    def distribution(self, scores):
        weights = torch.sigmoid(scores)
        return weights / weights.sum(dim=-1, keepdim=True)


model = caption_model("captioner-shapes")
trained = model.decoder.attention
data = ShapesCaptions(test_size=100)
examples = data.examples("test")
images = torch.stack([data.load(example)[0] for example in examples])


def look(mechanism):
    """Captions of the scenes by the included captioner, its step from scores to weights replaced."""
    attention = mechanism(query_size=128, value_size=96)
    attention.score = trained.score
    model.decoder.attention = attention.eval()
    captions = [best for (best,) in model.caption(images)]
    facts = [data.facts(example.id).judge(caption.words) for example, caption in zip(examples, captions, strict=True)]
    spread = np.mean([np.exp(entropy(word.ravel())) for caption in captions for word in caption.weights])
    print(f"{mechanism.__name__:18} true captions {truth_scores(facts)['true']:.2f}, places per word {spread:.1f}")
    print(f"    the first: {captions[0].text}")
    return captions[0]


seen = {mechanism: look(mechanism) for mechanism in (SoftAttention, SmoothedAttention)}

# %%
picture = np.asarray(data.scene(examples[0].id).picture(160))
geometry = model.input.geometry(picture.shape[:2])
figure, axes = plt.subplots(2, 6, figsize=(10, 3.7), layout="constrained")
for row, (mechanism, caption) in zip(axes, seen.items(), strict=True):
    limits = shared_limits(caption.weights)
    row[0].imshow(picture)
    row[0].set_title(mechanism.__name__, fontsize=8)
    for axis, word, weights in zip(row[1:], caption.words[:5], caption.weights, strict=False):
        axis.imshow(heatmap(picture, weights, geometry, limits=limits))
        axis.set_title(word)
    for axis in row:
        axis.set_axis_off()
plt.show()

# %% [markdown]
# The exponential of the entropy counts the places that a word looks at. It was `12.7` of 64, and is `58.1` with the
# sigmoid: nearly all of them, as the maps show. And only `0.20` of the captions are true, where all were. The sigmoid
# is not to blame: the scores were learnt for a softmax, for which only differences count, and many of them are so large
# that σ is near 1. *A mechanism belongs to the weights that were trained with it.* So this overlay shows what an
# equation does, and only training shows what it is worth.
#
# ## Exercise
#
# Between softmax and sigmoid lies the *power*: αᵢ = max(eᵢ − m, 0)² / Σⱼ max(eⱼ − m, 0)², where m is the mean of
# the scores. Places below the mean get exactly 0. Complete `answer`: a class that is a `SoftAttention` with these
# weights. Masked places have the score −∞: they must get 0, and must not count in the mean.


# %%
class answer(SoftAttention):  # noqa: N801  # the reader's answer has this name in every chapter
    def distribution(self, scores):
        """Scores (…, L), −∞ where masked, to weights (…, L) that sum to 1."""
        return scores.softmax(dim=-1)  # your code here


def check(answer):
    scores = torch.tensor([[1.0, 2.0, 4.0, 5.0], [0.0, 4.0, 5.0, float("-inf")]])
    found = answer(5, 7).distribution(scores)
    right = torch.tensor([[0.0, 0.0, 0.2, 0.8], [0.0, 0.2, 0.8, 0.0]])
    if found.shape != scores.shape or not torch.allclose(found.sum(dim=-1), torch.ones(2)):
        return "Not yet: each row of weights must sum to 1."
    if found[1, 3] != 0:
        return "Not yet: the masked place gets some weight."
    if not torch.allclose(found, right):
        return "Not yet: the weights differ. Which places count in the mean?"
    try:
        check_attention(answer)
    except AssertionError as error:
        return f"Not yet: check_attention says: {str(error).splitlines()[0]}"
    return "Right: and it keeps the contract."


print(check(answer))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# class answer(SoftAttention):
#     def distribution(self, scores):
#         known = scores.isfinite()
#         kept = scores.masked_fill(~known, 0.0)
#         mean = kept.sum(dim=-1, keepdim=True) / known.sum(dim=-1, keepdim=True)
#         powers = ((kept - mean).clamp(min=0) * known) ** 2
#         return powers / powers.sum(dim=-1, keepdim=True)
# ```
#
# (Where all scores are equal this is 0/0; a finished mechanism would fall back to the mean of all places.)
#
# </details>
#
# ## Further reading
#
# - Chorowski et al. 2015, "Attention-Based Models for Speech Recognition", section 2.3: smoothing.
# - Martins and Astudillo 2016, "From Softmax to Sparsemax": weights that can be exactly zero (`SparsemaxAttention`).
# - Peters, Niculae, Martins 2019, "Sparse Sequence-to-Sequence Models": between the two (`EntmaxAttention`).
# - `docs/your_own_mechanism.md`: train, export and test it from the command line, and your own
#   decoder or encoder.
