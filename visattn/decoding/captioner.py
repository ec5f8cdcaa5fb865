"""Captioners: from images to captions with their attention maps."""

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from visattn.attention import Memory
from visattn.data.coco_words import categories
from visattn.decoding.captions import Caption, captions
from visattn.decoding.loop import Decoded, decode
from visattn.decoding.search import Greedy, Search
from visattn.errors import InputError
from visattn.images import Fit, ModelInput
from visattn.models import Decoder, GridEncoder
from visattn.vocabulary import PAD, Vocabulary, Words


class Captioning:
    """Captions images and reads given captions; inherited by modules with these attributes.

    Attributes:
        encoder: images (N, 3, h, w) uint8 to annotation vectors.
        decoder: annotation vectors to words.
        vocabulary: words ↔ ids.
        image_size: (h, w) of the input in pixels.
        fit: how images are resized.
        search: how words are chosen.
        max_length: maximum length of a caption, in words.
        no_repeat: n-grams of this length occur at most once in a caption; 0 allows all.
    """

    encoder: GridEncoder
    decoder: Decoder
    vocabulary: Vocabulary
    image_size: tuple[int, int]
    fit: Fit
    search: Search
    max_length: int
    no_repeat: int
    device: torch.device

    @property
    def input(self) -> ModelInput:
        """Size and fit of the input, and the receptive field centres of the maps' cells."""
        return ModelInput(self.image_size, self.fit, self.encoder.cell_shift(self.image_size))

    @torch.inference_mode()
    def caption(self, images: Tensor) -> list[list[Caption]]:
        """The captions of images (N, 3, h, w) uint8 of the model's `image_size`, on its own device.

        As many per image as `search` returns: a beam search's best first, samples in the order drawn.
        """
        memory = self.decoder.prepare(*self.encoder(images.to(self.device)))
        found, best = captions(self.decode(memory), self.vocabulary, memory.grid), self.search.best
        return [found[start : start + best] for start in range(0, len(found), best)]

    @torch.inference_mode()
    def read(self, images: Tensor, words: list[list[str]]) -> list[Caption]:
        """Teacher-forced results for given captions, a list of words for each image.

        Images are those of `caption`. A word that the vocabulary lacks is read as unknown; log-probabilities are among
        all tokens.
        """
        memory, tokens = self.given(images, words)
        logits, seen = self.decoder(memory, tokens[:, :-1])
        targets = tokens[:, 1:]
        log_probs = logits.float().log_softmax(dim=-1).gather(2, targets.unsqueeze(2)).squeeze(2)
        log_probs = log_probs.masked_fill(targets == PAD, 0)
        nothing = torch.zeros_like(log_probs[:, 0])
        read = Decoded(targets, log_probs, seen.weights, seen.focus, seen.log_prob, seen.gate, nothing)
        known, vocabulary = captions(read, self.vocabulary, memory.grid), self.vocabulary
        return [
            caption._replace(words=line, text=vocabulary.join(line), labels=list(map(vocabulary.tokens.label, line)))
            for caption, line in zip(known, words, strict=True)
        ]

    def decode(self, memory: Memory) -> Decoded:
        """Captions of a memory's images, as tokens."""
        objects = None
        if self.search.caution:
            objects = torch.zeros(len(self.vocabulary), dtype=torch.bool, device=memory.values.device)
            objects[list(object_words(self.vocabulary))] = True
        return decode(self.decoder, memory, self.search, self.max_length, self.no_repeat, objects)

    def check_search(self) -> None:
        """Check that the search can be used with the vocabulary.

        Raises:
            InputError: if the search has `caution`, and no word names an object.
        """
        if self.search.caution:
            object_words(self.vocabulary)

    def given(self, images: Tensor, words: list[list[str]]) -> tuple[Memory, Tensor]:
        """The memory of images (N, 3, h, w), and a caption of each as tokens (N, T), from START to END."""
        lines = [torch.tensor(self.vocabulary.encode(line, len(line)), device=self.device) for line in words]
        tokens = pad_sequence(lines, batch_first=True, padding_value=PAD)
        return self.decoder.prepare(*self.encoder(images.to(self.device))), tokens


@lru_cache(8)
def object_words(vocabulary: Vocabulary) -> tuple[int, ...]:
    """The tokens that name an object of COCO's categories, in English.

    Raises:
        InputError: if there are none.
    """
    found = tuple(token for token, word in enumerate(vocabulary.words) if categories([word])[0] is not None)
    if not found or vocabulary.tokens.spec != Words.spec:
        raise InputError("caution needs a captioner whose words are English and name objects; leave it at 0")
    return found


class CaptionModel(Captioning, nn.Module):
    """A trained captioner as a plain module; see `Captioning` for the arguments."""

    def __init__(
        self,
        encoder: GridEncoder,
        decoder: Decoder,
        vocabulary: Vocabulary,
        image_size: tuple[int, int],
        fit: Fit,
        max_length: int = 20,
        search: Search | None = None,
        no_repeat: int = 0,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.vocabulary = encoder, decoder, vocabulary
        self.image_size, self.fit = image_size, fit
        self.max_length, self.search, self.no_repeat = max_length, search or Greedy(), no_repeat
        self.check_search()

    @property
    def device(self) -> torch.device:  # type: ignore[override]  # declared as an attribute, which Lightning's is too
        """The device of the parameters."""
        return next(self.parameters()).device
