"""Captioners as one: each word is predicted by all their decoders."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from visattn.errors import InputError
from visattn.export.blueprint import describe, read
from visattn.export.folder import ExportedCaptioner
from visattn.models import Ensemble


def ensemble(captioners: Mapping[Path, ExportedCaptioner]) -> ExportedCaptioner:
    """One captioner with the decoders of all, see `visattn.models.Ensemble`; everything else is the first one's.

    Args:
        captioners: by the name of each; with the same encoder, vocabulary and input.

    Raises:
        InputError: if they differ in one of these.
    """
    (name, first), *others = captioners.items()
    for other, captioner in others:
        for what, ours, theirs in (
            ("words", first.vocabulary.words, captioner.vocabulary.words),
            ("tokens", first.vocabulary.tokens.spec, captioner.vocabulary.tokens.spec),
            ("image size", first.image_size, captioner.image_size),
            ("fit", first.fit, captioner.fit),
        ):
            if ours != theirs:
                raise InputError(f"{name} and {other} cannot be an ensemble, since they differ in their {what}")
        if not torch.equal(_annotations(first), _annotations(captioner)):
            raise InputError(
                f"{name} and {other} cannot be an ensemble, since their encoders see an image differently; train them "
                "with the same frozen encoder"
            )
    blueprint = {
        "class_path": f"{Ensemble.__module__}.{Ensemble.__name__}",
        "init_args": {"members": [captioner.parts["decoder"] for captioner in captioners.values()]},
    }
    parts = first.parts | {"decoder": describe("decoder", blueprint)}
    decoder = read("decoder", parts["decoder"])(len(first.vocabulary), first.encoder.size)
    for member, captioner in zip(decoder.members, captioners.values(), strict=True):
        member.load_state_dict(captioner.decoder.state_dict())
    return first._replace(decoder=decoder.eval(), parts=parts)


@torch.inference_mode()
def _annotations(captioner: ExportedCaptioner) -> Tensor:
    """(1, L, D) the annotation vectors of a fixed image of noise."""
    noise = torch.Generator().manual_seed(0)
    image = torch.randint(256, (1, 3, *captioner.image_size), dtype=torch.uint8, generator=noise)
    return captioner.encoder(image).values
