# %% [markdown]
# # 1. One vector, or many: why attention
#
# **Objectives.** After this chapter you can
#
# - say what an encoder and a decoder hand over, once as a single vector and once as many;
# - show with a few lines of NumPy why a vector of fixed size holds a short sequence and not a long one;
# - compare both in trained models, by the curve that started it all: accuracy against length.
#
# Two small models are trained here, in some seconds each.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from visattn.attention import FinalStateAttention
from visattn.studies.sequences import MECHANISMS, Reordering, evaluate, train

plt.rcParams.update({"figure.dpi": 110, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
rng = np.random.default_rng(0)
torch.set_num_threads(1)

# %% [markdown]
# ## The bottleneck
#
# In 2014 a sentence was translated by two recurrent networks. The *encoder* reads it word by word, and its last state h
# is all that is left. The *decoder* writes the translation from that one vector: it starts from it (Sutskever et al.
# 2014), or sees it again at every word (Cho et al. 2014),
#
# z₁ = z₂ = … = h.
#
# The vector has the same size for three words and for fifty. A picture has the same problem: the first neural
# captioners saw one vector for the whole picture, too (Vinyals et al. 2015). Attention keeps *all* the encoder's states
# a₁ … a_S, one for each word or place, and makes a new mean of them for each word t that is written (Bahdanau et al.
# 2014):
#
# zₜ = Σᵢ αₜᵢ aᵢ.
#
# How the weights α come about is the subject of chapters 2 to 4. Here the question is only what one loses with one
# vector.
#
# ## A vector that holds a sequence, by hand
#
# Give each of 16 letters a random vector x of D signs ±1, and each place t another one, pₜ. The sum m = Σₜ pₜ ⊙ x₍ₜ₎ is
# one vector of D numbers that holds all letters *and* their order. To read place t, multiply by pₜ again: pₜ ⊙ m = x₍ₜ₎
# + noise, because pₜ ⊙ pₜ = 1; then take the letter that fits best.


# %%
def share_right(S, D, tries=100):
    """Share of S letters that are read correctly from one vector of D numbers."""
    letters = rng.choice([-1, 1], size=(16, D))
    right = 0
    for _ in range(tries):
        signs, sequence = rng.choice([-1, 1], size=(S, D)), rng.integers(16, size=S)
        one_vector = (signs * letters[sequence]).sum(axis=0)
        read = (letters @ (signs * one_vector).T).argmax(axis=0)
        right += (read == sequence).mean() / tries
    return right


lengths = [1, 2, 5, 10, 20, 40, 80]
held = {D: [share_right(S, D) for S in lengths] for D in (16, 64, 256)}
for D, shares in held.items():
    print(f"D = {D:3} ", "  ".join(f"{S}: {share:.2f}" for S, share in zip(lengths, shares, strict=True)))

# %% [markdown]
# With 64 numbers, five letters are read almost without a mistake (`0.98`), of ten letters `0.79`, and of 80 only
# `0.22`. The right letter's score is D, and the other S − 1 letters add noise with the standard deviation √(D (S − 1)):
# what counts is the quotient D / (S − 1). For sequences of twice the length the vector must be twice as long. Many
# vectors have no such limit: each letter stays in its own, whatever S is.
#
# A trained encoder can do better than random signs, but it must *learn* to pack, and the decoder to unpack.
#
# ## The same, learnt
#
# The task: copy a sequence of letters into another alphabet. Both models have the same bidirectional recurrent encoder
# with 64 numbers for each letter, the same decoder, and the same 130 training steps, with sequences of 1 to 8 letters.
# They differ in one thing:
#
# - *one vector*: each word sees the encoder's two final states (`FinalStateAttention`);
# - *many*: each word sees a weighted mean of all states, with weights of its own (`SoftAttention`).
#
# Both are then asked for lengths that occurred in training, and for longer ones.

# %%
task = Reordering("copying", source="abcdef", target="αβγδεζ", backwards=False, lengths=(1, 8))
asked = [1, 2, 4, 6, 8, 12, 16]
models, accuracy = {}, {}
for name, mechanism in (("one vector", "fixed"), ("many", "soft")):
    model = models[name] = train(task, MECHANISMS[mechanism], 130, encoding="recurrent", size=16, learning_rate=6e-3)
    accuracy[name] = []
    for length in asked:
        unseen = task._replace(lengths=(length, length)).batch(100, torch.Generator().manual_seed(7), "test")
        accuracy[name].append(evaluate(model, unseen)["token_accuracy"])
    print(f"{name:11}", "  ".join(f"{S}: {share:.2f}" for S, share in zip(asked, accuracy[name], strict=True)))

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained", sharey=True)
axes[0].plot(lengths, [1] * len(lengths), "o-", color="tab:blue", markersize=4)
for (D, shares), style in zip(held.items(), (":", "--", "-."), strict=True):
    axes[0].plot(lengths, shares, style, marker="o", color="tab:orange", markersize=4)
    axes[0].annotate(f"D = {D}", (80, shares[-1]), (6, 0), textcoords="offset points", va="center")
axes[0].set(title="by hand", xlabel="letters", ylabel="share read correctly", ylim=(0, 1.03), xlim=(0, 96))
axes[1].axvspan(*task.lengths, color="0.94", zorder=0)
for name, colour in (("many", "tab:blue"), ("one vector", "tab:orange")):
    axes[1].plot(asked, accuracy[name], "o-", color=colour, markersize=4, label=name)
axes[1].set(title="learnt (shaded: lengths in training)", xlabel="letters")
axes[1].legend(frameon=False)
plt.show()

# %% [markdown]
# This is the picture of Bahdanau et al. 2014 (figure 2) in small. One vector serves for two letters (`0.97`), and of
# eight letters, a length that it was trained on, it gets `0.47`. With attention it is `0.84`.
#
# Look at the right end, too. Attention does *not* make a model work at any length: with 16 letters it is at `0.30`, one
# vector at `0.21`. All vectors are there, but the model has only learnt to *find* its way in sequences of up to eight.
# Where to look must not depend on having been that far before; `docs/sequences.md` compares mechanisms in this, on
# sequences of up to 80 symbols.
#
# ## Exercise
#
# What exactly is the one vector? The encoder is bidirectional: the first half of each annotation vector was computed
# from left to right, the second half from right to left. A direction's final state is the one in which it has read
# *everything*. Sequences of a batch are padded at the end; the mask says which places are real. Complete `answer`.


# %%
def answer(values, mask):
    """Annotation vectors (B, S, D), D even, and a boolean mask (B, S) to one vector for each sequence, (B, D)."""
    return None  # your code here


def check(answer):
    random = np.random.default_rng(3)
    values = random.normal(size=(4, 7, 6))
    mask = np.arange(7) < np.array([7, 3, 5, 1])[:, None]
    found = answer(values, mask)
    if np.shape(found) != (4, 6):
        return "Not yet: return one vector (D,) for each of the B sequences."
    fixed = FinalStateAttention(query_size=5, value_size=6)
    memory = fixed.prepare(torch.from_numpy(values), (1, 7), torch.from_numpy(mask))
    right = fixed(torch.zeros(4, 5), memory, t=0).context.numpy()
    if np.allclose(found[0], right[0]) and not np.allclose(found, right):
        return "Not yet: right without padding. Where does a shorter sequence end?"
    if not np.allclose(found, right):
        return "Not yet: the numbers differ. At which end has the backward direction read everything?"
    return "Right: this is the context of FinalStateAttention, the same for each word."


print(check(answer))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def answer(values, mask):
#     half = values.shape[2] // 2
#     last = mask.sum(axis=1) - 1
#     forward = values[np.arange(len(values)), last, :half]
#     backward = values[:, 0, half:]
#     return np.concatenate([forward, backward], axis=1)
# ```
#
# </details>
#
# ## Further reading
#
# - Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation",
#   and Sutskever, Vinyals, Le 2014, "Sequence to Sequence Learning with Neural Networks": one vector.
# - Cho et al. 2014, "On the Properties of Neural Machine Translation": quality falls with length.
# - Bahdanau, Cho, Bengio 2014, "Neural Machine Translation by Jointly Learning to Align and Translate": the remedy.
# - Plate 1995, "Holographic Reduced Representations": more about sequences in one vector.
# - Dubois et al. 2020, "Location Attention for Extrapolation to Longer Sequences": why attention fails beyond the
#   lengths of training.
# - `docs/sequences.md`: seven mechanisms on sequences of up to 80 symbols.
