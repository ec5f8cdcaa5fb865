# %% [markdown]
# # 5. Look at a picture
#
# **Objectives.** After this chapter you can
#
# - caption a picture with a trained captioner, and lay the attention of each word over it;
# - check whether a caption is *true*, which is more than whether it resembles other captions;
# - check whether a map is *right*: whether a word looked at the thing that it names, compared with chance.
#
# The captioner `captioner-shapes` comes with the package. It was trained on generated scenes of coloured shapes, about
# which everything is known; so truth and maps can be checked word by word.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from visattn.data import ShapesCaptions
from visattn.export.shipped import caption_model
from visattn.metrics import grounding, truth_scores
from visattn.overlay import heatmap, shared_limits

plt.rcParams.update({"figure.dpi": 110, "font.size": 9})

model = caption_model("captioner-shapes")
data = ShapesCaptions(test_size=300)  # scenes that the model was not trained on
examples = data.examples("test")
images = torch.stack([data.load(example)[0] for example in examples])
captions = [best for (best,) in model.caption(images)]
print(len(captions), "captions, the first:", captions[0].text)

# %% [markdown]
# ## How the caption is made
#
# 1. A small convolutional network turns the picture of 64 × 64 pixels into 8 × 8 annotation vectors aᵢ.
# 2. At each word an LSTM asks with its state hₜ: eₜᵢ = vᵀ tanh(W hₜ + U aᵢ + b), αₜ = softmax(eₜ). This is the additive
#    score of chapter 3 (Bahdanau et al. 2014; Xu et al. 2015, eq. 4 and 5).
# 3. The context zₜ = Σᵢ αₜᵢ aᵢ and the state give the probabilities of the next word (Luong et al. 2015, eq. 5 and 6).
#
# So there is one map αₜ of 8 × 8 weights for each word. Laid over the picture, all on one scale:


