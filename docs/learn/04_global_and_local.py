# %% [markdown]
# # 4. Global and local attention
#
# **Objectives.** After this chapter you can
#
# - say what global, local-m and local-p attention look at, and what each costs;
# - read an alignment: which source word each target word looked at;
# - say of a task, before anything is trained, whether a window that only moves forward can solve it.
#
# Four small models are trained here, on sequences of 4 to 7 letters, in some seconds each.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from visattn.studies.sequences import MECHANISMS, Reordering, alignment, evaluate, train

plt.rcParams.update({"figure.dpi": 110, "font.size": 9})
LENGTHS = (4, 7)
TASKS = {
    "copying": Reordering("copying", source="abcdef", target="αβγδεζ", backwards=False, lengths=LENGTHS),
    "reversal": Reordering("reversal", source="abcdef", target="abcdef", backwards=True, lengths=LENGTHS),
}

# %% [markdown]
# ## All places, or a window
#
# Luong et al. 2015 ("Effective Approaches to Attention-based Neural Machine Translation") distinguish three mechanisms
# for a source of S words. D is half the width of the window.
#
# | mechanism | looks at | the window's middle | weights |
# |---|---|---|---|
# | global (section 3.1) | all S places | | softmax of the scores |
# | local-m (section 3.2) | 2D + 1 places | pₜ = t, the number of the target word | softmax of the scores within |
# | local-p (section 3.2) | 2D + 1 places | pₜ = S · σ(vᵀ tanh(W hₜ)) (eq. 9) | the same, times a Gaussian (eq. 10) |
#
# Global attention costs S scores for each word written; the local ones 2D + 1, however long the source. What they do
# not see, they cannot use: here D = 2, so five places are seen.
#
# ## What a window can reach
#
# Two tasks. *Copying*: word t of the target comes from place t of the source. *Reversal*: it comes from place S − 1 −
# t. Local-m sees the place it needs if that is at most 2 away from t. For which share of the words is it? No training
# is needed to know.


# %%
def share_in_reach(needed, lengths=LENGTHS, D=2):
    """Share of target words whose source place, needed(t, S), is in the window around t."""
    hits = [abs(needed(t, S) - t) <= D for S in range(lengths[0], lengths[1] + 1) for t in range(S)]
    return np.mean(hits)


print(f"copying:  {share_in_reach(lambda t, S: t):.2f}")
print(f"reversal: {share_in_reach(lambda t, S: S - 1 - t):.2f}")

# %% [markdown]
# All of them for copying, and `0.45` for reversal: the middle of each sequence, where the target and the source cross.
#
# ## Trained
#
# The models are a decoder of chapter 5 and learnt vectors of letters and places. Alignment is the share of target words
# for which the largest weight is at the true source place.

# %%
torch.set_num_threads(1)
test = {name: task.batch(100, torch.Generator().manual_seed(99), "test") for name, task in TASKS.items()}
steps = {
    ("copying", "local-m"): 70,
    ("reversal", "soft"): 50,
    ("reversal", "local-m"): 40,
    ("reversal", "local-p"): 70,
}
models = {}
for (task, mechanism), count in steps.items():
    model = train(TASKS[task], MECHANISMS[mechanism], count, size=16, learning_rate=6e-3)
    models[task, mechanism] = model
    scores = evaluate(model, test[task])
    right, aligned = scores["token_accuracy"], scores["alignment_accuracy"]
    print(f"{task:9} {mechanism:8} words right {right:.2f}   aligned {aligned:.2f}")

# %%
figure, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained")
for axis, ((task, mechanism), model) in zip(axes, models.items(), strict=True):
    batch = test[task]
    row = int(batch.mask.sum(dim=1).eq(7).nonzero()[0])  # a sequence of 7 letters
    letters = [TASKS[task].source[letter] for letter in batch.source[row].tolist()]
    weights = alignment(model, batch).weights[row].numpy()
    written = [TASKS[task].target[batch.source[row, place]] for place in batch.places[row].tolist()]
    axis.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    axis.plot(batch.places[row], range(7), "o", markersize=9, markerfacecolor="none", color="tab:orange")
    axis.set_xticks(range(7), letters)
    axis.set_yticks(range(7), written)
    axis.set_title(f"{task}, {'global' if mechanism == 'soft' else mechanism}", fontsize=10)
    axis.set(xlabel="source")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
axes[0].set_ylabel("target, from above")
plt.show()

# %% [markdown]
# Dark: much weight; circles: the true places. Global attention (`0.99`) and local-p (`1.00`) align practically every
# word of the reversal, and local-m `0.93` of those of the copy. In reversal its window moves the wrong way: it aligns
# `0.13`, fewer even than are in its reach, and must guess most of the others.
#
# Local-p pays for its freedom: its position pₜ is learnt through the Gaussian only, and from outside the window nothing
# can be learnt. Where a window starts far off, it may stay there (`visattn/studies/sequences.py` tells of such runs).
#
# ## Exercise
#
# How many scores are computed for one source of S words and a target of T words? Complete `answer` for the three
# mechanisms. Count the places in the window, also where it hangs over an end.


# %%
def answer(mechanism, S, T, D):
    """The number of scores; mechanism is "global", "local-m" or "local-p"."""
    return None  # your code here


def check(answer):
    for mechanism, right in (("global", 77), ("local-m", 35), ("local-p", 35)):
        found = answer(mechanism, S=11, T=7, D=2)
        if found is None:
            return "Not yet: return a number."
        if found != right:
            return f"Not yet: for {mechanism} with S = 11, T = 7 and D = 2 it is not {found}."
    return "Right: only global attention grows with the source."


print(check(answer))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def answer(mechanism, S, T, D):
#     return T * (S if mechanism == "global" else 2 * D + 1)
# ```
#
# </details>
#
# ## Further reading
#
# - Luong, Pham, Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation", section 3.
# - Bahdanau, Cho, Bengio 2014, "Neural Machine Translation by Jointly Learning to Align and Translate": alignments
#   drawn for the first time.
# - Raffel et al. 2017, "Online and Linear-Time Attention by Enforcing Monotonic Alignments": when moving forward is
#   right.
# - `visattn sequences` trains all mechanisms on longer sequences, and draws this picture larger.
