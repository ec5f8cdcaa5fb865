# %% [markdown]
# # 9. Training that fails
#
# **Objectives.** After this chapter you can
#
# - recognise four ways in which training goes wrong, each by one plot: over-fitting, exposure bias, divergence, and a
#   gradient that is all noise;
# - treat each: early stopping, dropout and augmentation; scheduled sampling; clipping and warm-up; a baseline;
# - say what a treatment costs, and which of them did not help here.
#
# The pictures are so small that each failure takes a second: grids of 3 × 3 places with one of five symbols each. Two
# places are marked, and the caption names the first marked symbol and then the second. The captioner is a decoder of
# chapter 5, with soft attention.

# %%
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from visattn.attention import AdditiveScore, SoftAttention
from visattn.models import LuongDecoder
from visattn.studies.estimators import GRID, METHODS, SYMBOLS, loss_of, make_decoder, make_scenes, objective, pointing
from visattn.vocabulary import SPECIALS, START

plt.rcParams.update({"figure.dpi": 110, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
torch.set_num_threads(1)


def captioner(words, size, dropout=0.0):
    """An untrained decoder for `words` words and vectors of `size` numbers."""
    torch.manual_seed(0)
    attention = partial(SoftAttention, score=partial(AdditiveScore, hidden=32))
    return LuongDecoder(len(SPECIALS) + words, size, attention, hidden=48, embedding=32, dropout=dropout)


def cross_entropy(model, scenes):
    logits, _ = model(model.prepare(scenes.values, GRID), scenes.tokens[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), scenes.tokens[:, 1:].flatten())


few, unseen = make_scenes(12, torch.Generator().manual_seed(1)), make_scenes(200, torch.Generator().manual_seed(2))
SIZE = few.values.shape[-1]

# %% [markdown]
# ## Over-fitting: seen
#
# Twelve scenes to learn from, and 200 to check with. What the model has seen gets better and better; what it has not
# seen gets *worse* from some step on. Three runs, equal but for one thing:
#
# - plain;
# - dropout of ½ on word vectors and states (Srivastava et al. 2014);
# - augmentation: at each step the symbols that are *not* marked are drawn anew. The caption stays true, since it does
#   not mention them. (With photographs: crops, flips and colours, as far as the caption allows. "left of" forbids a
#   flip.)


# %%
def new_distractors(scenes):
    """The same captions, with other symbols at the places that are not marked."""
    unmarked = scenes.values[..., SYMBOLS : SYMBOLS + 1] == 1
    drawn = F.one_hot(torch.randint(SYMBOLS, scenes.values.shape[:2]), SYMBOLS).to(scenes.values.dtype)
    symbols = torch.where(unmarked, drawn, scenes.values[..., :SYMBOLS])
    return scenes._replace(values=torch.cat([symbols, scenes.values[..., SYMBOLS:]], dim=-1))


def fit(dropout=0.0, change=lambda scenes: scenes, steps=120, every=10):
    """Losses of seen and unseen scenes every few steps, (n, 2)."""
    model, history = captioner(SYMBOLS, SIZE, dropout), []
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(steps + 1):
        if step % every == 0:
            model.eval()
            with torch.no_grad():
                history.append([cross_entropy(model, part).item() for part in (few, unseen)])
            model.train()
        optimizer.zero_grad()
        cross_entropy(model, change(few)).backward()
        optimizer.step()
    return np.array(history)


print(f"guessing costs {np.log(SYMBOLS):.2f}")
runs = {"plain": fit(), "dropout ½": fit(dropout=0.5), "augmentation": fit(change=new_distractors)}
for name, losses in runs.items():
    best = losses[:, 1].argmin()
    print(
        f"{name:13} seen {losses[-1, 0]:.3f}   unseen {losses[-1, 1]:.2f}, least {losses[best, 1]:.2f} at {10 * best}"
    )

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 2.7), layout="constrained", sharey=True)
for axis, (name, losses) in zip(axes, runs.items(), strict=True):
    steps, best = 10 * np.arange(len(losses)), losses[:, 1].argmin()
    axis.plot(steps, losses[:, 0], color="0.5", label="seen")
    axis.plot(steps, losses[:, 1], color="tab:orange", label="unseen")
    axis.plot(steps[best], losses[best, 1], "o", color="tab:orange", label="stop here")
    axis.set(title=name, xlabel="training step", ylim=(0, None))
