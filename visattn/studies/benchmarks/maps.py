"""Cost of each kind of attention map of a timm Vision Transformer, relative to plain inference on the same images.

Random weights, at the size of timm's configuration. On a CPU it is processor time that counts.
"""

import time
from typing import NamedTuple

import timm
import torch

from visattn.explain import GradientRollout, Relevance, Rollout, timm_subject
from visattn.studies.benchmarks.report import Table
from visattn.studies.benchmarks.setting import Setting

PACKAGES = ()


class Sizes(NamedTuple):
    """Attributes: the name of a model of timm, and images at once."""

    model: str = "vit_small_patch16_224"
    images: int = 8


FULL, QUICK = Sizes(), Sizes("test_vit", 2)


def measure(setting: Setting, sizes: Sizes = FULL) -> list[Table]:
    """One table, a row for each way."""
    vit = timm_subject(sizes.model, "random").vit
    vit.model.to(setting.device)
    pixels = setting.random(sizes.images, *timm.data.resolve_model_data_config(vit.model)["input_size"])
    targets = torch.zeros(sizes.images, dtype=torch.long, device=setting.device)

    @torch.no_grad()
    def plain() -> None:
        vit.model(pixels)

    runs = {
        "plain inference": plain,
        "what the classes are read from, all layers and heads": lambda: vit.rows(pixels),
        "all maps, all layers and heads": lambda: vit.maps(pixels),
        "rollout": lambda: Rollout()(vit, pixels),
        "rollout, max of heads, 90% discarded": lambda: Rollout("max", 0.9)(vit, pixels),
        "gradient rollout of a class": lambda: GradientRollout()(vit, pixels, targets),
        "relevance of a class": lambda: Relevance()(vit, pixels, targets),
    }
    times = setting.time(runs, clock=time.process_time if setting.device.type == "cpu" else time.perf_counter)
    rows = {name: {"cost": times.ratio(name, "plain inference")} for name in runs}
    return [Table(f"{sizes.model}, {sizes.images} images at once", "what", {"cost": ".2f"}, rows)]
