"""Upload an exported model to the hub: check the folder, write its card, commit its files at once."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from visattn.errors import InputError
from visattn.export.card import model_card
from visattn.export.description import DESCRIPTION, WEIGHTS, read_description, read_file
from visattn.export.folder import load_stored
from visattn.export.hub import LIBRARY, Address, explained, library
from visattn.images.reading import SUFFIXES, load_image

CARD, SCORES, EXAMPLE = "README.md", "scores.json", "example.jpg"
_SIDE, _QUALITY = 1024, 90  # of the example image: longer side in pixels, and JPEG quality
_PICKLED = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle", ".joblib", ".npy", ".h5", ".keras", ".dill"})
_CODE = frozenset({".py", ".pyc", ".ipynb", ".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".js"})


class Upload(NamedTuple):
    """What is uploaded of a folder.

    Attributes:
        files: contents by their names in the repository, the card among them.
        left_out: names of files in the folder that are not uploaded.
    """

    files: dict[str, bytes]
    left_out: list[str]


def prepare(folder: Path, address: Address, licence: str = "unknown", picture: Path | None = None) -> Upload:
    """Read an exported folder, and check that what is uploaded is a whole model that can be loaded.

    The card is the folder's README.md, if it has one, with a header, or it is written from the description, from
    scores.json as `visattn evaluate --output` writes it, and from an example image, which is stored without metadata.

    Args:
        folder: written by `visattn export`.
        address: the repository, and the branch as its revision.
        licence: of the weights, as the hub names licences.
        picture: the example image; None takes the first image in the folder, if there is one.

    Raises:
        InputError: if the folder is not an exported model, or damaged, or holds pickles or code.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; 'visattn export' writes one from a checkpoint")
    inside = sorted(path for path in folder.rglob("*") if not _hidden(path.relative_to(folder)))
    for path in inside:
        _require_data(path)
    described = read_description(folder)
    content = {WEIGHTS: read_file(folder, WEIGHTS, described)}  # its absence is reported before others'
    names = [name for name in described["files"] if Path(name).suffix in (".safetensors", ".onnx")]
    content |= {Path(name).name: read_file(folder, name, described) for name in names if Path(name).name == name}
    model = load_stored(folder)
    content[DESCRIPTION] = (folder / DESCRIPTION).read_bytes()
    scores = _scores(folder / SCORES)
    if scores is not None:
        content[SCORES] = (folder / SCORES).read_bytes()
    images = [path for path in inside if path.parent == folder and path.suffix.lower() in SUFFIXES]
    example = picture or next(iter(images), None)
    if example is not None:
        content[EXAMPLE] = _jpeg(example)
    own = folder / CARD
    content[CARD] = model_card(
        described,
        address,
        sum(parameter.numel() for parameter in model.whole.parameters()),
        licence,
        None if example is None else _url(address, EXAMPLE),
        scores,
        own.read_text(encoding="utf-8", errors="replace") if own.is_file() else None,
    ).encode(errors="replace")  # names in JSON may have lone surrogates
    used = {*content, *([example.name] if example in images and example is not None else [])}
    left_out = [str(path.relative_to(folder)) for path in inside if path.is_file() and path.name not in used]
    return Upload(dict(sorted(content.items())), left_out)


def upload(files: dict[str, bytes], address: Address, message: str, private: bool = False) -> str:
    """Commit files to a repository, which is created if there is none; readers see all of them, or none.

    Args:
        files: contents by name.
        address: the repository, and the branch as its revision, created from main if there is none.
        message: of the commit.
        private: create the repository for its owner alone.

    Returns:
        The address of the commit.

    Raises:
        InputError: if the hub refuses or cannot be reached, or `private` is asked of a public repository.
    """
    hub = library()
    api = hub.HfApi(**LIBRARY)
    with explained(address):
        api.create_repo(address.repository, private=private or None, exist_ok=True)
        if private and not api.model_info(address.repository).private:
            raise InputError(
                f"{address.repository} exists and is public; --private is for new repositories, so change it on the hub"
            )
        if address.revision:
            api.create_branch(address.repository, branch=address.revision, exist_ok=True)
        operations = [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in files.items()]
        done = api.create_commit(address.repository, operations, commit_message=message, revision=address.revision)
    return str(done.commit_url)


def _require_data(path: Path) -> None:
    """Raise an `InputError` if a file is code or a pickle, by its name or by how it begins."""
    if not path.is_file():
        return
    if path.suffix.lower() in _CODE:
        raise InputError(f"{path} is code, which a model on the hub never has; move it out of the folder")
    with path.open("rb") as file:
        start = file.read(2)
    pickled = path.suffix.lower() in _PICKLED or (start[:1] == b"\x80" and start[1:] in map(bytes, zip(range(2, 6))))
    if start == b"PK" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            pickled |= any(name.endswith((".pkl", ".pickle")) for name in archive.namelist())
    if pickled:
        raise InputError(
            f"{path} may be a pickle, which can run code when it is loaded; a model on the hub has safetensors and "
            "JSON alone, so move it out of the folder"
        )


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _scores(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not valid JSON; write it with 'visattn evaluate --output', or remove it"
        ) from error
    if not isinstance(scores, dict) or not isinstance(scores.get("scores", {}), dict):
        raise InputError(f"{path} must be an object of names and numbers, as 'visattn evaluate --output' writes it")
    return scores


def _jpeg(path: Path) -> bytes:
    image, stream = load_image(path), io.BytesIO()
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    image.save(stream, format="jpeg", quality=_QUALITY)
    return stream.getvalue()


def _url(address: Address, name: str) -> str:
    return str(library().hf_hub_url(address.repository, name, revision=address.revision))