axes[0].set_ylabel("cross-entropy, nats per word")
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# ## Over-fitting: treated
#
# In the plain run the loss of the unseen scenes is least, `1.96`, at step 20, and rises to `7.23`, while the seen ones
# are known by heart: wrong answers become ever more certain.
#
# - *Early stopping* keeps the weights of the dot. It costs nothing but some unseen scenes, and prevents the damage; but
#   `1.96` is no success either: guessing among the five symbols costs ln 5 = `1.61`.
# - *Dropout* delays the decline and lessens it (`4.72`), and its best is little better, `1.90`.
# - *Augmentation* brings what was missing: that only the marked places matter. The loss falls to `0.61`, and is still
#   falling at the end.
#
# So know what the model should *not* depend on, and vary it. Dropout is worth more where there is more to learn from:
# in `docs/overfitting.md`, with 2,000 photographs, it helps most of all.
#
# ## Exposure bias: seen
#
# In training, the decoder reads the *true* previous word; in use it reads its own. If it leans on the previous word,
# one mistake leads to the next (Bengio et al. 2015). To see it, captions must be easy to continue and pictures hard to
# read: eight places in a row, each with a noisy symbol out of eight; after symbol n comes n + 1, nine times out of ten.

# %%
LENGTH, KINDS = 8, 8


def make_walks(count, generator):
    """Noisy rows (B, L, D), the number of each place in the last L numbers, and their captions with START."""
    words = torch.randint(KINDS, (count, 1), generator=generator)
    for _ in range(LENGTH - 1):
        usual = torch.rand(count, 1, generator=generator) < 0.9
        other = torch.randint(KINDS, (count, 1), generator=generator)
        words = torch.cat([words, torch.where(usual, (words[:, -1:] + 1) % KINDS, other)], dim=1)
    noisy = F.one_hot(words, KINDS) + 0.7 * torch.randn(count, LENGTH, KINDS, generator=generator)
    values = torch.cat([noisy, torch.eye(LENGTH).expand(count, -1, -1)], dim=-1)
    return values, F.pad(words + len(SPECIALS), (1, 0), value=START)


def write(model, values, tokens, own):
    """Logits (B, T, V); at each step the decoder reads its own last word with the probability `own`."""
    state, word, logits = model.init(model.prepare(values, (1, LENGTH))), tokens[:, 0], []
    for t in range(LENGTH):
        scores, _, state = model.step(state, word)
        logits.append(scores)
        word = torch.where(torch.rand(len(values)) < own, scores.detach().argmax(dim=-1), tokens[:, t + 1])
    return torch.stack(logits, dim=1)


def train_walks(own, steps=180):
    """Train with a probability of own words that rises to `own` in half of the steps."""
    model, generator = captioner(KINDS, KINDS + LENGTH), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(steps):
        values, tokens = make_walks(24, generator)
        logits = write(model, values, tokens, own * min(1, 2 * step / steps))
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


values, tokens = make_walks(300, torch.Generator().manual_seed(9))
right = {}
for name, own in (("teacher forcing", 0.0), ("scheduled sampling", 1.0)):
    model = train_walks(own)
    with torch.no_grad():
        for read, share in (("true", 0.0), ("own", 1.0)):
            hits = write(model, values, tokens, share).argmax(dim=-1) == tokens[:, 1:]
            right[name, read] = hits.float().mean(dim=0).numpy()
    true, said = (right[name, read].mean() for read in ("true", "own"))
    print(f"{name:19} right after true words {true:.2f}, after own words {said:.2f}")

# %%
figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
for (name, read), shares in right.items():
    colour = "tab:blue" if name == "scheduled sampling" else "tab:orange"
    style = "-" if read == "own" else ":"
    axis.plot(range(1, LENGTH + 1), shares, style, color=colour, label=f"{name}, after {read} words")
