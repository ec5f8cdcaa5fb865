"""The optimiser and its learning rate schedule."""

import functools
import inspect
import math
from typing import Any

import torch
from lightning import LightningModule, Trainer
from timm.optim import create_optimizer_v2, muon
from torch import Tensor, nn
from torch.optim import Adam, AdamW
from torch.optim.lr_scheduler import LambdaLR

from visattn.errors import InputError, require_number
from visattn.precision import bfloat16_support

_FOOT = 1e-3  # share of the rate at the first step, which would be wasted with 0


class Optimization:
    """Any timm optimiser, with linear warm-up followed by cosine decay to a share of the peak.

    Biases, norms and other vectors get no weight decay. The schedule is in steps and ends at the trainer's `max_steps`,
    or `max_epochs` times the batches of an epoch.

    Args:
        optimizer: timm's name of the optimiser (`timm.optim.list_optimizers()`).
        lr: peak learning rate.
        weight_decay: weight decay, decoupled if the optimiser supports it.
        warmup: share of training in which the rate rises from 0.
        final: share of `lr` at the end; 1 keeps it constant after the warm-up.
        encoder: factor of the rate for a module's `encoder`, if it has one.
        policy: factor of the rate for what chooses locations in a glimpse model: its policy, context network and second
            LSTM. Their gradient is mostly noise, which Adam makes as large as any other.

    Raises:
        InputError: if timm has no such optimiser, or a number is out of its range.
    """

    def __init__(
        self,
        optimizer: str = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        warmup: float = 0.05,
        final: float = 0.01,
        encoder: float = 1.0,
        policy: float = 1.0,
    ) -> None:
        require_number("warmup of the optimization", warmup, least=0, most=1)
        factors = {"encoder": encoder, "policy": policy}
        # An lr of 0 is for tests, and for validating with the callbacks of a fit.
        for name, value in {"lr": lr, "weight_decay": weight_decay, "final": final, **factors}.items():
            require_number(f"{name} of the optimization", value, least=0)
        try:
            create_optimizer_v2([nn.Parameter(torch.zeros(2, 2))], optimizer, lr, weight_decay)
        except Exception as error:  # timm's optimisers each check their own options
            raise InputError(f"optimizer is '{optimizer}', which timm cannot create: {error}") from error
        self.optimizer, self.lr, self.weight_decay = optimizer, lr, weight_decay
        self.warmup, self.final = warmup, final
        places = ("model.policy.", "model.locator.", "model.context.")
        self.factors = {"encoder.": encoder, **dict.fromkeys(places, policy)}

    def configure(self, module: LightningModule) -> dict[str, Any]:
        """What `configure_optimizers` returns, for the trained parameters of a module that has a trainer.

        Raises:
            InputError: if training has no end, so that its rate has no schedule.
        """
        trainer = module.trainer
        if trainer.max_steps < 0 and trainer.max_epochs < 0:
            raise InputError(
                "training has no end, but its learning rate depends on it; give --trainer.max_epochs or "
                "--trainer.max_steps"
            )
        groups: dict[tuple[bool, str], list] = {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                decays = parameter.ndim > 1 and not name.endswith((".pos_embed", ".cls_token"))
                part = next((part for part in self.factors if name.startswith(part)), "")
                groups.setdefault((decays, part), []).append(parameter)
        optimizer = create_optimizer_v2(
            [
                {
                    "params": parameters,
                    "weight_decay": self.weight_decay if decays else 0.0,
                    "lr": self.lr * self.factors.get(part, 1.0),
                }
                for (decays, part), parameters in groups.items()
            ],
            opt=self.optimizer,
            lr=self.lr,
        )
        if isinstance(optimizer, Adam | AdamW):
            _fuse(optimizer)

        def factor(step: int) -> float:
            if step == 0:  # called before the data exists, so the total is unknown
                return _FOOT if self.warmup else 1.0
            return self.factor(step, total_steps(trainer))

        scheduler = LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def factor(self, step: int, total: int) -> float:
        """The share of `lr` at a step of `total`."""
        progress = step / total
        if progress < self.warmup:
            return max(_FOOT, progress / self.warmup)
        along = min(1.0, (progress - self.warmup) / max(1e-12, 1 - self.warmup))
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * along)) / 2


def total_steps(trainer: Trainer) -> int:
    """The number of optimiser steps of a training, once its data exists: until the first limit that it reaches."""
    limits = [trainer.max_steps] if trainer.max_steps >= 0 else []
    epochs, batches = trainer.max_epochs, trainer.num_training_batches
    if epochs is not None and epochs >= 0 and math.isfinite(batches):
        limits.append(math.ceil(batches / trainer.accumulate_grad_batches) * epochs)
    return min(limits)


_timms_orthogonal = inspect.unwrap(muon.zeropower_via_newtonschulz)


@functools.wraps(_timms_orthogonal)
def _orthogonal(update: Tensor, *args: Any, **options: Any) -> Tensor:
    """Muon's update, which timm computes in bfloat16 on every device; here in float32 if that is slow."""
    if not bfloat16_support(update.device).there:
        options["dtype"] = torch.float32
    return _timms_orthogonal(update, *args, **options)


_timms_update = getattr(muon, "_single_tensor_muon", None)


def stacked_update(
    params: list[Tensor], grads: list[Tensor], momentum_bufs: list[Tensor], conv_mode: str = "flatten", **options: Any
) -> None:
    """The update of timm's Muon, with matrices of the same shape in one batch of products.

    timm takes some 25 operations for each matrix, more than a GPU of today is given in the time that they take it.
    Its own mode for convolutions handles a batch, whose axis is the last.
    """
    if conv_mode != "flatten":
        _timms_update(params, grads, momentum_bufs, conv_mode=conv_mode, **options)
        return
    shapes: dict[tuple[torch.Size, torch.dtype], list[int]] = {}
    for index, parameter in enumerate(params):
        shapes.setdefault((parameter.flatten(1).shape, parameter.dtype), []).append(index)
    for rows in shapes.values():
        own = [[tensors[i].flatten(1) for i in rows] for tensors in (params, grads, momentum_bufs)]
        stacks = [torch.stack(part, dim=-1) for part in own]
        _timms_update(*([stack] for stack in stacks), conv_mode="batched", **{**options, "normalize_spatial": False})
        for tensors, stack in ((params, stacks[0]), (momentum_bufs, stacks[2])):
            new = [part.view(tensors[i].shape) for i, part in zip(rows, stack.unbind(-1), strict=True)]
            torch._foreach_copy_([tensors[i] for i in rows], new)


@functools.wraps(_timms_update)
def _update(params: list[Tensor], *args: Any, **options: Any) -> None:
    """Stacked on an accelerator; on a CPU one by one, as runs before were."""
    update = _timms_update if params[0].device.type == "cpu" else stacked_update
    update(params, *args, **options)


if _timms_update is not None:  # other versions of timm update one by one
    muon._single_tensor_muon = _update

# Without bfloat16 instructions a CPU takes three times as long as in float32; timm has no option for this.
muon.zeropower_via_newtonschulz = _orthogonal


def _fuse(optimizer: Adam | AdamW) -> None:
    """Use the fused implementation on a CPU, which takes a third of the time; on other devices PyTorch chooses.

    It is not set by the constructor's option, since Lightning then refuses to clip gradients in mixed precision,
    because of loss scaling, which is not used on a CPU.
    """
    for group in optimizer.param_groups:
        if all(parameter.device.type == "cpu" for parameter in group["params"]):
            group["fused"] = True
