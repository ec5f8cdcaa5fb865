"""The captioner as a LightningModule: glue between data, model, objective, decoding and scores."""

import functools
import itertools
import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from visattn.attention import HardAttention, Memory
from visattn.data.batch import CaptionBatch
from visattn.data.captions import CaptionData
from visattn.decoding import Caption, Decoded, Greedy, Search, captions, decode
from visattn.errors import InputError
from visattn.geometry import Fit
from visattn.metrics import ExposureSums, Grounding, caption_scores, entropy, grounding, teacher_forced_captions
from visattn.models import Annotations, Decoder, Encoder, LSTMDecoder
from visattn.objectives import CaptionLoss
from visattn.optimization import Optimization
from visattn.regimes import Regime, TeacherForcing, forced, rows
from visattn.vocabulary import END, PAD, Vocabulary

log = logging.getLogger(__name__)

POINTING_TOLERANCE = 15 / 224  # of the input's shorter side: the 15 pixels of Zhang 2016 at his 224


class Captioner(LightningModule):
    """An encoder, and a decoder with attention.

    Validation and test generate captions freely and score those; `val/CIDEr-D` is what checkpoints are to be chosen by.
    Grounding is scored too where the data knows which words name something in the image, and where that is: of the
    words of generated captions (`grounding_…`) and of the references' words, given the true words before them
    (`ground_truth_grounding_…`). How far what is right after the true words goes wrong after own words is measured too:
    `gap` of the accuracies (see `visattn.metrics.exposure`), and the scores of teacher-forced "captions"
    (`teacher_forced_BLEU-4` and so on), which flatter and choose nothing here.

    Args:
        output_names: the vocabulary, special tokens first; the command line takes it from the data.
        image_size: (h, w) of the input in pixels; likewise.
        fit: how an image was made that size; likewise.
        encoder: the backbone.
        decoder: makes the decoder from the sizes of vocabulary and annotation vectors.
        loss: what is minimised.
        optimization: how.
        max_length: of a generated caption, in words.
        regime: how the decoder meets its own words in training; by default never.
        search: how words are chosen in validation, test and prediction; by default greedily.
        no_repeat: no run of so many words occurs twice in a generated caption; 0 allows all.

    Raises:
        InputError: where an option is out of its range; where attention draws and the loss has no REINFORCE, or the
            other way round; where the attention cannot look at the grid that the encoder makes of such images.
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
        regime: Regime | None = None,
        search: Search | None = None,
        no_repeat: int = 0,
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
        self.regime = regime or TeacherForcing()
        self.search, self.no_repeat = search or Greedy(), no_repeat
        for name, value, least in (("max_length", max_length, 1), ("no_repeat", no_repeat, 0)):
            if value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}")
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
        self.started = False  # with the weights of another training, the encoder's among them
        self._evaluated = _Evaluated()

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.trainer.ckpt_path is None and not self.started:
            self.encoder.load_weights()

    def on_fit_start(self) -> None:
        self.regime.begin(self.trainer.datamodule.references("train"), self.vocabulary, self.max_length)
        if self.regime.signature:
            log.info(self.regime.signature)

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
        taught = self.regime.teach(self.decoder, self.remember(batch), batch, self.loss, self.global_step)
        self.log("train/loss", taught.loss, prog_bar=True, batch_size=taught.tokens)
        for name, value in taught.logs.items():
            self.log(f"train/{name}", value, prog_bar=name == "reward", batch_size=taught.tokens)
        if taught.reinforce is not None and (index + 1) % self.trainer.log_every_n_steps == 0:
            share = gradient_share(taught.reinforce, taught.loss, list(self.decoder.attention.parameters()))
            self.log("train/reinforce_gradient_share", share, batch_size=taught.tokens)
        return taught.loss

    def validation_step(self, batch: CaptionBatch, index: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: CaptionBatch, index: int) -> None:
        self._evaluate(batch, "test")

    def predict_step(self, batch: CaptionBatch, index: int) -> list[dict[str, Any]]:
        memory = self.remember(batch)
        generated = captions(self._decode(memory), self.vocabulary, memory.grid)[:: self.search.best]
        return [
            {"image_id": name, "caption": " ".join(caption.words), "words": caption.words, "log_prob": caption.log_prob}
            for name, caption in zip(batch.ids, generated, strict=True)
        ]

    def on_validation_epoch_start(self) -> None:
        self._evaluated = _Evaluated()

    def on_test_epoch_start(self) -> None:
        self._evaluated = _Evaluated()

    def on_validation_epoch_end(self) -> None:
        self._score("val")

    def on_test_epoch_end(self) -> None:
        self._score("test")

    @torch.inference_mode()
    def caption(self, images: Tensor) -> list[list[Caption]]:
        """The captions of images (N, 3, h, w) uint8 of the module's `image_size`, on its own device.

        As many of each image as `search` hands back: of a beam search the best first, of sampling as they were drawn.
        """
        memory = self.decoder.prepare(*self.encoder(images.to(self.device)))
        found, best = captions(self._decode(memory), self.vocabulary, memory.grid), self.search.best
        return [found[start : start + best] for start in range(0, len(found), best)]

    @torch.inference_mode()
    def read(self, images: Tensor, words: list[list[str]]) -> list[Caption]:
        """How the model sees given captions, a list of words for each image: each word after the true words before it.

        Images are those of `caption`. A word that the vocabulary lacks is read as unknown; log-probabilities are among
        all tokens.
        """
        memory = self.decoder.prepare(*self.encoder(images.to(self.device)))
        lines = [torch.tensor(self.vocabulary.encode(line, len(line)), device=self.device) for line in words]
        tokens = pad_sequence(lines, batch_first=True, padding_value=PAD)
        logits, seen = self.decoder(memory, tokens[:, :-1])
        targets = tokens[:, 1:]
        log_probs = logits.float().log_softmax(dim=-1).gather(2, targets.unsqueeze(2)).squeeze(2)
        log_probs = log_probs.masked_fill(targets == PAD, 0)
        nothing = torch.zeros_like(log_probs[:, 0])
        read = Decoded(targets, log_probs, seen.weights, seen.focus, seen.log_prob, seen.gate, nothing)
        known = captions(read, self.vocabulary, memory.grid)
        return [caption._replace(words=line) for caption, line in zip(known, words, strict=True)]

    def _decode(self, memory: Memory) -> Decoded:
        return decode(self.decoder, memory, self.search, self.max_length, self.no_repeat)

    def _evaluate(self, batch: CaptionBatch, split: str) -> None:
        memory = self.remember(batch)
        of_captions, tokens = rows(memory, batch)
        losses, logits, glimpses = forced(self.decoder, of_captions, tokens, self.loss)
        targets = tokens[:, 1:]
        count = int((targets != PAD).sum())
        self.log(f"{split}/loss", losses.loss, batch_size=count)
        self.log(f"{split}/cross_entropy", losses.cross_entropy, batch_size=count)
        decoded = Decoded(*(part[:: self.search.best] for part in self._decode(memory)))
        evaluated = self._evaluated
        evaluated.generated |= zip(batch.ids, captions(decoded, self.vocabulary, memory.grid), strict=True)
        references = self.trainer.datamodule.references(split)
        words = [caption for name in batch.ids for caption in references[name]]
        maps = glimpses.weights.float().cpu().unflatten(-1, memory.grid).numpy()
        for row, owner in enumerate(batch.owner.tolist()):
            seen = words[row][: int((batch.tokens[row] > END).sum())]
            evaluated.taught.append((batch.ids[owner], seen, maps[row, : len(seen)]))
        log_probs = logits.float().log_softmax(dim=-1).gather(2, targets.unsqueeze(2)).squeeze(2)
        choices = likeliest(logits)
        parts = (part.cpu().numpy() for part in (targets, log_probs, choices, decoded.tokens, batch.owner))
        evaluated.sums.append(ExposureSums.count(*parts))
        parts = (part.cpu().numpy() for part in (targets, choices, batch.owner))
        evaluated.forced |= zip(batch.ids, teacher_forced_captions(*parts, self.vocabulary), strict=True)

    @property
    def exposure(self) -> ExposureSums:
        """Of the validation or test that came last: what was right after true words and after own words."""
        return functools.reduce(ExposureSums.plus, self._evaluated.sums)

    def _score(self, split: str) -> None:
        data, generated = self.trainer.datamodule, self._evaluated.generated
        known = data.references(split)
        references = {name: known[name] for name in generated}
        scores = caption_scores(references, {name: caption.words for name, caption in generated.items()})
        for name, value in scores.corpus.items():
            self.log(f"{split}/{name}", value, prog_bar=name == "CIDEr-D")
        for name, value in caption_scores(references, self._evaluated.forced).corpus.items():
            self.log(f"{split}/teacher_forced_{name}", value)
        numbers = self.exposure.overall()
        for name in ("teacher_forced", "free_running", "another_reference"):
            self.log(f"{split}/{name}_accuracy", numbers[name])
        self.log(f"{split}/gap", numbers["gap"])
        maps = [(name, caption.words, caption.weights) for name, caption in generated.items()]
        self.log(f"{split}/entropy", float(entropy(np.concatenate([m.reshape(len(m), -1) for *_, m in maps])).mean()))
        self.log(f"{split}/words", float(np.mean([len(caption.words) for caption in generated.values()])))
        taught = self._evaluated.taught
        found = {"grounding": self._ground(data, maps), "ground_truth_grounding": self._ground(data, taught)}
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


class _Evaluated:
    """What is gathered over a validation or a test.

    Attributes:
        generated: the caption of each image.
        forced: the words of each image's teacher-forced "caption".
        taught: references as their image's id, words and maps (T, H, W).
        sums: of the batches' exposure.
    """

    def __init__(self) -> None:
        self.generated: dict[str, Caption] = {}
        self.forced: dict[str, list[str]] = {}
        self.taught: list[tuple[str, list[str], np.ndarray]] = []
        self.sums: list[ExposureSums] = []


def likeliest(logits: Tensor) -> Tensor:
    """The first choices (B, T) given the true words, of the tokens that a caption may say there."""
    first, later = (torch.tensor(Greedy().forbidden(t), device=logits.device) for t in (0, 1))
    allowed = logits.index_fill(2, later, float("-inf"))
    allowed[:, 0, first] = float("-inf")
    return allowed.argmax(dim=-1)


def gradient_share(part: Tensor, loss: Tensor, parameters: list[Tensor]) -> Tensor:
    """‖g‖ / (‖g‖ + ‖rest‖), where g is the gradient of a part of the loss and rest that of everything else."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    own, rest = (
        torch.autograd.grad(value, trained, retain_graph=True, allow_unused=True, materialize_grads=True)
        for value in (part, loss - part)
    )
    norm, other = (torch.stack([gradient.norm() for gradient in gradients]).norm() for gradients in (own, rest))
    return norm / (norm + other)