axis.set(xlabel="word", ylabel="share right", ylim=(0, 1.03))
figure.legend(frameon=False, loc="outside right center")
plt.show()

# %% [markdown]
# ## Exposure bias: treated
#
# After true words `0.86` of the teacher-forced model's words are right, after its own `0.41`: it has learnt to count on
# from the previous word, which in training was never wrong. *Scheduled sampling* feeds it its own words with a
# probability that rises from 0 to, here, 1. It then looks at the picture again, and gets `0.55` of its own captions
# right. The price is paid after true words, `0.80`: nobody tells it any more that they can be trusted. The first word
# has no previous word, and gains nothing.
#
# Two warnings. A gap between the curves is no proof of exposure bias where many captions are right, as with
# photographs (`docs/exposure.md`). And a model that is trained towards the true *next* word after words of its own may
# learn to ignore them altogether (Huszár 2015); a probability of at most ½ is usual.
#
# ## Divergence: seen and treated
#
# A step that is too large lands where the slope says nothing about the way back. Recurrent networks are prone to it:
# their gradient is a product over steps, and can be huge in places (Pascanu et al. 2013). Stochastic gradient descent
# with a learning rate of 5, and Adam with 0.1, on fresh scenes at each step:
#
# - *clipping*: if the norm of the whole gradient exceeds a limit, it is scaled down to it;
# - *warm-up*: the learning rate rises linearly from 0, so that the first steps, when the slope is steep and Adam's
#   averages are not yet worth much, are small (Goyal et al. 2017; Vaswani et al. 2017).


# %%
def losses_of(make, clip=None, warmup=0, steps=100):
    model, generator = captioner(SYMBOLS, SIZE), torch.Generator().manual_seed(3)
    optimizer, losses = make(model.parameters()), []
    rise = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, warmup)))
    for _ in range(steps):
        loss = cross_entropy(model, make_scenes(32, generator))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        rise.step()
    return np.array(losses)


sgd, adam = partial(torch.optim.SGD, lr=5.0), partial(torch.optim.Adam, lr=0.1)
rates = {
    "SGD, 5": losses_of(sgd),
    "SGD, 5, warm-up": losses_of(sgd, warmup=50),
    "SGD, 5, clipped to 0.25": losses_of(sgd, clip=0.25),
    "Adam, 0.1": losses_of(adam),
    "Adam, 0.1, warm-up": losses_of(adam, warmup=50),
}
for name, losses in rates.items():
    print(f"{name:24} first {losses[0]:.2f}   largest {losses.max():6.2f}   last ten {losses[-10:].mean():.3f}")

# %%
figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
styles = (("tab:orange", "-"), ("tab:orange", ":"), ("tab:green", "-"), ("tab:purple", "-"), ("tab:blue", "-"))
for (name, losses), (colour, style) in zip(rates.items(), styles, strict=True):
    axis.plot(losses, style, color=colour, label=name)
axis.axhline(np.log(SYMBOLS), color="0.6", linewidth=0.8)
axis.annotate("guessing", (100, np.log(SYMBOLS)), (0, -9), textcoords="offset points", ha="right", color="0.4")
axis.set(xlabel="training step", ylabel="cross-entropy", yscale="log", ylim=(1e-3, None))
figure.legend(frameon=False, loc="outside right center")
plt.show()

# %% [markdown]
# With a learning rate of 5 the loss of gradient descent rises from `2.19` to more than 50, and does not come back (how
# high it gets depends on the last bits of sums, which differ between CPUs). Warm-up only puts it off, because the steps
# are too large once it is over. Clipping solves it: of a large gradient only the direction counts, and the loss goes to
# zero. Adam divides by the size of past gradients, so clipping would change little. Its first steps at 0.1 are too
# large (`3.35` at the worst), but it recovers; with warm-up the loss is never above that of the untrained model, and
# learning is later by as many steps. Here warm-up was not needed, then; larger models often do not recover.
#
# A log of the gradient's norm shows all this before the loss does. And if the loss is NaN: look at the step *before*;
# afterwards every weight is NaN, too.
#
# ## All noise: REINFORCE without a baseline
#
# Chapter 6 computed what a baseline does to the variance. Here is what it does to training: hard attention with 64
# scenes at each step, without a baseline and with the moving average of Xu et al. 2015. Shown is the probability of
# the marked places.


