"""Initial weights for a training run from the checkpoint of another."""

from pathlib import Path

from lightning import LightningModule

from visattn.checkpoints.agreement import require_agreement
from visattn.checkpoints.reading import one_of, trained

_OBJECTIVE = "loss."  # the objective's own memory, such as the baseline of REINFORCE


def start_from(path: Path | str, model: LightningModule) -> None:
    """Give a model the weights that another training of such a model ended with; optimiser and schedule start again.

    The objective may be another, and so may the attention where its parameters are the same, as those of soft and hard
    attention are.

    Args:
        path: a checkpoint of `visattn fit`.
        model: of the same kind, vocabulary and sizes.

    Raises:
        InputError: as `load_model`, and if the vocabulary or a size is another; the sentence has both.
    """
    checkpoint, found, _ = trained(path)
    one_of(path, found, type(model))
    require_agreement(path, checkpoint, model, own=_OBJECTIVE)
    weights = {name: value for name, value in checkpoint["state_dict"].items() if not name.startswith(_OBJECTIVE)}
    model.load_state_dict(weights, strict=False)
    model.started = True
