"""Annotation vectors of a frozen encoder, computed once and stored on disk."""

import hashlib
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from visattn.data.captions import CaptionData, CaptionedImage
from visattn.errors import InputError
from visattn.files import lock, write_text
from visattn.models import GridEncoder
from visattn.models.mode import evaluating
from visattn.training.captioner import Captioner

log = logging.getLogger(__name__)

RECORD_SECONDS = 10.0  # maximum work lost when a process is killed

_PARTIAL, _RECORD = ".computing-", "done.json"
_STALE_SECONDS = 7 * 24 * 3600  # a run in progress updates its record every few seconds


class FeatureStore:
    """Stored annotation vectors by image id, memory-mapped.

    Args:
        folder: with `features.npy` (N, h, w, D) float16 and `ids.json`, the N image ids.
    """

    def __init__(self, folder: Path) -> None:
        self.array = np.load(folder / "features.npy", mmap_mode="r")
        ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
        self.row = {name: i for i, name in enumerate(ids)}

    def __getitem__(self, image_id: str) -> Tensor:
        """(h, w, D) of one image."""
        return self.__getitems__([image_id])[0]

    def __getitems__(self, image_ids: Sequence[str]) -> Tensor:
        """(N, h, w, D) of several images."""
        return torch.from_numpy(self.array[[self.row[name] for name in image_ids]])