# %%
def learn(method, steps=160, every=20):
    """The mean weight of the true places, every few steps."""
    decoder, loss = make_decoder(), objective(METHODS[method].estimator())
    optimizer, generator = torch.optim.Adam(decoder.parameters(), 1e-2), torch.Generator().manual_seed(4)
    shares = []
    for step in range(steps + 1):
        if step % every == 0:
            shares.append(pointing(decoder, unseen))
        optimizer.zero_grad()
        loss_of(decoder, loss, make_scenes(64, generator)).backward()
        optimizer.step()
    return shares


pointed = {"no baseline": learn("reinforce"), "moving average": learn("average")}
for name, shares in pointed.items():
    print(f"{name:15}", "  ".join(f"{20 * n}: {share:.2f}" for n, share in enumerate(shares)))

# %%
figure, axis = plt.subplots(figsize=(6, 2.8), layout="constrained")
for (name, shares), colour in zip(pointed.items(), ("tab:orange", "tab:blue"), strict=True):
    axis.plot(20 * np.arange(len(shares)), shares, "o-", color=colour, markersize=4, label=name)
axis.axhline(1 / 9, color="0.6", linewidth=0.8)
axis.set(xlabel="training step", ylabel="weight of the marked places", ylim=(0, 1.03))
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# After 140 steps the weight of the marked places is about a half without a baseline, and `0.93` with the average cost
# subtracted. Nothing else differs: the mean of both gradients is the same. A curve that is flat for long is not always
# a bug; it may be variance. `docs/estimators.md` measures a dozen remedies.
#
# ## Exercise
#
# Complete `answer`: clip the gradients of a model, given as several arrays, to a norm. The norm is that of all of them
# together, and their direction must not change.


# %%
def answer(gradients, limit):
    """A list of arrays to the list of clipped arrays."""
    return None  # your code here


def check(answer):
    random = np.random.default_rng(5)
    gradients = [random.normal(size=shape) for shape in ((3, 2), (7,), (1, 5))]
    for limit in (0.5, 100.0):
        found = answer(gradients, limit)
        if found is None or [np.shape(part) for part in found] != [(3, 2), (7,), (1, 5)]:
            return "Not yet: return one array for each gradient, of the same shape."
        parameters = [nn.Parameter(torch.zeros(part.shape, dtype=torch.float64)) for part in gradients]
        for parameter, part in zip(parameters, gradients, strict=True):
            parameter.grad = torch.from_numpy(part.copy())
        nn.utils.clip_grad_norm_(parameters, limit)
        if not all(np.allclose(mine, p.grad.numpy(), atol=1e-5) for mine, p in zip(found, parameters, strict=True)):
            return f"Not yet: for a limit of {limit} the numbers differ from those of clip_grad_norm_."
    return "Right: as torch.nn.utils.clip_grad_norm_."


print(check(answer))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def answer(gradients, limit):
#     norm = np.sqrt(sum((part**2).sum() for part in gradients))
#     scale = min(1, limit / norm)
#     return [scale * part for part in gradients]
# ```
#
# </details>
#
# ## Further reading
#
# - Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting"; Prechelt 1998, "Early
#   Stopping - But When?".
# - Bengio et al. 2015, "Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks"; Huszár 2015, "How
#   (not) to Train your Generative Model": its critique; Ranzato et al. 2016, "Sequence Level Training with Recurrent
#   Neural Networks".
# - Pascanu, Mikolov, Bengio 2013, "On the Difficulty of Training Recurrent Neural Networks": clipping.
# - Goyal et al. 2017, "Accurate, Large Minibatch SGD": warm-up.
# - `docs/overfitting.md` and `docs/exposure.md`: the same with photographs, and how much less it is there.
