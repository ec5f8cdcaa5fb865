"""Models on the Hugging Face hub, or a server like it, given as `hf:ORG/NAME` or `hf:ORG/NAME@REVISION`.

Only `model.json` and `model.safetensors` are downloaded, whatever else a repository holds, so nothing of it is imported
or unpickled. The package huggingface_hub does it, with its conventions: the cache is in HF_HOME, the server is
HF_ENDPOINT, HF_TOKEN reads private models, and HF_HUB_OFFLINE uses the cache alone, as happens without a network.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from visattn.errors import InputError, install
from visattn.export.description import DESCRIPTION, WEIGHTS, read_description, read_file

PREFIX = "hf:"
LIBRARY = {"library_name": "visattn", "library_version": version("visattn")}  # sent as part of the user agent

_NAME = r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?"
_REVISION = r"[\w.](?:[\w./+-]*[\w+-])?"


class Address(NamedTuple):
    """A model on the hub.

    Attributes:
        repository: ORG/NAME.
        revision: a branch, tag or commit; None is the branch main.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        """As the user writes it."""
        return f"{PREFIX}{self.repository}" + (f"@{self.revision}" if self.revision else "")


def is_hub(path: Path | str) -> bool:
    """Whether a path is an address of the hub; an existing file of that name takes precedence."""
    return str(path).startswith(PREFIX) and not Path(path).exists()


def address_of(text: Path | str) -> Address:
    """The address in `hf:ORG/NAME[@REVISION]`; the prefix may be missing.

    Raises:
        InputError: if it is not an address.
    """
    plain = text.as_posix() if isinstance(text, Path) else text
    found = re.fullmatch(f"(?:{PREFIX})?({_NAME}/{_NAME})(?:@({_REVISION}))?", plain, re.ASCII)
    if found is None or re.search(r"--|\.\.|\.git$", found[1]) or ".." in (found[2] or ""):
        raise InputError(
            f"{plain[:120]!r} is not a model on the hub; write {PREFIX}ORG/NAME or {PREFIX}ORG/NAME@REVISION"
        )
    return Address(found[1], found[2])


def fetch(address: Address) -> Path:
    """The folder of a model in the cache, downloaded if it is not there; the weights' SHA-256 is checked.

    Both files are of the same commit. Without a network, or if the hub fails, the cached ones are used.

    Raises:
        InputError: if there is no such repository or revision, it holds no exported model, the download fails, or the
            files are not the exported ones; a file that is not is removed from the cache.
    """
    hub = library()
    with explained(address):
        _require_server(hub, address)
        description = hub.hf_hub_download(address.repository, DESCRIPTION, revision=address.revision, **LIBRARY)
        folder = Path(description).parent  # named after the commit
    with named(folder, address):
        described = read_description(folder)
    with explained(address):
        weights = Path(hub.hf_hub_download(address.repository, WEIGHTS, revision=folder.name, **LIBRARY))
    try:
        read_file(folder, WEIGHTS, described)
    except InputError as error:
        blob = weights.resolve()
        weights.unlink(missing_ok=True)
        blob.unlink(missing_ok=True)
        raise InputError(
            f"{WEIGHTS} of {address} is not the exported file: its SHA-256 is not the one in {DESCRIPTION}; it was "
            "removed from the cache, so try again, or ask its authors to upload the folder again"
        ) from error
    return folder


def _require_server(hub: ModuleType, address: Address) -> None:
    """Raise an `InputError` at once if a model is not cached and no server answers.

    The library would ask it six times, in half a minute, and print a line or two for each.
    """
    known = hub.try_to_load_from_cache(address.repository, DESCRIPTION, revision=address.revision)
    if hub.constants.HF_HUB_OFFLINE or isinstance(known, str):
        return
    url = hub.hf_hub_url(address.repository, DESCRIPTION, revision=address.revision)
    try:
        hub.get_hf_file_metadata(url, **LIBRARY)
    except Exception as error:  # an answer, though it is a refusal, is explained by the download
        if getattr(error, "response", None) is None:
            raise InputError(_uncached(address)) from error


def library() -> ModuleType:
    """The package huggingface_hub.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(f"models on the hub need huggingface_hub: {install('hub')}") from error
    return huggingface_hub


@contextmanager
def named(folder: Path, address: Address) -> Iterator[None]:
    """Name the address in errors about its folder in the cache.

    Raises:
        InputError: in place of one that names the folder.
    """
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(str(folder), str(address))) from error


@contextmanager
def explained(address: Address) -> Iterator[None]:
    """Turn errors of the hub's library into sentences about an address.

    Raises:
        InputError: in place of any error.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the library's own, those of its HTTP library, which versions change, and the disk's
        raise InputError(_reason(error, address)) from error


def _reason(error: Exception, address: Address) -> str:
    from huggingface_hub import constants, errors

    repository, server = address.repository, constants.ENDPOINT
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{address} is gated: ask for access at {server}/{repository}, and log in with 'hf auth login' or HF_TOKEN"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no model {repository} at {server}, or it is private: log in with 'hf auth login' or HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{repository} has no revision {address.revision!r}; give a branch, tag or commit of {server}/{repository}"
        )
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return _uncached(address)
    if isinstance(error, errors.EntryNotFoundError):
        return (
            f"{address} has no {DESCRIPTION} with {WEIGHTS}, so it is no model that 'visattn push' uploaded; code and "
            "pickled weights are never loaded (models of transformers are for --model)"
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"{server} does not allow this for {repository} (status {status}); check 'hf auth login' or HF_TOKEN"
    causes = filter(None, (error, error.__cause__))  # of an upload, the first says only which file it was
    said = " ".join(" ".join(dict.fromkeys(map(str, causes))).split())[:200] or type(error).__name__
    return f"{address}: the transfer failed and nothing of it is used; try again ({server}: {said})"


def _uncached(address: Address) -> str:
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    why = "HF_HUB_OFFLINE forbids to download it" if offline else f"{constants.ENDPOINT} cannot be reached or fails"
    return f"{address} is not in the cache {constants.HF_HUB_CACHE}, or not completely, and {why}"