# %%
def show(name, caption):
    """A scene, and the map of each word of its caption over it."""
    picture = np.asarray(data.scene(name).picture(160))
    geometry = model.input.geometry(picture.shape[:2])
    limits = shared_limits(caption.weights)
    columns = 8
    rows = -(-(1 + len(caption.words)) // columns)
    _, axes = plt.subplots(rows, columns, figsize=(10, 1.45 * rows), layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    axes.flat[0].imshow(picture)
    axes.flat[0].set_title("the scene")
    for axis, word, weights in zip(axes.flat[1:], caption.words, caption.weights, strict=False):
        axis.imshow(heatmap(picture, weights, geometry, limits=limits))
        axis.set_title(word)
    plt.show()


print(captions[0].text)
show(examples[0].id, captions[0])

# %% [markdown]
# When the model says a shape ("triangle", "star", "triangle"), most of the weight is on the thing that it names. At
# other words, above all those that name nothing, the weights spread over several things.
#
# ## Is the caption true?
#
# Usual scores (BLEU, CIDEr) count which words and phrases are also in people's captions. "left of" instead of "right
# of" costs little there, and yet the caption is false. Here each thing that the caption names must exist, and the
# relation must hold. A true caption that names everything is *complete*.

# %%
facts = data.facts(examples[0].id)
for text in (captions[0].text, captions[0].text.replace("below", "above"), "a red triangle"):
    verdict = facts.judge(text.split())
    false = [text.split()[place] for place in verdict.false]
    print(f"true: {verdict.true!s:5}  complete: {verdict.complete!s:5}  false words: {false}  {text}")

verdicts = [data.facts(example.id).judge(caption.words) for example, caption in zip(examples, captions, strict=True)]
scores = truth_scores(verdicts)
print(f"\nof {len(verdicts)} captions {scores['true']:.3f} are true, {scores['true_3']:.3f} of those with three things")

# %% [markdown]
# `0.993` of 300 captions are true. The two that are not:

# %%
for example, caption, verdict in zip(examples, captions, verdicts, strict=True):
    if not verdict.true:
        print(example.id, "|", caption.text, "| false:", [caption.words[place] for place in verdict.false])
        show(example.id, caption)

# %% [markdown]
# The maps tell how both mistakes came about. In the first, the model looks at the triangle again while it says "green
# triangle" for the second time, and never says "circle". In the second, the first "star" is said with the weight split
# between the star and the triangle, which is then left out. *A map that is on the named thing does not make a sentence
# true.*
#
# ## Is the map right?
#
# The pointing game (Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop"): a word scores if the centre
# of its largest cell lies on the thing that it names, with a tolerance (15 pixels in a picture of 224, so 4.3 in one of
# 64). Attention correctness (Liu et al. 2017): which share of the weight lies on that thing. Both mean nothing by
# themselves: things may be large, or tend to be in the middle. So each is printed with what a uniform map and the
# picture's middle would score. Words that name nothing ("a", "left of", "and") are left out.

# %%
maps = [weights for caption in captions for weights in caption.weights]
masks = [
    mask
    for example, caption in zip(examples, captions, strict=True)
    for mask in data.regions(example.id, caption.words)
]
result = grounding(maps, masks, tolerance=15 / 224 * 64, cell_shift=model.input.cell_shift)
print(f"{result.words} words that name something")
print(f"pointing {result.pointing:.2f}   uniform {result.pointing_uniform:.2f}   centre {result.pointing_centre:.2f}")
print(f"mass     {result.mass:.2f}   uniform {result.mass_uniform:.2f}   centre {result.mass_centre:.2f}")

# %% [markdown]
# `0.89` of the words point at their thing, where chance scores `0.12`. The mass is smaller, `0.38`: a cell is 8 pixels
# wide, and small things cover hardly more than one cell.
#
# One detail: where on the picture does a cell belong? The cells of a convolutional map do not look at evenly spaced
# squares; padding and strides shift what they see. The package derives from the layers where each cell looks
# (`cell_shift`), and uses it for drawings and scores. What if the map were simply stretched over the picture?

# %%
print("where the cells look, shifted by", tuple(model.input.cell_shift), "pixels")
even = grounding(maps, masks, tolerance=15 / 224 * 64)
print(f"pointing with evenly spaced cells {even.pointing:.2f}, mass {even.mass:.2f}")

# %% [markdown]
# Within its tolerance the pointing game does not notice a shift of 2.5 pixels, and the mass is even higher, `0.42`. So
# a good score does not prove that a map is drawn in the right place; that has to be known from the network.
#
# ## Exercise
#
# Complete `answer`: attention correctness for one word, with evenly spaced cells. The map has h × w cells, the mask H ×
# W pixels, and h divides H. Each cell's weight is spread evenly over its pixels; return the share that lies in the
# mask.


# %%
def answer(weights, mask):
    """A map (h, w), not negative, and a boolean mask (H, W) to a share in [0, 1]."""
    return None  # your code here


def check(answer):
    random = np.random.default_rng(11)
    for shape, size in (((8, 8), (64, 64)), ((3, 5), (12, 35))):
        weights, mask = random.uniform(size=shape) * 7, random.uniform(size=size) < 0.3
        share = answer(weights, mask)
        if share is None or np.ndim(share) != 0:
            return "Not yet: return one number."
        if not np.isclose(answer(weights, np.ones_like(mask)), 1):
            return "Not yet: all the weight lies in a mask that covers everything. Weights need not sum to 1."
        if not np.isclose(share, grounding([weights], [mask], tolerance=0).mass):
            return "Not yet: the share differs from that of grounding."
    return "Right: this is the mass of grounding."


print(check(answer))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def answer(weights, mask):
#     pixels = mask.shape[0] // weights.shape[0], mask.shape[1] // weights.shape[1]
#     spread = np.kron(weights / weights.sum(), np.ones(pixels) / np.prod(pixels))
#     return spread[mask].sum()
# ```
#
# </details>
#
# ## Further reading
#
# - Xu et al. 2015, "Show, Attend and Tell": captions with attention, and the first of these pictures.
# - Luong, Pham, Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation": this decoder.
# - Liu et al. 2017, "Attention Correctness in Neural Image Captioning".
# - Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop": the pointing game.
# - Rohrbach et al. 2018, "Object Hallucination in Image Captioning": truth of captions of photographs.