class FeatureCache(Callback):
    """Lets a captioner with a frozen encoder train on features instead of images.

    Before the first epoch every image of the training and validation splits is encoded once, and with random mirroring
    every training image again, mirrored; `visattn validate` uses the features cached in training. The cache folder is
    named after everything that features depend on: the encoder's parameters and normalisation, the input's size and
    fit, and each image's name, size and date. So a stale cache is never used. Features are stored in half precision.
    One process computes them while the others wait, for at most half an hour; if it takes longer, run a single process
    first. An interrupted encoding is continued by the next run.

    Args:
        directory: cache folder; each set of features has its own subfolder.
        batch_size: images per batch.

    Raises:
        InputError: if the encoder is trained, so that its features change.
    """

    def __init__(self, directory: str, batch_size: int = 64) -> None:
        self.directory = Path(directory)
        self.batch_size = batch_size

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == "validate" and self._folder(trainer, pl_module).exists():
            trainer.datamodule.features = FeatureStore(self._folder(trainer, pl_module))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data, folder = trainer.datamodule, self._folder(trainer, pl_module)
        data.features = self._store(_Inputs(data, _examples(data)), folder, trainer)
        if data.mirror:
            mirrored = _Inputs(data, data.examples("train"), mirrored=True)
            data.mirrored_features = self._store(mirrored, folder.with_name(f"{folder.name}-mirrored"), trainer)

    def _store(self, inputs: "_Inputs", folder: Path, trainer: Trainer) -> FeatureStore:
        """The features of these inputs, computed if the folder does not exist."""
        for computes in (
            trainer.is_global_zero,
            trainer.local_rank == 0,
        ):  # then on machines without the folder
            if computes and not folder.exists():
                self._compute(inputs, folder, trainer)
            trainer.strategy.barrier()
        log.info("features from %s", folder)
        return FeatureStore(folder)

    def _folder(self, trainer: Trainer, pl_module: LightningModule) -> Path:
        """The folder of the features, which may not exist yet."""
        data = trainer.datamodule
        if not isinstance(pl_module, Captioner) or not isinstance(data, CaptionData):
            raise InputError("features can only be cached for a captioner; remove FeatureCache from the callbacks")
        if not pl_module.encoder.frozen:
            raise InputError(
                "the features of a trained encoder change; set the encoder's 'train_from: null', or remove FeatureCache"
            )
        return self.directory / _key(pl_module.encoder, data, _examples(data))

    def _compute(self, inputs: "_Inputs", folder: Path, trainer: Trainer) -> None:
        """Encode all images into a hidden folder, which is renamed when complete; resume one of a killed run.

        Of several runs one encodes, with a lock that ends with its process, and the others wait. On systems without
        locks, each encodes into a separate folder, which is never resumed.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        partial = folder.with_name(f"{_PARTIAL}{folder.name}")
        _delete_stale(self.directory, but=partial)
        lock_file = _lock_file(partial)
        with lock_file.open("ab") as file:
            if (locked := lock(file.fileno())) is False:
                log.info("another run is encoding these images; waiting for it")
                lock(file.fileno(), wait=True)
            if not folder.exists():
                if locked is None:
                    partial = Path(tempfile.mkdtemp(dir=self.directory, prefix=_PARTIAL))
                partial.mkdir(exist_ok=True)
                try:
                    self._encode(inputs, partial, trainer)
                    partial.replace(folder)
                    (folder / _RECORD).unlink(missing_ok=True)
                except OSError:  # another run without a lock was faster; its folder is complete
                    if not folder.exists():
                        raise
                finally:
                    if locked is None:
                        shutil.rmtree(partial, ignore_errors=True)
        lock_file.unlink(missing_ok=True)  # not after an error, when a waiting run takes over the lock

    def _encode(self, inputs: "_Inputs", folder: Path, trainer: Trainer) -> None:
        """Write the features of all inputs to a folder, resuming an interrupted run."""
        module, total, precision = trainer.lightning_module, len(inputs), trainer.precision
        array, done = _recorded(folder, total, precision)
        if done:
            log.info("resuming at image %d of %d", done + 1, total)
        else:
            _record(folder, 0, precision)  # before the array is overwritten
        loader = DataLoader(
            Subset(inputs, range(done, total)),
            batch_size=self.batch_size,
            num_workers=inputs.data.workers,
            generator=torch.Generator(),  # so that the training's random states are not affected
        )
        recorded_at = time.monotonic()
        with (
            evaluating(module.encoder),
            torch.inference_mode(),
            trainer.precision_plugin.forward_context(),
            tqdm(total=total, initial=done, desc="Encoding images once", unit="image") as bar,
        ):
            for images in loader:
                values, grid = module.encoder(images.to(module.device))
                features = values.unflatten(1, grid).to(torch.float16).cpu().numpy()
                if array is None:
                    shape = (total, *features.shape[1:])
                    array = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float16, shape)
                array[done : done + len(features)] = features
                done += len(features)
                bar.update(len(features))
                if time.monotonic() - recorded_at >= RECORD_SECONDS:
                    array.flush()
                    _record(folder, done, precision)
                    recorded_at = time.monotonic()
        array.flush()
        write_text(folder / "ids.json", json.dumps([example.id for example in inputs.examples]))


def _recorded(folder: Path, total: int, precision: str) -> tuple[np.ndarray | None, int]:
    """The array of an interrupted run and its number of finished rows; None and 0 if there is none."""
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        if record["rows"] and record["precision"] == precision:
            array = np.lib.format.open_memmap(folder / "features.npy", "r+")
            if len(array) == total:
                return array, record["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no record yet, or a damaged one
    return None, 0


def _record(folder: Path, rows: int, precision: str) -> None:
    """Record, durably, the number of finished rows of the array, and the precision."""
    write_text(folder / _RECORD, json.dumps({"rows": rows, "precision": precision}))


def _lock_file(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.lock")


def _delete_stale(directory: Path, but: Path) -> None:
    """Delete partial features of killed runs with other settings, images or versions of visattn."""
    for path in directory.glob(f"{_PARTIAL}*"):
        with suppress(OSError):  # another run may delete it, too
            if path != but and path.is_dir() and time.time() - path.stat().st_mtime > _STALE_SECONDS:
                log.info("deleting %s, which no run has resumed for a week", path)
                shutil.rmtree(path)
                _lock_file(path).unlink(missing_ok=True)


def _examples(data: CaptionData) -> list[CaptionedImage]:
    """The examples of the training and the validation split."""
    return [example for split in ("train", "val") for example in data.examples(split)]


class _Inputs(Dataset):
    """The model inputs of these examples, mirrored or not."""

    def __init__(self, data: CaptionData, examples: Sequence[CaptionedImage], mirrored: bool = False) -> None:
        self.data, self.examples, self.mirrored = data, examples, mirrored

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Tensor:
        image = self.data.load(self.examples[index])[0]
        return image.flip(-1) if self.mirrored else image


def _key(encoder: GridEncoder, data: CaptionData, examples: list[CaptionedImage]) -> str:
    """A name derived from everything that the features depend on."""
    digest = hashlib.sha256()
    digest.update(f"{encoder.description} {data.image_size} {data.fit}".encode())
    for name, tensor in [*encoder.state_dict().items(), *encoder.normalise.named_buffers()]:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    for example in examples:
        digest.update(f"{type(data).__name__} {example.id}".encode())
        if example.path is not None:
            status = example.path.stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return f"{encoder.name}-{digest.hexdigest()[:16]}"
