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
from typing import Any, NamedTuple
from uuid import uuid4

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
from visattn.training import processes
from visattn.training.captioner import Captioner

log = logging.getLogger(__name__)

RECORD_SECONDS = 10.0  # maximum work lost when a process is killed

POLL_SECONDS = 1.0  # between looks at what other processes have done
STALLED_SECONDS = 30 * 60.0  # without progress of a process, after which the others give up

_PARTIAL, _ARRAY, _RECORD, _RECORDS = ".computing-", "features.npy", "done.json", "done*.json"
_STALE_SECONDS = 7 * 24 * 3600  # a run in progress updates its record every few seconds


class Share(NamedTuple):
    """The rows that one process encodes, and writes to a file of its own: number `index` of `count`."""

    index: int = 0
    count: int = 1

    def rows(self, total: int) -> range:
        """Its rows of `total`."""
        return range(total * self.index // self.count, total * (self.index + 1) // self.count)

    def file(self, name: str) -> str:
        """The name of its own file; that of a single process is `name`."""
        stem, suffix = name.split(".")
        return name if self.count == 1 else f"{stem}-{self.index + 1}-of-{self.count}.{suffix}"


class FeatureStore:
    """Stored annotation vectors by image id, memory-mapped.

    Args:
        folder: with `ids.json`, the N image ids, and `features.npy` (N, h, w, D) float16, or as many
            `features-1-of-2.npy` … as there were processes, each with the rows of its share.
    """

    def __init__(self, folder: Path) -> None:
        ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
        count = max(1, len(list(folder.glob("features-*-of-*.npy"))))
        shares = [Share(i, count) for i in range(count)]
        self.arrays = [np.load(folder / share.file("features.npy"), mmap_mode="r") for share in shares]
        places = ((part, row) for part, share in enumerate(shares) for row in range(len(share.rows(len(ids)))))
        self.place = dict(zip(ids, places, strict=True))

    def __getitem__(self, image_id: str) -> Tensor:
        """(h, w, D) of one image."""
        return self.__getitems__([image_id])[0]

    def __getitems__(self, image_ids: Sequence[str]) -> Tensor:
        """(N, h, w, D) of several images."""
        places = [self.place[name] for name in image_ids]
        if len({part for part, _ in places}) == 1:
            return torch.from_numpy(self.arrays[places[0][0]][[row for _, row in places]])
        return torch.from_numpy(np.stack([self.arrays[part][row] for part, row in places]))


class FeatureCache(Callback):
    """Lets a captioner with a frozen encoder train on features instead of images.

    Before the first epoch every image of the training and validation splits is encoded once, and with random mirroring
    every training image again, mirrored; `visattn validate` uses the features cached in training. The cache folder is
    named after everything that features depend on: the encoder's parameters and normalisation, the input's size and
    fit, and each image's name, size and date. So a stale cache is never used. Features are stored in half precision.
    Several processes encode equal shares, each into a file of its own, into the one folder that all of them see, or
    else into one for each machine. None waits in a collective operation meanwhile, but for files to be complete; a
    process that encodes nothing for half an hour is an error. An interrupted encoding is continued by the next run with
    as many processes.

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
        if trainer.state.fn == "validate" and (folder := self._folder(trainer, pl_module)).exists():
            trainer.datamodule.features = FeatureStore(folder)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data, folder = trainer.datamodule, self._folder(trainer, pl_module)
        if data.crop < 1:
            raise InputError(
                f"data option 'crop' is {data.crop:g}, but features are of whole images; set --features none, or crop 1"
            )
        data.features = self._store(_Inputs(data, _examples(data)), folder, trainer)
        if data.mirror:
            mirrored = _Inputs(data, data.examples("train"), mirrored=True)
            data.mirrored_features = self._store(mirrored, folder.with_name(f"{folder.name}-mirrored"), trainer)

    def _store(self, inputs: "_Inputs", folder: Path, trainer: Trainer) -> FeatureStore:
        """The features of these inputs, computed if the folder does not exist."""
        share, token = self._share(trainer, len(inputs))
        if share is not None and not folder.exists():
            if share.index:
                self._join(inputs, folder, trainer, share, token)
            else:
                self._compute(inputs, folder, trainer, share, token)
        trainer.strategy.barrier()  # all arrive here within seconds, unless one had to wait for another run
        log.info("features from %s", folder)
        return FeatureStore(folder)

    def _share(self, trainer: Trainer, total: int) -> tuple[Share | None, str]:
        """The share of this process, None without images for it, and a name of this run's encoding.

        Processes share the work if they see the same folder: all of them, or those of a machine.
        """
        if trainer.world_size == 1:
            return Share(), ""
        token = processes.once(lambda: uuid4().hex)
        marker = self.directory / f".shared-{token}"  # its name is new, so no file system remembers that it was absent
        if trainer.is_global_zero:
            self.directory.mkdir(parents=True, exist_ok=True)
            marker.touch()
        trainer.strategy.barrier()
        seen = processes.gathered((trainer.node_rank, trainer.global_rank, marker.exists()))
        if trainer.is_global_zero:
            marker.unlink()
        together = all(there for *_, there in seen)
        group = sorted(rank for node, rank, _ in seen if together or node == trainer.node_rank)[:total]
        index = group.index(trainer.global_rank) if trainer.global_rank in group else None
        return None if index is None else Share(index, len(group)), token

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

    def _compute(self, inputs: "_Inputs", folder: Path, trainer: Trainer, share: Share, token: str) -> None:
        """Encode the images into a hidden folder, which is renamed when complete; resume one of a killed run.

        Other processes of this run join as soon as a file with its token names the hidden folder. Of several runs one
        encodes, with a lock that ends with its process, and the others wait. On systems without locks, each encodes
        into a separate folder, which is never resumed.
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
                begun = self._begun(folder, token)
                try:
                    for left in self.directory.glob(f".begun-{folder.name}-*") if locked else ():
                        left.unlink(missing_ok=True)  # by killed runs
                    if share.count > 1:
                        write_text(begun, partial.name)
                    self._encode(inputs, partial, trainer, share, token)
                    _wait(partial, share.count, len(inputs), token)
                    write_text(partial / "ids.json", json.dumps([example.id for example in inputs.examples]))
                    for path in [*partial.glob(_RECORDS), *_of_other_shares(partial, share.count)]:
                        path.unlink()
                    partial.replace(folder)
                except OSError:  # another run without a lock was faster; its folder is complete
                    if not folder.exists():
                        raise
                finally:
                    begun.unlink(missing_ok=True)
                    if locked is None:
                        shutil.rmtree(partial, ignore_errors=True)
        lock_file.unlink(missing_ok=True)  # not after an error, when a waiting run takes over the lock

    def _begun(self, folder: Path, token: str) -> Path:
        return self.directory / f".begun-{folder.name}-{token}"

    def _join(self, inputs: "_Inputs", folder: Path, trainer: Trainer, share: Share, token: str) -> None:
        """Encode a share of what the first process computes, and wait until all shares are there.

        The first may wait for another run, however long, so the folder or its beginning is waited for without a limit.
        """
        while not folder.exists():
            if self._begun(folder, token).exists():
                partial = self.directory / self._begun(folder, token).read_text(encoding="utf-8")
                self._encode(inputs, partial, trainer, share, token)
                _wait(partial, share.count, len(inputs), token, folder)
                break
            time.sleep(POLL_SECONDS)

    def _encode(self, inputs: "_Inputs", folder: Path, trainer: Trainer, share: Share, token: str) -> None:
        """Write the features of a share of the inputs to a folder, resuming an interrupted run."""
        module, precision, rows = trainer.lightning_module, trainer.precision, share.rows(len(inputs))
        total = len(rows)
        array, done = _recorded(folder, total, precision, share)
        if done:
            log.info("resuming at image %d of %d", done + 1, total)
        _record(folder, done, precision, share, token)  # before the array is overwritten
        loader = DataLoader(
            Subset(inputs, rows[done:]),
            batch_size=self.batch_size,
            num_workers=inputs.data.workers,
            generator=torch.Generator(),  # so that the training's random states are not affected
        )
        recorded_at = time.monotonic()
        with (
            evaluating(module.encoder),
            torch.inference_mode(),
            trainer.precision_plugin.forward_context(),
            tqdm(total=total, initial=done, desc="Encoding images once", unit="image", disable=share.index > 0) as bar,
        ):
            for images in loader:
                values, grid = module.encoder(images.to(module.device))
                features = values.unflatten(1, grid).to(torch.float16).cpu().numpy()
                if array is None:
                    shape = (total, *features.shape[1:])
                    array = np.lib.format.open_memmap(folder / share.file(_ARRAY), "w+", np.float16, shape)
                array[done : done + len(features)] = features
                done += len(features)
                bar.update(len(features))
                if time.monotonic() - recorded_at >= RECORD_SECONDS:
                    array.flush()
                    _record(folder, done, precision, share, token)
                    recorded_at = time.monotonic()
        array.flush()
        _record(folder, done, precision, share, token)


def _wait(partial: Path, count: int, total: int, token: str, folder: Path | None = None) -> None:
    """Wait until the shares of all processes of this run are complete, or until `folder` exists.

    Raises:
        InputError: if none of them makes progress for `STALLED_SECONDS`.
    """
    shares, seen, changed = [Share(i, count) for i in range(count)], None, time.monotonic()
    while True:
        found = [_rows(partial, share, token) for share in shares]
        late = [share for share, rows in zip(shares, found, strict=True) if rows != len(share.rows(total))]
        if not late if folder is None else folder.exists():
            return
        if found != seen:
            seen, changed = found, time.monotonic()
        elif time.monotonic() - changed > STALLED_SECONDS:
            names = ", ".join(str(share.index + 1) for share in late) or "the first"
            raise InputError(
                f"of the {count} processes that encode images into {partial}, {names} made no progress for "
                f"{STALLED_SECONDS / 60:.0f} minutes; see their output, and start the run again to continue"
            )
        time.sleep(POLL_SECONDS)


def _rows(folder: Path, share: Share, token: str) -> int | None:
    """The number of finished rows of a share, if this run has begun it."""
    try:
        record = json.loads((folder / share.file(_RECORD)).read_text(encoding="utf-8"))
        return record["rows"] if record["run"] == token else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_other_shares(folder: Path, count: int) -> list[Path]:
    """Arrays that another number of processes has begun."""
    own = {Share(i, count).file(_ARRAY) for i in range(count)}
    return [path for path in folder.glob("features*.npy") if path.name not in own]


def _recorded(folder: Path, total: int, precision: str, share: Share) -> tuple[np.ndarray | None, int]:
    """The array of an interrupted run and its number of finished rows; None and 0 if there is none."""
    try:
        record = json.loads((folder / share.file(_RECORD)).read_text(encoding="utf-8"))
        if record["rows"] and record["precision"] == precision:
            array = np.lib.format.open_memmap(folder / share.file(_ARRAY), "r+")
            if len(array) == total:
                return array, record["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no record yet, or a damaged one
    return None, 0


def _record(folder: Path, rows: int, precision: str, share: Share, token: str) -> None:
    """Record, durably, the number of finished rows of the array, the precision, and the run."""
    write_text(folder / share.file(_RECORD), json.dumps({"rows": rows, "precision": precision, "run": token}))


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
        if example.path is None:
            digest.update(data.load(example)[0].numpy().tobytes())
        else:
            status = example.path.stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return f"{encoder.name}-{digest.hexdigest()[:16]}"
