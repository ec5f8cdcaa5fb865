# %% [markdown]
# # 3. Scores, and what √d does
#
# **Objectives.** After this chapter you can
#
# - compute four scores of a query and a key, and say which of them have weights to learn;
# - explain why the dot product is divided by √d, with numbers: how far scores spread, how sure the softmax gets, and
#   how much gradient is left;
# - choose the divisor for other vectors than the usual ones.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from visattn.attention import AdditiveScore, DotScore, GeneralScore, ScaledDotScore

plt.rcParams.update({"figure.dpi": 110, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
torch.manual_seed(0)

# %% [markdown]
# ## Four scores
#
# A score says how well a query q and the key or value k of a place match: one number, before the softmax.
#
# | score | equation | to be learnt | paper |
# |---|---|---|---|
# | dot | qᵀ k | nothing | Luong et al. 2015, eq. 8 |
# | scaled dot | qᵀ k / √d | nothing | Vaswani et al. 2017, eq. 1 |
# | general | qᵀ W k | W | Luong et al. 2015, eq. 8 |
# | additive | vᵀ tanh(W q + U k + b) | v, W, U, b | Bahdanau et al. 2014, appendix A.1.2 |
#
# Each is a class of the package. Below, each is computed twice: by the class, and by its equation in NumPy, with the
# weights of the class. Vectors have 6 numbers, and there are 5 places.

# %%
d, places = 6, 5
q, k = torch.randn(1, 1, d), torch.randn(1, places, d)  # one image, one query
query, keys = q[0, 0].numpy(), k[0].numpy()

dot, scaled, general, additive = DotScore(d, d), ScaledDotScore(d, d), GeneralScore(d, d), AdditiveScore(d, d, hidden=8)
W, W_query, U, b, v = (
    part.detach().numpy()
    for part in (
        general.key.weight,
        additive.query.weight,
        additive.key.weight,
        additive.key.bias,
        additive.energy.weight[0],
    )
)

by_hand = {
    "dot": (dot, keys @ query),
    "scaled": (scaled, keys @ query / np.sqrt(d)),
    "general": (general, (keys @ W.T) @ query),
    "additive": (additive, np.tanh(W_query @ query + keys @ U.T + b) @ v),
}
for name, (score, mine) in by_hand.items():
    theirs = score(q, score.keys(k))[0, 0].detach().numpy()
    learnt = sum(part.numel() for part in score.parameters())
    equal = np.allclose(mine, theirs, atol=1e-5)
    print(f"{name:9} {learnt:3} numbers to be learnt, equal to the class: {equal}, {np.round(mine, 2)}")

# %% [markdown]
# Which one to take? The dot product is the cheapest and needs vectors of equal size in a common space. The general
# score brings both to a common space. The additive score is a small network of its own: it also finds matches that no
# product finds, and it costs a tanh for each pair of query and place. What depends on the place alone (W k, or U k + b)
# is computed once for each image, not for each word; that is what the method `keys` is for.
#
# ## How far scores spread
#
# Let the d numbers of q and k be independent, with mean 0 and variance 1. Then each product qᵢ kᵢ has mean 0 and
# variance 1, and their sum qᵀ k has the variance d: a standard deviation of √d (Vaswani et al. 2017, footnote 4).
# Measured:

# %%
rng = np.random.default_rng(0)
sizes = [1, 4, 16, 64, 256, 1024]
spread = {}
for size in sizes:
    products = (rng.normal(size=(4000, size)) * rng.normal(size=(4000, size))).sum(axis=1)
    spread[size] = products.std()
    print(f"d = {size:4}   standard deviation {products.std():6.2f}   √d = {np.sqrt(size):6.2f}")

# %% [markdown]
# ## What that does to the softmax
#
# A softmax of scores that lie far apart is nearly one-hot: it is *saturated*. Its derivative is
#
# ∂αᵢ / ∂eⱼ = αᵢ (1[i = j] − αⱼ),
#
# and where α is one-hot, each of these products has a factor near 0. The scores then receive almost no gradient, and
# queries and keys almost do not learn. The picture shows both for 16 places: the mean of the largest weight, and the
# size of the derivative (the Frobenius norm of that 16 × 16 matrix), with and without the division by √d.


# %%
def softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def derivative(weights):
    """Weights (N, L) to ∂α/∂e, (N, L, L)."""
    return weights[:, :, None] * (np.eye(weights.shape[1]) - weights[:, None, :])


largest, gradient = {}, {}
for size in sizes:
    queries, keys = rng.normal(size=(500, size)), rng.normal(size=(500, 16, size))
    scores = np.einsum("nd,nld->nl", queries, keys)
    for name, divisor in (("qᵀk", 1), ("qᵀk / √d", np.sqrt(size))):
        weights = softmax(scores / divisor)
        largest[name, size] = weights.max(axis=1).mean()
        gradient[name, size] = np.linalg.norm(derivative(weights), axis=(1, 2)).mean()
for size in (4, 1024):
    for name in ("qᵀk", "qᵀk / √d"):
        print(f"d = {size:4}  {name:9} largest weight {largest[name, size]:.2f}, derivative {gradient[name, size]:.3f}")

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
one = np.sort(rng.normal(size=16))
for divisor, colour, label in ((1, "tab:orange", "qᵀk, d = 256"), (16, "tab:blue", "qᵀk / √d")):
    axes[0].plot(softmax(one * 16 / divisor), "o-", color=colour, markersize=3, label=label)
axes[0].set(
    title="weights of 16 places, in order", xlabel="place", ylabel="weight", ylim=(-0.03, 1.03), xticks=[0, 5, 10, 15]
)
for axis, numbers, title in ((axes[1], largest, "largest weight"), (axes[2], gradient, "size of the derivative")):
    for name, colour in (("qᵀk", "tab:orange"), ("qᵀk / √d", "tab:blue")):
        axis.plot(sizes, [numbers[name, size] for size in sizes], "o-", color=colour, markersize=3, label=name)
    axis.set(title=title, xlabel="d", xscale="log", ylim=(0, None))
    axis.set_xticks(sizes, sizes)
    axis.minorticks_off()
for axis in axes[:2]:
    axis.legend(frameon=False, loc="upper left")
plt.show()

# %% [markdown]
# Without the division the largest of 16 weights is `0.43` on average for d = 4, and `0.97` for d = 1024; with it,
# `0.24` and `0.25`. For d = 1024 the derivative has fallen to `0.048` without the division, and is `0.304` with it.
#
# Two remarks. The division does not *keep* scores small: a trained model may make its queries and keys as long as it
# likes. It makes the start of training independent of d. And a softmax can be too flat as well: with scores near 0 all
# weights are 1/16, and the output is the mean of all places whatever is asked for.
#
# ## Exercise
#
# The vectors above had a variance of 1. Let each number of q have the standard deviation s_q, and each number of k have
# s_k, still independent with mean 0. What must qᵀ k be divided by, so that scores have the standard deviation 1?


# %%
def answer(d, s_q, s_k):
    """The divisor for vectors of d numbers."""
    return None  # your code here


def check(answer):
    random = np.random.default_rng(3)
    for d, s_q, s_k in ((16, 1.0, 1.0), (64, 0.5, 1.0), (25, 3.0, 0.2)):
        divisor = answer(d, s_q, s_k)
        if not isinstance(divisor, int | float) or divisor <= 0:
            return "Not yet: return a positive number."
        products = (s_q * random.normal(size=(20000, d)) * s_k * random.normal(size=(20000, d))).sum(axis=1)
        if abs((products / divisor).std() - 1) > 0.05:
            return f"Not yet: for d = {d}, s_q = {s_q}, s_k = {s_k} the deviation is {(products / divisor).std():.2f}."
    return "Right: scores have the standard deviation 1."


print(check(answer))

# %% [markdown]
# <details><summary>Solution</summary>
#
# The variance of a product of independent numbers with mean 0 is the product of their variances, s_q² s_k², and the
# variance of the sum of d of them is d times that.
#
# ```python
# def answer(d, s_q, s_k):
#     return float(s_q * s_k * np.sqrt(d))
# ```
#
# </details>
#
# ## Further reading
#
# - Luong, Pham, Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation", section 3.1.
# - Vaswani et al. 2017, "Attention Is All You Need", section 3.2.1 and its footnote 4.
# - Britz et al. 2017, "Massive Exploration of Neural Machine Translation Architectures": dot and additive scores
#   compared.
# - Henry et al. 2020, "Query-Key Normalization for Transformers": what to do when trained scores grow.
# - `visattn/attention/scores.py`: all scores of the package.
