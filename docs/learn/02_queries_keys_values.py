# %% [markdown]
# # 2. Queries, keys and values by hand
#
# **Objectives.** After this chapter you can
#
# - say what a query, a key and a value are, and compute all three with one matrix product each;
# - compute attention in four lines of NumPy and explain each of them;
# - forbid some places with a mask, and show that the result is what `visattn.attention.attend` returns.
#
# Nothing is trained here, and nothing is loaded: four words with three numbers each are enough.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from visattn.attention import attend

plt.rcParams.update({"figure.dpi": 110, "font.size": 9})
np.set_printoptions(precision=4, suppress=True)

# %% [markdown]
# ## Three roles for every word
#
# Each word is a vector x. Three matrices give it three roles:
#
# | role | computed as | what it is for |
# |---|---|---|
# | query q | x W_Q | what this word looks for |
# | key k | x W_K | what this word can be found by |
# | value v | x W_V | what is taken from this word when it is found |
#
# In a trained model the three matrices are learnt. Here they hold random whole numbers, so that you can check every
# step with a pencil.

# %%
names = ["word 1", "word 2", "word 3", "word 4"]
words = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=float)

np.random.seed(42)
W_Q, W_K, W_V = (np.random.randint(3, size=(3, 3)) for _ in range(3))
queries, keys, values = words @ W_Q, words @ W_K, words @ W_V

print("queries", queries, "keys", keys, "values", values, sep="\n")

# %% [markdown]
# ## From scores to weights
#
# **Scores.** How well does each query match each key? By their dot product, eᵢⱼ = qᵢ · kⱼ: all of them at once are
# the matrix Q Kᵀ, with one row for each query and one column for each key.

# %%
scores = queries @ keys.T
print(scores)

# %% [markdown]
# **Weights.** The scores are divided by √3, because keys have 3 numbers (chapter 3 shows why), and each row goes
# through a softmax: αᵢⱼ = exp(eᵢⱼ / √3) / Σₗ exp(eᵢₗ / √3). Every weight is then positive, and each row sums to 1.
# The largest score of a row is subtracted first; this changes nothing in the quotient, and keeps exp from overflowing.


# %%
def softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


weights = softmax(scores / np.sqrt(3))
print(weights)
print("sums of the rows:", weights.sum(axis=-1))

# %% [markdown]
# ## From weights to the output
#
# **Output.** What word i gets is the weighted mean of all values, zᵢ = Σⱼ αᵢⱼ vⱼ. Word 1 puts `0.2361` of its
# weight on itself, `0.0074` on word 2, `0.7491` on word 3, and so on: its output lies between the values, closest to
# that of word 3.

# %%
output = weights @ values
print(output)

# %% [markdown]
# Together this is scaled dot-product attention, softmax(Q Kᵀ / √d) V (Vaswani et al. 2017, "Attention Is All You Need",
# eq. 1). The three steps side by side:

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 2.9), layout="constrained")
for axis, matrix, title, form, columns in (
    (axes[0], scores, "scores  Q Kᵀ", "{:.0f}", names),
    (axes[1], weights, "weights  softmax(Q Kᵀ / √3)", "{:.2f}", names),
    (axes[2], output, "output  weights · V", "{:.2f}", ["1", "2", "3"]),
):
    axis.imshow(matrix, cmap="Blues", vmin=0, vmax=matrix.max() * 1.3)
    axis.set_title(title, fontsize=10)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(4), names if axis is axes[0] else [])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    for (row, column), number in np.ndenumerate(matrix):
        ink = "white" if number > 0.8 * matrix.max() else "black"
        axis.text(column, row, form.format(number), ha="center", va="center", color=ink)
plt.show()

# %% [markdown]
# ## The same in the package
#
# `visattn.attention.attend` is this equation. All other mechanisms of the package are variations of it: other scores,
# other ways from scores to weights, or weights for a part of the places.

# %%
out, alpha = attend(*(torch.from_numpy(part) for part in (queries, keys, values)))
print("largest difference of the outputs:", f"{np.abs(out.numpy() - output).max():.0e}")

# %% [markdown]
# That is not exactly 0, because the package computes the softmax in 32 bits, also where everything else has 64: models
# have no use for more, and weights stay comparable between machines. With the same rounding at the same place, the
# outputs agree to 1e-12:

# %%
rounded = torch.softmax(torch.from_numpy(scores / np.sqrt(3)).float(), dim=-1).double().numpy()
difference = np.abs(out.numpy() - rounded @ values).max()
print("equal to 1e-12:", bool(difference < 1e-12))

# %% [markdown]
# ## A mask
#
# Some places must not be seen: padding at the end of a short sentence, or, in a decoder, the words that come later.
# Their scores are set to −∞ before the softmax, so their weights are exactly 0 and the others still sum to 1. Here the
# last word is hidden from all:

# %%
hidden = np.array([True, True, True, False])
masked = softmax(np.where(hidden, scores / np.sqrt(3), -np.inf))
print(masked)
_, alpha = attend(*(torch.from_numpy(part) for part in (queries, keys, values)), mask=torch.from_numpy(hidden))
print("largest difference to attend:", f"{np.abs(alpha.numpy() - masked).max():.0e}")

# %% [markdown]
# ## Exercise
#
# In a decoder, word i may see itself and earlier words, but nothing later ("causal" attention). Complete `answer` so
# that it returns the output and the weights of causal attention, in NumPy.


# %%
def answer(queries, keys, values):
    """Queries and keys (N, d), values (N, D) to the output (N, D) and the weights (N, N)."""
    return None, None  # your code here


def check(answer):
    random = np.random.default_rng(7)
    parts = random.normal(size=(5, 3)), random.normal(size=(5, 3)), random.normal(size=(5, 2))
    output, weights = answer(*parts)
    if np.shape(output) != (5, 2) or np.shape(weights) != (5, 5):
        return "Not yet: return the output (N, D) and the weights (N, N)."
    if np.triu(weights, 1).any():
        return "Not yet: some word sees a later one."
    right = attend(*map(torch.from_numpy, parts), mask=torch.ones(5, 5, dtype=torch.bool).tril())
    if not all(np.allclose(mine, theirs, atol=1e-6) for mine, theirs in zip((output, weights), right, strict=True)):
        return "Not yet: the numbers differ. Do the rows of the weights sum to 1, and are scores divided by √d?"
    return "Right: output and weights are those of attend."


print(check(answer))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def answer(queries, keys, values):
#     scores = queries @ keys.T / np.sqrt(keys.shape[-1])
#     allowed = np.tril(np.ones(scores.shape, dtype=bool))
#     weights = softmax(np.where(allowed, scores, -np.inf))
#     return weights @ values, weights
# ```
#
# </details>
#
# ## Further reading
#
# - Bahdanau, Cho, Bengio 2014, "Neural Machine Translation by Jointly Learning to Align and Translate": where it began.
# - Vaswani et al. 2017, "Attention Is All You Need", section 3.2: queries, keys and values by these names.
# - `visattn/attention/general.py`: `attend`, in seven lines.
