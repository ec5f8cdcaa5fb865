"""Self-critical sequence training (Rennie et al. 2017): REINFORCE on whole captions, with a caption score as reward."""

from typing import Literal, get_args

from torch import Tensor, nn

from visattn.errors import require_choice

CriticKind = Literal["greedy", "mean"]


class SelfCriticalLoss(nn.Module):
    """−Σ (r − b) log p(y) / number of tokens, over sampled captions y (Rennie 2017, eq. 7).

    If places are sampled too, their log-probability is added to that of the words: both get the same reward.

    Args:
        baseline: b of a caption: the reward of the image's "greedy" caption (Rennie 2017, section 3.2), or the "mean"
            reward of the image's other samples, leave-one-out, which needs no further decoding (Luo 2020, "A better
            variant of self-critical sequence training"). Neither depends on the caption itself, so the gradient stays
            unbiased.

    Raises:
        InputError: if there is no such baseline.
    """

    def __init__(self, baseline: CriticKind = "mean") -> None:
        super().__init__()
        require_choice("baseline", baseline, get_args(CriticKind))
        self.baseline = baseline

    def forward(
        self, log_probs: Tensor, tokens: Tensor | float, rewards: Tensor, greedy: Tensor | None = None
    ) -> Tensor:
        """The loss, whose gradient is the negative gradient of the expected reward; its value is meaningless.

        Args:
            log_probs: (N,) of the sampled captions, and of the places sampled for them; N = B K, K for each image.
            tokens: number of tokens in all of them; with several processes, the mean of theirs.
            rewards: (B, K) of the samples.
            greedy: (B,) of the greedy captions, for that baseline.
        """
        advantage = (rewards - self._baseline(rewards, greedy)).flatten()
        return -(advantage * log_probs).sum() / tokens

    def _baseline(self, rewards: Tensor, greedy: Tensor | None) -> Tensor:
        if self.baseline == "greedy":
            return greedy.unsqueeze(1)
        return (rewards.sum(dim=1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
