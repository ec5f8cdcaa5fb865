"""A Vision Transformer and other implementations of the same architecture, with the same weights and images.

Plain inference, a training step (forward, backward, AdamW), and inference with the attention maps of all layers and
heads: by each library's own way to get them, and by `visattn.explain.ViT`, which listens to fused attention, ours and
timm's.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional as F

from visattn.explain import ViT
from visattn.studies.benchmarks.peers import Architecture, Peer, peers
from visattn.studies.benchmarks.report import Table
from visattn.studies.benchmarks.setting import Setting
from visattn.studies.benchmarks.timing import Times

PACKAGES = ("transformers", "vit-pytorch")


class Case(NamedTuple):
    """Attributes: what it is called, an architecture, and how many images it is given at once."""

    name: str
    architecture: Architecture
    batch: int


FULL = (
    Case("ViT of 2.7 M parameters, 32×32 pixels, patches of 4", Architecture(10, (32, 32), 4, 192, 6, 3, 4.0), 128),
    Case("ViT-S/16, 224×224 pixels", Architecture(1000, (224, 224), 16, 384, 12, 6, 4.0), 8),
)
QUICK = (Case("tiny", Architecture(5, (8, 12), 4, 12, 2, 3, 2.0), 2),)


def measure(setting: Setting, cases: tuple[Case, ...] = FULL) -> list[Table]:
    """Tables of each case: inference, plain and with maps; and training."""
    tables = []
    for case in cases:
        models = peers(case.architecture, setting.device)
        images = setting.random(case.batch, 3, *case.architecture.image_size)
        tables += [inference(setting, case, models, images), training(setting, case, models, images)]
    return tables


def inference(setting: Setting, case: Case, models: list[Peer], images: torch.Tensor) -> Table:
    """Inference, plain and with all maps."""
    for peer in models:
        peer.model.eval()
    plain = {peer.name: _without_gradients(peer.logits, images) for peer in models}
    mapped = {f"{peer.name}, all maps": _without_gradients(peer.maps, images) for peer in models}
    fused = [peer for peer in models if peer.name in ("visattn", "timm")]
    extra = {f"{peer.name}, all maps by ViT.maps": _without_gradients(ViT(peer.model).maps, images) for peer in fused}
    times = setting.time(plain | mapped | extra)
    rows = {name: _row(times, name, "visattn", case.batch) for name in plain}
    for name in mapped | extra:
        base = name.partition(",")[0]
        rows[name] = _row(times, name, "visattn, all maps", case.batch) | {_PLAIN: times.ratio(name, base)}
    columns = {"images/s": ".1f", _OURS: ".2f", _PLAIN: ".2f"}
    return Table(f"{case.name}: inference, {case.batch} images at once", "what", columns, rows, _fastest(times, plain))


def training(setting: Setting, case: Case, models: list[Peer], images: torch.Tensor) -> Table:
    """A training step."""
    targets = torch.arange(case.batch, device=setting.device) % case.architecture.classes
    runs = {}
    for peer in models:
        peer.model.train()
        runs[peer.name] = _step(peer, images, targets)
    times = setting.time(runs)
    rows = {name: _row(times, name, "visattn", case.batch) for name in runs}
    columns = {"images/s": ".1f", _OURS: ".2f"}
    return Table(f"{case.name}: training step of {case.batch} images", "what", columns, rows, _fastest(times, runs))


_OURS, _PLAIN = "time, in visattn's", "time, in plain inference of the same model"


def _row(times: Times, name: str, base: str, work: int) -> dict:
    return {"images/s": times.rate(name, work), _OURS: times.ratio(name, base)}


def _fastest(times: Times, names: dict) -> str:
    """How ours compares with the fastest peer."""
    others = [name for name in names if name != "visattn"]
    if not others:
        return "No peer is installed."
    fastest = times.fastest(others)
    return f"Ours takes {times.ratio('visattn', fastest):.2f} of the time of the fastest peer, {fastest}."


def _without_gradients(run: Callable, images: torch.Tensor) -> Callable[[], None]:
    @torch.inference_mode()
    def go() -> None:
        run(images)

    return go


def _step(peer: Peer, images: torch.Tensor, targets: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(peer.model.parameters(), lr=1e-5)

    def go() -> None:
        optimizer.zero_grad()
        F.cross_entropy(peer.logits(images).float(), targets).backward()
        optimizer.step()

    return go
