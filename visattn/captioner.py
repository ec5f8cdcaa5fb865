"""The captioner as a LightningModule: glue between data, model, objective, decoding and scores."""

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from visattn.attention import Glimpse, HardAttention, Memory
from visattn.data.batch import CaptionBatch
from visattn.data.captions import CaptionData
from visattn.decoding import Caption, Decoded, captions, decode
from visattn.errors import InputError
from visattn.geometry import Fit
from visattn.metrics import Grounding, caption_scores, entropy, grounding
from visattn.models import Annotations, Decoder, Encoder, LSTMDecoder
from visattn.objectives import CaptionLoss, CaptionLosses
from visattn.optimization import Optimization
from visattn.vocabulary import END, PAD, Vocabulary

POINTING_TOLERANCE = 15 / 224  # of the input's shorter side: the 15 pixels of Zhang 2016 at his 224


class Captioner(LightningModule):
    """An encoder, and a decoder with attention.

    Validation and test generate captions freely and score those; `val/CIDEr-D` is what checkpoints are to be chosen by.
    Grounding is scored too where the data knows which words name something in the image, and where that is: of the
    words of generated captions (`grounding_…`) and of the references' words, given the true words before them
    (`ground_truth_grounding_…`).

    Args:
        output_names: the vocabulary, special tokens first; the command line takes it from the data.
        image_size: (h, w) of the input in pixels; likewise.
        fit: how an image was made that size; likewise.
        encoder: the backbone.
        decoder: makes the decoder from the sizes of vocabulary and annotation vectors.
        loss: what is minimised.
        optimization: how.
        max_length: of a generated caption, in words.

    Raises:
        InputError: where attention draws and the loss has no REINFORCE, or the other way round; where the attention
            cannot look at the grid that the encoder makes of such images.
    """

    def __init__(
        self,
        output_names: list[str],
        image_size: tuple[int, int],
        fit: Fit,
        encoder: Encoder,
        decoder: Callable[[int, int], Decoder] = LSTMDecoder,
        loss: CaptionLoss | None = None,
        optimization: Optimization | None = None,
        max_length: int = 20,
    ) -> None:
        super().__init__()
        with warnings.catch_warnings():  # the command line hands over the parts' configuration, not the modules
            warnings.filterwarnings("ignore", "Attribute .* is an instance of `nn.Module`")
            self.save_hyperparameters()
        self.vocabulary = Vocabulary(output_names)
        self.image_size, self.fit = tuple(image_size), fit
        self.encoder = encoder
        self.decoder = decoder(len(self.vocabulary), encoder.size)
        self.loss = loss or CaptionLoss()
        self.optimization = optimization or Optimization()
        self.max_length = max_length
        draws = any(isinstance(module, HardAttention) for module in self.decoder.modules())
        if draws and self.loss.reinforce is None:
            raise InputError(
                "hard attention learns by REINFORCE: set the loss's option reinforce, such as "
                "--model.init_args.loss.init_args.reinforce=visattn.objectives.Reinforce"
            )
        if self.loss.reinforce is not None and not draws:
            raise InputError(
                "the loss's option reinforce is for attention that draws: take HardAttention, or leave it out"
            )
        self.decoder.check_grid(encoder.grid(self.image_size))
        self._generated: dict[str, Caption] = {}
        self._taught: list[tuple[str, list[str], np.ndarray]] = []  # references with their maps (T, H, W)

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.trainer.ckpt_path is None:
            self.encoder.load_weights()

    def configure_optimizers(self) -> dict[str, Any]:
        return self.optimization.configure(self)

    @property
    def cell_shift(self) -> tuple[float, float]:
        """For `Geometry.cell_shift`: where the maps' cells really look."""
        return self.encoder.cell_shift(self.image_size)

    def encode(self, batch: CaptionBatch) -> tuple[Tensor, tuple[int, int]]:
        """Annotation vectors (N, L, D) of a batch's images, and their grid."""
        if batch.features is not None:
            return Annotations(batch.features.flatten(1, 2).float(), tuple(batch.features.shape[1:3]))
        if self.encoder.frozen:
            with torch.no_grad():
                return self.encoder(batch.images)
        return self.encoder(batch.images)

    def remember(self, batch: CaptionBatch) -> Memory:
        """The memory of a batch's images, N rows."""
        return self.decoder.prepare(*self.encode(batch))

    def training_step(self, batch: CaptionBatch, index: int) -> Tensor:
        losses, _ = self.teach(self.remember(batch), batch, self.loss.draws)
        tokens = int((batch.tokens[:, 1:] != PAD).sum())
        self.log("train/loss", losses.loss, prog_bar=True, batch_size=tokens)
        self.log("train/cross_entropy", losses.cross_entropy, batch_size=tokens)
        self.log("train/doubly_stochastic", losses.doubly_stochastic, batch_size=tokens)
        self.log("train/accuracy", losses.accuracy, batch_size=tokens)
        for name, value in losses.diagnostics.items():
            self.log(f"train/{name}", value, batch_size=tokens)
        if losses.reinforce is not None and (index + 1) % self.trainer.log_every_n_steps == 0:
            share = gradient_share(losses.reinforce, losses.loss, list(self.decoder.attention.parameters()))
            self.log("train/reinforce_gradient_share", share, batch_size=tokens)
        return losses.loss

    def validation_step(self, batch: CaptionBatch, index: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: CaptionBatch, index: int) -> None:
        self._evaluate(batch, "test")

    def predict_step(self, batch: CaptionBatch, index: int) -> list[dict[str, Any]]:
        generated = self._generate(self.remember(batch))
        return [
            {"id": name, "caption": " ".join(caption.words), "words": caption.words, "log_prob": caption.log_prob}
            for name, caption in zip(batch.ids, generated, strict=True)
        ]

    def on_validation_epoch_start(self) -> None:
        self._generated, self._taught = {}, []

    def on_test_epoch_start(self) -> None:
        self._generated, self._taught = {}, []

    def on_validation_epoch_end(self) -> None:
        self._score("val")

    def on_test_epoch_end(self) -> None:
        self._score("test")

    @torch.inference_mode()
    def caption(self, images: Tensor) -> list[Caption]:
        """Caption images (N, 3, h, w) uint8 of the module's `image_size`, on its own device."""
        return self._generate(self.decoder.prepare(*self.encoder(images.to(self.device))))

    @torch.inference_mode()
    def read(self, images: Tensor, words: list[list[str]]) -> list[Caption]:
        """How the model sees given captions, a list of words for each image: each word after the true words before it.

        Images are those of `caption`. A word that the vocabulary lacks is read as unknown.
        """
        memory = self.decoder.prepare(*self.encoder(images.to(self.device)))
        lines = [torch.tensor(self.vocabulary.encode(line, len(line)), device=self.device) for line in words]
        tokens = pad_sequence(lines, batch_first=True, padding_value=PAD)
        logits, seen = self.decoder(memory, tokens[:, :-1])
        targets = tokens[:, 1:]
        log_probs = logits.float().log_softmax(dim=-1).gather(2, targets.unsqueeze(2)).squeeze(2)
        read = Decoded(targets, log_probs.masked_fill(targets == PAD, 0), seen.weights, seen.focus)
        known = captions(read, self.vocabulary, memory.grid)
        return [caption._replace(words=line) for caption, line in zip(known, words, strict=True)]

    def _generate(self, memory: Memory) -> list[Caption]:
        decoded = decode(self.decoder, memory, max_length=self.max_length)
        return captions(decoded, self.vocabulary, memory.grid)

    def teach(self, memory: Memory, batch: CaptionBatch, draws: int = 1) -> tuple[CaptionLosses, Glimpse]:
        """The objective of a batch's captions, each `draws` times with the memory of its image, and what was seen."""
        owner, tokens = (part.repeat_interleave(draws, dim=0) for part in (batch.owner, batch.tokens))
        alone = len(owner) == len(batch.ids) and bool((owner.diff() == 1).all())
        logits, glimpses = self.decoder(memory if alone else memory.rows(owner), tokens[:, :-1])
        return self.loss(logits, glimpses, tokens[:, 1:]), glimpses

    def _evaluate(self, batch: CaptionBatch, split: str) -> None:
        memory = self.remember(batch)
        losses, glimpses = self.teach(memory, batch)
        tokens = int((batch.tokens[:, 1:] != PAD).sum())
        self.log(f"{split}/loss", losses.loss, batch_size=tokens)
        self.log(f"{split}/cross_entropy", losses.cross_entropy, batch_size=tokens)
        self.log(f"{split}/teacher_forced_accuracy", losses.accuracy, batch_size=tokens)
        self._generated |= zip(batch.ids, self._generate(memory), strict=True)
        references = self.trainer.datamodule.references(split)
        words = [caption for name in batch.ids for caption in references[name]]
        maps = glimpses.weights.float().cpu().unflatten(-1, memory.grid).numpy()
        for row, owner in enumerate(batch.owner.tolist()):
            seen = words[row][: int((batch.tokens[row] > END).sum())]
            self._taught.append((batch.ids[owner], seen, maps[row, : len(seen)]))

    def _score(self, split: str) -> None:
        data, generated = self.trainer.datamodule, self._generated
        references = data.references(split)
        scores = caption_scores(
            {name: references[name] for name in generated}, {name: c.words for name, c in generated.items()}
        )
        for name, value in scores.corpus.items():
            self.log(f"{split}/{name}", value, prog_bar=name == "CIDEr-D")
        maps = [(name, caption.words, caption.weights) for name, caption in generated.items()]
        self.log(f"{split}/entropy", float(entropy(np.concatenate([m.reshape(len(m), -1) for *_, m in maps])).mean()))
        self.log(f"{split}/words", float(np.mean([len(caption.words) for caption in generated.values()])))
        found = {"grounding": self._ground(data, maps), "ground_truth_grounding": self._ground(data, self._taught)}
        if any(scored.words for scored in found.values()):
            for title, scored in found.items():
                self.log_dict({f"{split}/{title}_{name}": float(value) for name, value in scored._asdict().items()})

    def _ground(self, data: CaptionData, entries: list[tuple[str, list[str], np.ndarray]]) -> Grounding:
        """Score the maps of captions' words against where the data says that they are; words that the model knows."""
        maps = itertools.chain.from_iterable(weights for *_, weights in entries)
        masks = (
            mask if word in self.vocabulary.ids else None
            for name, words, _ in entries
            for word, mask in zip(words, data.regions(name, words), strict=True)
        )
        return grounding(maps, masks, POINTING_TOLERANCE * min(self.image_size), self.cell_shift)


def gradient_share(part: Tensor, loss: Tensor, parameters: list[Tensor]) -> Tensor:
    """‖g‖ / (‖g‖ + ‖rest‖), where g is the gradient of a part of the loss and rest that of everything else."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    own, rest = (
        torch.autograd.grad(value, trained, retain_graph=True, allow_unused=True, materialize_grads=True)
        for value in (part, loss - part)
    )
    norm, other = (torch.stack([gradient.norm() for gradient in gradients]).norm() for gradients in (own, rest))
    return norm / (norm + other)
