"""The features of images' patches: computed, drawn and written; see `visattn features --help`."""

import gc
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from visattn.data.inputs import Input, read_fitted
from visattn.devices import choose_device
from visattn.errors import InputError
from visattn.explain import Subject
from visattn.explain.features import (
    ARTEFACT,
    Components,
    artefacts,
    colour_ends,
    colours,
    features,
    norms_by_layer,
    principal_components,
    similarity,
)
from visattn.explain.place import patch_at, require_one_grid
from visattn.explain.vit import ViT
from visattn.files import guarded, protect, safe_names, write_json, write_npz
from visattn.images import Interpolation
from visattn.images.reading import list_images
from visattn.overlay import FeatureViews, feature_sheet, save_figure
from visattn.precision import autocast, of_option
from visattn.results.earlier import check_overwriting
from visattn.tasks.overlay import require_pixel

Over = Literal["run", "image"]

MOST = 4 << 30  # bytes of features that are held at once
LISTING = "features.json"


def check_overwriting_of(output: Path, paths: Sequence[Path]) -> None:
    """Check, before anything is computed, that no file of the user would be overwritten; raises an `InputError`."""
    names = safe_names(path.stem for path in paths)
    check_overwriting(output / LISTING, [f"{name}.{suffix}" for name in names for suffix in ("png", "npz")], paths)


@guarded()
def feature_views(
    subject: Subject,
    images: Iterable[Path],
    output: Path,
    *,
    layer: int = -1,
    at: tuple[int, int] | None = None,
    over: Over = "run",
    times: float = ARTEFACT,
    interpolation: Interpolation = "bilinear",
    batch_size: int = 8,
    device: str = "auto",
    precision: str = "auto",
) -> list[dict[str, Any]]:
    """Write the views of each image's features.

    Args:
        subject: the model.
        images: files and folders.
        output: folder for what is written; created if missing.
        layer: from 0; -1 is the last.
        at: the pixel (x, y) of each original whose patch the others are compared with; None for no comparison.
        over: principal components of the patches of all images, whose features are then held in memory, or of each.
        times: patches with norms above so many times the median are artefacts.
        interpolation: between the centres of patches.
        batch_size: images at a time.
        device: where the model runs, as `choose_device` takes it.
        precision: in which, as `of_option` takes it.

    Returns:
        The entries of `features.json`: image, files, layer, verdict, artefacts (their number), patches, median,
        largest, explained.

    Raises:
        InputError: before anything is written, if the model has no such layer or no one grid, if an image has no such
            pixel, or the features of all images take more than 4 GB.
    """
    paths, vit = list_images(images), subject.vit
    protect(paths)
    check_overwriting_of(output, paths)
    require_one_grid(vit, "visattn features")
    layer = vit.layer(layer)
    if at is not None:
        require_pixel(subject, paths, at)
    subject = subject.to(choose_device(device))
    precision = of_option(precision, subject.device)
    together = over == "run" and len(paths) > 1
    looked = _looked(subject, paths, layer, at, batch_size, precision, MOST if together else None)
    shared: Components | None = None
    ends: np.ndarray | None = None
    if together:
        kept = [found for _, found in looked]
        patches = np.concatenate([found["patches"] for found in kept])
        shared = principal_components(patches)
        ends = colour_ends(shared.of(patches))
        looked = zip(read_fitted(paths, subject.see), kept, strict=True)  # originals are read again, not held
    entries = []
    for item, found in looked:
        output.mkdir(parents=True, exist_ok=True)
        components = principal_components(found["patches"]) if shared is None else shared
        entries.append(_written(item, found, vit, components, ends, layer, times, interpolation, output))
        gc.collect()  # figures refer to themselves: left alone, Python lets hundreds of them pile up
    write_json(output / LISTING, entries)
    return entries


