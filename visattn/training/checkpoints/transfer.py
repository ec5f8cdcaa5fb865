"""Initial weights for a training run from the checkpoint of another."""

from pathlib import Path

from lightning import LightningModule

from visattn.training.checkpoints.agreement import require_agreement
from visattn.training.checkpoints.reading import one_of, trained

_OBJECTIVE = "loss."  # the objective's own memory, such as the baseline of REINFORCE


def start_from(path: Path | str, model: LightningModule) -> None:
    """Load the weights of another run into a model; optimiser and schedule start from the beginning.

    The objective may differ, and so may the attention if it has the same parameters, as soft and hard attention do.

    Args:
        path: a checkpoint of `visattn fit`.
        model: a model of the same kind, vocabulary and sizes.

    Raises:
        InputError: as `load_model`, and if the vocabulary or a size differs; the message gives both.
    """
    checkpoint, found, _ = trained(path)
    one_of(path, found, type(model))
    require_agreement(path, checkpoint, model, own=_OBJECTIVE)
    weights = {name: value for name, value in checkpoint["state_dict"].items() if not name.startswith(_OBJECTIVE)}
    model.load_state_dict(weights, strict=False)
    model.started = True
