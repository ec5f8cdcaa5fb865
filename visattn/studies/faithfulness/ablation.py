"""Quality of captions with ablated α: uniform, or permuted."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from visattn.attention import Memory, ShuffledWeights, UniformWeights, ablated
from visattn.data import CaptionBatch
from visattn.decoding import Greedy, captions, decode
from visattn.metrics import caption_scores
from visattn.models import Decoder
from visattn.studies.faithfulness.captions import OwnCaption, of_tokens, own_captions
from visattn.studies.faithfulness.setting import Example, Settings
from visattn.training.captioner import Captioner
from visattn.training.regimes import rows
from visattn.vocabulary import PAD


@torch.inference_mode()
def own_and_ablated(
    model: Captioner, examples: Sequence[Example], settings: Settings
) -> tuple[list[OwnCaption], dict[str, Any]]:
    """A captioner's own captions, and the effect of ablating its α.

    Returns:
        A caption for each image; and the scores by variant: `as trained`, `uniform α` and `shuffled α`, the last as
        means over the seeds, with their `deviation`.
    """
    uniform = UniformWeights()
    variants = [_Variant("as trained", nullcontext), _Variant("uniform α", lambda: ablated(model.decoder, uniform))]
    for seed in range(settings.seed, settings.seed + settings.seeds):
        shuffle = ShuffledWeights(seed)  # continues from batch to batch
        variants.append(_Variant("shuffled α", lambda shuffle=shuffle: ablated(model.decoder, shuffle)))
    own: list[OwnCaption] = []
    counts = {"references": 0, "own": 0}
    for start in tqdm(range(0, len(examples), settings.batch_size), desc="Ablating", unit="batch"):
        batch = examples[start : start + settings.batch_size]
        memory = model.decoder.prepare(*model.encoder(torch.stack([e.image for e in batch]).to(model.device)))
        names = [example.id for example in batch]
        decoded = decode(model.decoder, memory, Greedy(), model.max_length)
        own += own_captions(model, memory, decoded, settings.methods)
        texts = {"own": _captions(names, [[caption.tokens] for caption in own[-len(batch) :]], model.device)}
        if all(example.references for example in batch):
            lines = [[torch.tensor(model.vocabulary.encode(r)) for r in example.references] for example in batch]
            texts["references"] = _captions(names, lines, model.device)
        for kind, text in texts.items():
            counts[kind] += int((text.tokens[:, 1:] != PAD).sum())
        for variant in variants:
            with variant.change():
                again = decode(model.decoder, memory, Greedy(), model.max_length)
                for kind, text in texts.items():
                    variant.log_probs[kind] += log_probabilities(model.decoder, memory, text).tolist()
            said = captions(again, model.vocabulary, memory.grid)
            variant.generated |= {name: caption.words for name, caption in zip(names, said, strict=True)}
    references = {example.id: example.references for example in examples if example.references}
    found: dict[str, list[dict[str, float]]] = {}
    for variant in variants:
        numbers = variant.numbers(counts, references)
        numbers["captions_changed"] = float(
            np.mean([variant.generated[name] != words for name, words in variants[0].generated.items()])
        )
        found.setdefault(variant.name, []).append(numbers)
    return own, {
        "images": len(examples),
        "tokens": counts,
        "variants": {name: _over_seeds(numbers) for name, numbers in found.items()},
    }


class _Variant:
    """A captioner with changed or unchanged α, and the quality of its captions."""

    def __init__(self, name: str, change: Callable[[], AbstractContextManager[None]]) -> None:
        self.name, self.change = name, change
        self.log_probs: dict[str, list[float]] = {"references": [], "own": []}
        self.generated: dict[str, list[str]] = {}

    def numbers(self, tokens: Mapping[str, int], references: Mapping[str, list[list[str]]]) -> dict[str, float]:
        out = {f"{kind}_log_prob": sum(p) / tokens[kind] for kind, p in self.log_probs.items() if tokens[kind]}
        if references:
            out["CIDEr-D"] = caption_scores(references, self.generated).corpus["CIDEr-D"]
        return out


def log_probabilities(decoder: Decoder, memory: Memory, batch: CaptionBatch) -> Tensor:
    """(N,) log-probabilities of whole captions under teacher forcing, including END."""
    memory, tokens = rows(memory, batch)
    logits, _ = decoder(memory, tokens[:, :-1])
    return of_tokens(logits, tokens[:, 1:]).masked_fill(tokens[:, 1:] == PAD, 0).sum(dim=1)


def _captions(names: list[str], lines: list[list[Tensor]], device: torch.device) -> CaptionBatch:
    """A batch of several captions per image, without the images."""
    owner = torch.tensor([n for n, several in enumerate(lines) for _ in several], device=device)
    tokens = pad_sequence([line for several in lines for line in several], batch_first=True, padding_value=PAD)
    return CaptionBatch(None, None, owner, tokens.to(device), names)


def _over_seeds(numbers: list[dict[str, float]]) -> dict[str, Any]:
    mean = {key: float(np.mean([part[key] for part in numbers])) for key in numbers[0]}
    if len(numbers) == 1:
        return mean
    return mean | {"deviation": {key: float(np.std([part[key] for part in numbers], ddof=1)) for key in mean}}