def _looked(
    subject: Subject,
    paths: Sequence[Path],
    layer: int,
    at: tuple[int, int] | None,
    batch_size: int,
    precision: str,
    most: int | None,
) -> Iterator[tuple[Input, dict[str, Any]]]:
    """Each image and, of its run, `patches` (H W, D), `norms` (L, N), `grid`, and `asked`, the patch or None.

    All patches together may take `most` bytes.
    """
    inputs = read_fitted(paths, subject.see)
    with tqdm(total=len(paths), desc="Reading features", unit="image") as bar:
        while batch := list(itertools.islice(inputs, batch_size)):
            pixels = subject.normalise(torch.stack([item.tensor for item in batch]).to(subject.device))
            with autocast(precision, subject.device):
                found = features(subject.vit, pixels, layer)
            if most is not None and (size := len(paths) * found.patches[0].nbytes) > most:
                raise InputError(
                    f"the features of {len(paths)} images take {size / 1e9:.1f} GB; use fewer images, or --pca image"
                )
            patches, norms = found.patches.cpu().numpy(), found.norms.cpu().numpy()
            if not np.isfinite(norms).all():
                raise InputError(f"the features of {subject.vit.name} are not all finite; check its weights")
            for n, item in enumerate(batch):
                asked = None if at is None else patch_at(*at, item.geometry, found.grid, str(item.path))
                bar.update()
                yield item, {"patches": patches[n], "norms": norms[n], "grid": found.grid, "asked": asked}


def verdict_on(norms: np.ndarray, times: float = ARTEFACT) -> str:
    """A sentence on the artefacts among patches with these norms (n,)."""
    count, median = int(artefacts(norms, times).sum()), float(np.median(norms))
    largest = norms.max() / median if median > 0 else 1.0
    said = f"{count or 'none'} of {len(norms)} patches {'has a norm' if count == 1 else 'have norms'} above "
    return f"{said}{times:g} times the median of {median:.3g}; the largest is {largest:.1f} times the median"


def _written(
    item: Input,
    found: Mapping[str, Any],
    vit: ViT,
    components: Components,
    ends: np.ndarray | None,
    layer: int,
    times: float,
    interpolation: Interpolation,
    output: Path,
) -> dict[str, Any]:
    """Write an image's sheet and arrays; returns its entry."""
    patches, norms, grid, asked = (found[name] for name in ("patches", "norms", "grid", "asked"))
    coordinates = components.of(patches)
    shown = norms[layer, vit.prefix :]
    views = FeatureViews(
        colours=colours(coordinates, colour_ends(coordinates) if ends is None else ends).reshape(*grid, 3),
        explained=components.explained,
        norms=shown.reshape(grid),
        artefacts=artefacts(shown, times).reshape(grid),
        by_layer=norms_by_layer(norms, vit),
        layer=layer,
        similarity=None if asked is None else similarity(patches, asked).reshape(grid),
        asked=asked,
    )
    verdict = verdict_on(shown, times)
    title = f"{item.path.name} · layer {layer} (0 to {vit.depth - 1})"
    figure = feature_sheet(
        *(item.original, views, item.geometry),
        title=title,
        verdict=verdict,
        artefact=f"norm above {times:g} × the median",
        interpolation=interpolation,
    )
    files = [f"{item.name}.png", f"{item.name}.npz"]
    save_figure(figure, output / files[0])
    compared = {} if asked is None else {"similarity": views.similarity, "asked": np.array(asked)}
    write_npz(
        output / files[1],
        pca=coordinates.reshape(*grid, 3),
        colours=views.colours,
        components=components.vectors,
        mean=components.mean,
        explained=components.explained,
        norms=norms[:, vit.prefix :].reshape(len(norms), *grid),
        prefix_norms=norms[:, : vit.prefix],
        artefacts=views.artefacts,
        layer=np.array(layer),
        geometry=item.geometry.to_array(),
        **compared,
    )
    numbers = {"artefacts": int(views.artefacts.sum()), "patches": len(shown)}
    numbers |= {"median": float(np.median(shown)), "largest": float(shown.max())}
    explained = [float(share) for share in components.explained]
    said = {"layer": layer, "verdict": verdict, **numbers, "explained": explained}
    return {"image": str(item.path), "files": files, **said}
