# %% [markdown]
# # 6. Hard attention and REINFORCE
#
# **Objectives.** After this chapter you can
#
# - say how hard attention differs from soft attention, and why it cannot be trained by plain back-propagation;
# - derive REINFORCE in three lines, and compute its bias and variance exactly;
# - explain what a baseline does, which baselines are allowed, and why leaving a sample out of its own baseline matters.
#
# Nothing is trained. The picture is a grid of 3 × 3 places, so small that every possible sample can be enumerated.

# %%
import itertools

import matplotlib.pyplot as plt
import numpy as np
import torch

from visattn.attention import Glimpse
from visattn.training.objectives import LeaveOneOut, Reinforce

plt.rcParams.update({"figure.dpi": 110, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
rng = np.random.default_rng(0)

# %% [markdown]
# ## One place, drawn
#
# Soft attention takes the weighted mean of all places. Hard attention looks at *one* place s, drawn with the
# probabilities α = softmax(e) (Xu et al. 2015, "Show, Attend and Tell", section 4.1). The word that is predicted from
# that place is good or bad: it has a cost cₛ, minus the log-probability of the right word. What should become small is
# the expected cost
#
# C(e) = Σₛ αₛ cₛ.
#
# Let one cell out of nine be right: looking there costs 0.5, elsewhere between 2 and 4. The scores e start at random.

# %%
costs = rng.uniform(2, 4, size=9)
costs[4] = 0.5
scores = rng.normal(scale=0.7, size=9)
alpha = np.exp(scores) / np.exp(scores).sum()
expected = alpha @ costs
print("probabilities", alpha.reshape(3, 3).round(2), "costs", costs.reshape(3, 3).round(2), sep="\n")
print(f"expected cost {expected:.3f}")

# %% [markdown]
# ## The exact gradient
#
# With the derivative of the softmax from chapter 3, ∂αₛ/∂eⱼ = αₛ (1[s = j] − αⱼ), the gradient of C is
#
# ∂C/∂eⱼ = Σₛ cₛ αₛ (1[s = j] − αⱼ) = αⱼ (cⱼ − C).
#
# It is negative, so the score grows, where a place is cheaper than average. But it needs the cost of *every* place:
# nine runs of the decoder for one word, and 9ᵀ for a caption of T words. That is too many; so it is estimated.
#
# ## REINFORCE
#
# For any probabilities, ∇αₛ = αₛ ∇log αₛ. Hence (Williams 1992; Xu et al. 2015, eq. 11 and 12)
#
# ∇C = Σₛ cₛ ∇αₛ = Σₛ αₛ cₛ ∇log αₛ = E[cₛ ∇log αₛ],
#
# an expectation over samples: draw a place, look what it costs, and take the cost times ∇log αₛ = 1[s = j] − αⱼ. A
# number b that does not depend on the sample may be subtracted, since E[b ∇log αₛ] = b ∇Σₛ αₛ = b ∇1 = 0:
#
# ĝ = (cₛ − b) ∇log αₛ, and E[ĝ] = ∇C for every such b.


# %%
def exact(alpha, costs):
    return alpha * (costs - alpha @ costs)


def estimates(alpha, costs, b=0.0):
    """The estimate for each of the nine places that may be drawn, (9, 9): a row for each."""
    return (costs - b)[:, None] * (np.eye(9) - alpha)


gradient = exact(alpha, costs)
print("exact gradient", gradient.reshape(3, 3).round(3), sep="\n")
print("no bias without a baseline:", np.allclose(alpha @ estimates(alpha, costs), gradient, atol=1e-12))
print("no bias with b = 3:        ", np.allclose(alpha @ estimates(alpha, costs, b=3.0), gradient, atol=1e-12))

# %%
shown = [("exact", gradient)]
for count in (1, 10, 100, 10000):
    drawn = rng.choice(9, p=alpha, size=count)
    shown.append((f"mean of {count:,}" if count > 1 else "1 sample", estimates(alpha, costs)[drawn].mean(axis=0)))
figure, axes = plt.subplots(1, 5, figsize=(10, 2.4), layout="constrained")
for axis, (title, part) in zip(axes, shown, strict=True):
    limit = np.abs(part).max()
    axis.imshow(part.reshape(3, 3), cmap="RdBu", vmin=-limit, vmax=limit)
    axis.set_title(title, fontsize=10)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    for place, number in enumerate(part):
        ink = "white" if abs(number) > 0.6 * limit else "black"
        axis.text(place % 3, place // 3, f"{number:.2f}", ha="center", va="center", fontsize=8, color=ink)
plt.show()

# %% [markdown]
# The mean of many estimates is right, and a single one is nearly all noise: without a baseline all costs are positive,
# so *whatever* place is drawn becomes less probable, good or bad.
#
# ## Variance, and what a baseline does
#
# The variance of ĝ, summed over its nine numbers, is E‖ĝ‖² − ‖∇C‖². It is a parabola in b, lowest at b* = E[cₛ ‖∇log
# αₛ‖²] / E[‖∇log αₛ‖²], a weighted mean of the costs. The plain mean C is nearly as good, and easier to have: Xu et
# al. use a moving average of it. Bias and variance side by side, now also for an estimate with a *forbidden* baseline:
# half the sample's own cost, b = cₛ / 2. Its gradient points the right way, with half the length.


# %%
def bias_and_variance(estimates, probabilities):
    """Of estimates (N, 9) that occur with probabilities (N,)."""
    mean = probabilities @ estimates
    return np.linalg.norm(mean - gradient), probabilities @ (estimates**2).sum(axis=1) - mean @ mean


length = ((np.eye(9) - alpha) ** 2).sum(axis=1)
best = alpha @ (costs * length) / (alpha @ length)
for name, b in (("b = 0", 0.0), ("b = C", expected), ("b = b*", best), ("b = c/2, not allowed", costs / 2)):
    bias, variance = bias_and_variance(estimates(alpha, costs, b), alpha)
    print(f"{name:21} bias {bias:.3f}   variance {variance:.3f}")

# %% [markdown]
# The mean as a baseline lowers the variance from `6.569` to `0.750` at no bias: one sample is then worth about nine
# without it. The forbidden baseline lowers it, too, but has a bias of `0.186`, which more samples never remove.
#
# ## Leave one out
#
# Where does b come from? With K samples for the same word, their costs are at hand. Compare each sample with the mean
# of all K, and the baseline contains the sample's own cost: the estimate comes out too short by the factor (K − 1)/K.
# Compare it with the mean of the *other* samples, and there is no bias (Kool et al. 2019, "Buy 4 REINFORCE Samples, Get
# a Baseline for Free!"). All 9⁴ = 6561 ways to draw four places are enumerated here, so these numbers are exact.

# %%
K = 4
draws = np.array(list(itertools.product(range(9), repeat=K)))  # (6561, 4)
chances = alpha[draws].prod(axis=1)
paid = costs[draws]
baselines = {
    "none": np.zeros_like(paid),
    "C, if it were known": np.full_like(paid, expected),
    "mean of all four": np.broadcast_to(paid.mean(axis=1, keepdims=True), paid.shape),
    "mean of the others": (paid.sum(axis=1, keepdims=True) - paid) / (K - 1),
}
results = {}
for name, b in baselines.items():
    each = (paid - b)[:, :, None] * (np.eye(9) - alpha)[draws]  # (6561, 4, 9)
    results[name] = bias_and_variance(each.mean(axis=1), chances)
    print(f"{name:20} bias {results[name][0]:.3f}   variance {results[name][1]:.3f}")

# %%
print(f"length of the exact gradient {np.linalg.norm(gradient):.3f}")
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
bs = np.linspace(0, 5, 101)
axes[0].plot(bs, [bias_and_variance(estimates(alpha, costs, b), alpha)[1] for b in bs], color="tab:blue")
axes[0].axvline(expected, color="0.5", linestyle=":")
axes[0].annotate("b = C", (expected, 6), xytext=(-4, 0), textcoords="offset points", ha="right", color="0.4")
axes[0].set(title="one sample: variance against b", xlabel="baseline b", ylabel="variance", ylim=(0, None))
rows = np.arange(len(results))
axes[1].barh(rows + 0.2, [bias for bias, _ in results.values()], height=0.36, color="tab:orange", label="bias")
axes[1].barh(rows - 0.2, [part**0.5 for _, part in results.values()], height=0.36, color="tab:blue", label="deviation")
axes[1].axvline(np.linalg.norm(gradient), color="0.5", linestyle=":")
axes[1].set_yticks(rows, results)
axes[1].set(title="four samples (dotted: length of the gradient)", xlim=(0, None))
axes[1].legend(frameon=False, loc="lower right")
axes[1].invert_yaxis()
plt.show()

# %% [markdown]
# The mean of all four has a bias of `0.093`, a quarter of the gradient's length of `0.373`. The mean of the others has
# none. Its variance is larger, `0.274` against `0.154`, for a plain reason: it *is* the other estimate, times K/(K −
# 1), because c − (mean of all) = (K − 1)/K · (c − mean of the others). For a fixed K that is only another step size. It
# matters when the gradient is added to others, as a captioner's is, and when K changes: then only the unbiased one
# means the same.
#
# ## The same in the package
#
# `visattn.training.objectives.Reinforce` makes a number whose gradient is the estimate: Σ (c − b) log αₛ, where c − b
# is held constant. Four samples, once by hand and once through the package:

# %%
drawn = np.array([4, 0, 7, 4])
e = torch.tensor(scores, requires_grad=True)
weights = e.softmax(dim=0).expand(K, 1, 9)  # K captions of one word
log_prob = e.log_softmax(dim=0)[torch.from_numpy(drawn)].unsqueeze(1)
glimpse = Glimpse(weights @ torch.eye(9, dtype=weights.dtype), weights, weights, log_prob, torch.ones_like(log_prob))
rule = Reinforce(baseline=LeaveOneOut(draws=K))
rule(torch.tensor(costs[drawn]).unsqueeze(1), glimpse, torch.ones(K, 1, dtype=torch.bool)).surrogate.mean().backward()

paid = costs[drawn]
others = (paid.sum() - paid) / (K - 1)
by_hand = ((paid - others)[:, None] * (np.eye(9) - alpha)[drawn]).mean(axis=0)
print("equal to the package's:", np.allclose(e.grad.numpy(), by_hand, atol=1e-12))

# %% [markdown]
# A whole caption adds one thing: a place cannot change words before it. So a sample needs to pay only for its own word
# and later ones (`reward="to_go"`), which has no bias and less variance again. `visattn/attention/hard.py` draws;
# `configs/attention/hard.yaml` trains a captioner that way.
#
# ## Exercise
#
# Complete `answer`: the advantages c − b of K samples for each of several captions, where b is the mean cost of the
# *other* samples for the same caption.


# %%
def answer(costs):
    """Costs (captions, K) to advantages (captions, K)."""
    return None  # your code here


def check(answer):
    random = np.random.default_rng(5)
    costs = random.uniform(0, 4, size=(3, 5))
    advantages = answer(costs)
    if np.shape(advantages) != (3, 5):
        return "Not yet: return one advantage for each cost."
    changed = costs.copy()
    changed[0, 0] += 1
    if not np.isclose((answer(changed) - advantages)[0, 0], 1):
        return "Not yet: a sample's baseline depends on its own cost."
    baseline = LeaveOneOut(draws=5)(torch.from_numpy(costs).reshape(-1, 1), torch.ones(15, 1, dtype=torch.bool))
    if not np.allclose(advantages, costs - baseline.numpy().reshape(3, 5)):
        return "Not yet: the baseline is not the mean of the caption's other samples."
    return "Right: these are the advantages of LeaveOneOut."


print(check(answer))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def answer(costs):
#     others = (costs.sum(axis=1, keepdims=True) - costs) / (costs.shape[1] - 1)
#     return costs - others
# ```
#
# </details>
#
# ## Further reading
#
# - Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning".
# - Xu et al. 2015, "Show, Attend and Tell", section 4.1: hard attention, with a moving average and half of the samples
#   replaced by soft attention.
# - Rennie et al. 2017, "Self-critical Sequence Training for Image Captioning": the greedy caption's reward as a
#   baseline.
# - Kool, van Hoof, Welling 2019, "Buy 4 REINFORCE Samples, Get a Baseline for Free!".
# - Mohamed et al. 2020, "Monte Carlo Gradient Estimation in Machine Learning": all the alternatives.
