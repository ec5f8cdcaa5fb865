"""The captioner as a LightningModule: connects data, model, objective, decoding and scores."""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor

from visattn.attention import HardAttention, Memory, SpatialAttention
from visattn.data.batch import CaptionBatch
from visattn.data.loading import Split
from visattn.decoding import Captioning, Decoded, Greedy, Search, captions, likeliest
from visattn.errors import InputError, require_number
from visattn.images import Fit
from visattn.metrics import (
    CHAIR,
    ExposureSums,
    Grounding,
    attention_health,
    grounding,
    is_truth_score,
    teacher_forced_captions,
)
from visattn.metrics.grounding import POINTING_TOLERANCE
from visattn.models import Annotations, Decoder, GridEncoder, LSTMDecoder
from visattn.training import processes
from visattn.training.evaluation import CaptionEvaluation, EvaluatedImage, collect
from visattn.training.objectives import CaptionLoss, Enumeration, WithoutReplacement, gradient_share
from visattn.training.optimization import Optimization, total_steps
from visattn.training.regimes import Regime, TeacherForcing, rows
from visattn.vocabulary import END, Vocabulary, Words

log = logging.getLogger(__name__)


class Captioner(Captioning, LightningModule):
    """An encoder, and a decoder with attention.

    Validation and test score freely generated captions; checkpoints are selected by `val/CIDEr-D`. If the data provides
    regions of words, grounding is scored for the words of generated captions (`grounding_…`), and for the references'
    words under teacher forcing (`ground_truth_grounding_…`). Exposure bias is measured by `gap`, the difference of the
    accuracies with teacher forcing and free running (see `visattn.metrics.exposure`), and by scores of teacher-forced
    "captions" (`teacher_forced_BLEU-4` and so on), which are optimistic and not used for selection. If the data
    provides the content of its images, captions are checked against it (`true`, `complete` and so on, see
    `visattn.metrics.truth`; for photographs with annotated objects `CHAIR-i` and so on, see
    `visattn.metrics.hallucination`). All logged values are over the whole batch, or over every image once, for any
    number of processes.

    Args:
        output_names: the vocabulary, special tokens first; the command line sets it from the data.
        image_size: (h, w) of the input in pixels; also set from the data.
        fit: how images are resized; also set from the data.
        encoder: the backbone.
        decoder: constructs the decoder from the sizes of vocabulary and annotation vectors.
        loss: the objective.
        optimization: optimiser and schedule.
        max_length: maximum length of a generated caption, in words.
        regime: training regime; by default teacher forcing.
        search: search method for validation, test and prediction; by default greedy.
        no_repeat: n-grams of this length occur at most once in a generated caption; 0 allows all.
        tokens: tokenisation of captions: "words", "characters", or the JSON of a tokenizer; the command line sets it
            from the data.

    Raises:
        InputError: if an option is out of its range, or the search does not suit the vocabulary; if attention samples
            and the loss has no REINFORCE, or vice versa; if the attention does not support the encoder's grid.
    """

    def __init__(
        self,
        output_names: list[str],
        image_size: tuple[int, int],
        fit: Fit,
        encoder: GridEncoder,
        decoder: Callable[[int, int], Decoder] = LSTMDecoder,
        loss: CaptionLoss | None = None,
        optimization: Optimization | None = None,
        max_length: int = 20,
        regime: Regime | None = None,
        search: Search | None = None,
        no_repeat: int = 0,
        tokens: str = Words.spec,
    ) -> None:
        super().__init__()
        with warnings.catch_warnings():  # the command line passes configurations, not modules
            warnings.filterwarnings("ignore", "Attribute .* is an instance of `nn.Module`")
            self.save_hyperparameters()
        self.vocabulary = Vocabulary(output_names, tokens)
        self.image_size, self.fit = tuple(image_size), fit
        self.encoder = encoder
        self.decoder = decoder(len(self.vocabulary), encoder.size)
        self.loss = loss or CaptionLoss()
        self.optimization = optimization or Optimization()
        self.max_length = max_length
        self.regime = regime or TeacherForcing()
        self.search, self.no_repeat = search or Greedy(), no_repeat
        require_number("max_length", max_length, least=1)
        require_number("no_repeat", no_repeat, least=0)
        self.check_search()
        self._attentions = [module for module in self.decoder.modules() if isinstance(module, SpatialAttention)]
        hard = [attention for attention in self._attentions if isinstance(attention, HardAttention)]
        self._check_estimator([attention for attention in hard if attention.relaxation is None], bool(hard))
        self.decoder.check_grid(encoder.grid(self.image_size))
        self._named = False
        self.started = False  # from the weights of another training, including the encoder's
        self.evaluated = CaptionEvaluation({})  # in the last validation or test

    def setup(self, stage: str) -> None:
        processes.draw_apart()
        _ = self.input  # rejects a backbone whose maps cannot be overlaid, before anything is computed
        if stage == "fit":
            self._require_facts()
            self._require_mentions()
            self._supervise()
        if stage == "fit" and self.trainer.ckpt_path is None and not self.started:
            self.encoder.load_weights()

    def on_fit_start(self) -> None:
        data = self.trainer.datamodule
        self.regime.begin(data.references("train"), self.vocabulary, self.max_length, data.facts)
        if self.regime.signature and self.trainer.is_global_zero:
            log.info(self.regime.signature)

    def configure_optimizers(self) -> dict[str, Any]:
        return self.optimization.configure(self)

    def encode(self, batch: CaptionBatch) -> tuple[Tensor, tuple[int, int]]:
        """Annotation vectors (N, L, D) of a batch's images, and their grid."""
        if batch.features is not None:
            return Annotations(batch.features.flatten(1, 2).to(self.dtype), tuple(batch.features.shape[1:3]))
        if self.encoder.frozen:
            with torch.no_grad():
                return self.encoder(batch.images)
        return self.encoder(batch.images)

    def remember(self, batch: CaptionBatch) -> Memory:
        """The memory of a batch's images, N rows."""
        return self.decoder.prepare(*self.encode(batch))

    def on_train_batch_start(self, batch: CaptionBatch, index: int) -> None:
        for attention in self._attentions:
            attention.progress = self.global_step / total_steps(self.trainer)

    def training_step(self, batch: CaptionBatch, index: int) -> Tensor:
        taught = self.regime.teach(self.decoder, self.remember(batch), batch, self.loss, self.global_step)
        logs = {"loss": taught.loss.detach(), **taught.logs}
        if taught.reinforce is not None and (self.global_step + 1) % self.trainer.log_every_n_steps == 0:
            attention = [weight for mechanism in self._attentions for weight in mechanism.parameters()]
            logs["reinforce_gradient_share"] = gradient_share(taught.reinforce, taught.loss, attention)
        whole = processes.mean(torch.stack([value.to(taught.loss) for value in logs.values()]))
        for name, value in zip(logs, whole, strict=True):
            self.log(f"train/{name}", value, prog_bar=name in ("loss", "reward"), batch_size=taught.tokens)
        return taught.loss

    def validation_step(self, batch: CaptionBatch, index: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: CaptionBatch, index: int) -> None:
        self._evaluate(batch, "test")

    def predict_step(self, batch: CaptionBatch, index: int) -> list[dict[str, Any]]:
        memory = self.remember(batch)
        generated = captions(self.decode(memory), self.vocabulary, memory.grid)[:: self.search.best]
        return [
            {"image_id": name, "caption": caption.text, "words": caption.words, "log_prob": caption.log_prob}
            for name, caption in zip(batch.ids, generated, strict=True)
        ]

    def on_validation_epoch_start(self) -> None:
        self.evaluated = CaptionEvaluation({})

    def on_test_epoch_start(self) -> None:
        self.evaluated = CaptionEvaluation({})

    def on_validation_start(self) -> None:
        self._name_tokens()

    def on_test_start(self) -> None:
        self._name_tokens()

    def on_validation_epoch_end(self) -> None:
        self._score("val")

    def on_test_epoch_end(self) -> None:
        self._score("test")

    def _check_estimator(self, sampling: list[HardAttention], hard: bool) -> None:
        """Check that sampled places are trained, by one estimator, which can work with the attention.

        Args:
            sampling: the mechanisms that sample and have no relaxation.
            hard: whether there is hard attention at all.
        """
        estimator = self.loss.reinforce
        if sampling and estimator is None:
            raise InputError(
                "hard attention is trained by REINFORCE: set the loss's option reinforce, such as "
                "--model.init_args.loss.init_args.reinforce=visattn.training.objectives.Reinforce, or the attention's "
                "option relaxation"
            )
        if estimator is None:
            return
        if not sampling:
            raise InputError(
                "the loss's option reinforce and the attention's option relaxation exclude each other; leave out one"
                if hard
                else "the loss's option reinforce needs attention that samples: use HardAttention, or leave it out"
            )
        height, width = self.encoder.grid(self.image_size)
        for attention in sampling:
            estimator.check(attention, height * width)
        if isinstance(estimator, Enumeration | WithoutReplacement) and not isinstance(self.regime, TeacherForcing):
            raise InputError(
                f"reinforce is {type(estimator).__name__}, which needs given captions, and "
                f"{type(self.regime).__name__} gives others; leave out the regime, or use another estimator"
            )

    def _require_facts(self) -> None:
        """Reject truth as reward or checkpoint criterion if the data does not provide it."""
        data, callbacks = self.trainer.datamodule, self.trainer.callbacks
        monitored = [str(getattr(callback, "monitor", None)) for callback in callbacks]
        named = [name for name in monitored if name.startswith("val/") and is_truth_score(name.removeprefix("val/"))]
        # The first training image is looked at only if needed: shards read all captions for it.
        if not (self.regime.needs_facts or named) or data.facts(next(iter(data.references("train")))) is not None:
            return
        unknown = f"but {data.describe()} does not provide the content of its images; "
        if self.regime.needs_facts:
            raise InputError(
                f"the regime's reward is the captions' truth, {unknown}set "
                "--model.init_args.regime.init_args.reward=CIDEr-D, or train on visattn.data.ShapesCaptions"
            )
        raise InputError(
            f"{named[0]} cannot be monitored, {unknown}monitor another score, such as --checkpoint.monitor="
            "val/CIDEr-D, or train on visattn.data.ShapesCaptions"
        )

    def _require_mentions(self) -> None:
        """Reject CHAIR as checkpoint criterion if the data does not know what is in its validation images."""
        data = self.trainer.datamodule
        monitored = {str(getattr(callback, "monitor", None)) for callback in self.trainer.callbacks}
        names = sorted(monitored & {f"val/{name}" for name in CHAIR})
        if names and all(data.mentions(image, "") is None for image in data.references("val")):
            raise InputError(
                f"{names[0]} cannot be monitored, since {data.describe()} does not say what is in its validation "
                "images; give --data.instances FILE, or monitor another score, such as --checkpoint.monitor=val/CIDEr-D"
            )

    def _supervise(self) -> None:
        """Enable word regions of the data if attention is supervised; reject data without any."""
        if not self.loss.supervision:
            return
        if not self.regime.reads_captions:
            raise InputError(
                f"supervised attention needs given captions, which {type(self.regime).__name__} does not use; leave "
                "out --model.loss.supervision"
            )
        data = self.trainer.datamodule
        known = (data.regions(name, words) for name, lines in data.references("train").items() for words in lines)
        if not any(mask is not None for masks in known for mask in masks):
            raise InputError(
                f"attention is supervised, but {data.describe()} has no outlines for training words; give "
                "outlines of training images (--data.instances FILE), or leave out --model.loss.supervision"
            )
        data.places = self.encoder.grid(self.image_size), self.input.cell_shift

    def _name_tokens(self) -> None:
        """Log once the tokens of the scores, if these are not comparable with others."""
        if self.vocabulary.tokens.spec != Words.spec and self.trainer.is_global_zero and not self._named:
            self._named = True
            log.info("scores are of these tokens, and not comparable with others: tok:%s", self.vocabulary.tokens.name)

    def _evaluate(self, batch: CaptionBatch, split: Split) -> None:
        memory = self.remember(batch)
        of_captions, tokens = rows(memory, batch)
        targets = tokens[:, 1:]
        logits, glimpses = self.decoder(of_captions, tokens[:, :-1])
        losses = self.loss.sums(logits, glimpses, targets).loss
        if not (finite := losses.isfinite()).all():  # half precision may overflow here although all weights are finite
            names = ", ".join(batch.ids[i] for i in batch.owner[~finite].unique().tolist())
            raise InputError(
                f"the {split} loss of the images {names} is not finite in {self.dtype}; train with a lower "
                "learning rate, or use --trainer.precision 32-true"
            )
        log_probs = logits.float().log_softmax(dim=-1).gather(2, targets.unsqueeze(2)).squeeze(2)
        decoded = Decoded(*(part[:: self.search.best] for part in self.decode(memory)))
        generated = captions(decoded, self.vocabulary, memory.grid)
        parts = (losses, targets, log_probs, likeliest(logits), glimpses.weights.float(), decoded.tokens, batch.owner)
        losses, targets, log_probs, choices, maps, said, owner = (part.cpu().numpy() for part in parts)
        maps = maps.reshape(*maps.shape[:2], *memory.grid)
        references = self.trainer.datamodule.references(split)
        for image, name in enumerate(batch.ids):
            own = owner == image
            one = np.zeros(own.sum(), dtype=int)  # the image of each reference, if this is the only image
            words, weights = generated[image].words, generated[image].weights
            facts = self.trainer.datamodule.facts(name)
            lengths = (targets[own] > END).sum(axis=1)
            true = [(line[:n], seen[:n]) for line, seen, n in zip(references[name], maps[own], lengths, strict=True)]
            self.evaluated.images[name] = EvaluatedImage(
                words=words,
                forced=teacher_forced_captions(targets[own], choices[own], one, self.vocabulary)[0],
                loss=float(losses[own].sum(dtype=float)),
                exposure=ExposureSums.count(targets[own], log_probs[own], choices[own], said[image : image + 1], one),
                health=attention_health([weights]) if words else None,
                gate=float(generated[image].gates.sum()),
                grounding=self._ground(name, [(words, weights)]),
                true_grounding=self._ground(name, true),
                verdict=facts and facts.judge(generated[image].text.split()),
                mentions=self.trainer.datamodule.mentions(name, generated[image].text),
            )

    def _score(self, split: Split) -> None:
        known = self.trainer.datamodule.references(split)
        self.evaluated = CaptionEvaluation(collect(self.evaluated.images, known, split, self.trainer))
        for name, value in processes.once(lambda: self.evaluated.scores(known)).items():
            shown = name in ("CIDEr-D", "true")
            self.log(f"{split}/{name}", value, prog_bar=shown, sync_dist=True)  # equal in all processes

    def _ground(self, image: str, entries: list[tuple[list[str], np.ndarray]]) -> Grounding:
        """Score the maps of words in the vocabulary against their regions in the data."""
        regions = self.trainer.datamodule.regions
        maps = [word for _, weights in entries for word in weights]
        masks = (
            mask if word in self.vocabulary.ids else None
            for words, _ in entries
            for word, mask in zip(words, regions(image, words), strict=True)
        )
        return grounding(maps, masks, POINTING_TOLERANCE * min(self.image_size), self.input.cell_shift)
