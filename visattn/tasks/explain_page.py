"""Write a page in which a Vision Transformer runs."""

from collections.abc import Iterable
from pathlib import Path

import torch

from visattn.data.inputs import to_tensor
from visattn.errors import InputError
from visattn.explain_page.model import Runnable, runnable
from visattn.explain_page.page import explain_page
from visattn.explain_page.samples import of_photograph, samples
from visattn.export import ExportedCaptioner, ExportedClassifier, load_classifier
from visattn.files import protect, require_file, write_text
from visattn.images import fit_image
from visattn.images.reading import list_images, load_image
from visattn.tasks.export import parts_of

MOST_BYTES = 16_000_000  # of the page


def write_page(
    checkpoint: Path, output: Path, images: Iterable[Path] = (), title: str | None = None
) -> tuple[Runnable, float]:
    """Write the page.

    Args:
        checkpoint: of a classifier, an exported folder, or an included model.
        output: the HTML file to write.
        images: files and folders of pictures that the page offers first.
        title: of the page; None takes the checkpoint's name.

    Returns:
        The model, and by how much half precision changes a logit at most, on the page's pictures.

    Raises:
        InputError: if the page cannot run the model, an image cannot be read, or the page would be too large.
    """
    paths = list(images)
    paths = list_images(paths) if paths else []
    protect(paths)
    require_file(output)
    whole = _exported(checkpoint)
    model = runnable(whole, f"--checkpoint {checkpoint}")
    offered = [of_photograph(path.name, load_image(path)) for path in paths] + samples(whole.class_names)
    html = explain_page(model, offered, title or f"Inside {_name(checkpoint)}")
    if (size := len(html.encode())) > MOST_BYTES:
        raise InputError(f"the page would have {size / 1e6:.0f} MB, more than 16; give fewer --images")
    fitted = [fit_image(sample.picture, whole.image_size, whole.fit)[0] for sample in offered]
    pixels = torch.stack([to_tensor(picture) for picture in fitted])
    with torch.no_grad():
        change = (whole.model(whole.normalise(pixels)) - model.logits(pixels)).abs().max()
    if not change.isfinite():
        raise InputError(f"--checkpoint {checkpoint} gives logits that are not finite; its training failed")
    write_text(output, html)
    return model, float(change)


def _exported(checkpoint: Path) -> ExportedClassifier | ExportedCaptioner:
    library, _, name = str(checkpoint).partition(":")
    if library in ("timm", "torchvision", "open_clip"):
        raise InputError(
            f"the page runs visattn's own Vision Transformers, not those of {library}; for these use 'visattn app "
            f"--model {library}:{name}', or 'visattn overlay'"
        )
    if not checkpoint.is_dir():
        return parts_of(checkpoint)
    try:
        return load_classifier(checkpoint)
    except InputError as error:
        raise InputError(f"--checkpoint {checkpoint} cannot be used: {error}") from error


def _name(checkpoint: Path) -> str:
    """The name of a model's file or folder, or of the run's folder for one called best.ckpt."""
    return checkpoint.parent.name or checkpoint.stem if checkpoint.suffix == ".ckpt" else checkpoint.name
