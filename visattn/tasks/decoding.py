"""How captions are decoded, as the command line asks for it."""

import argparse
from pathlib import Path

from visattn.decoding import Search
from visattn.errors import InputError
from visattn.export.blueprint import Blueprint, describe, read
from visattn.export.shipped import description, is_exported

_KINDS = {
    "visattn.decoding.Greedy": "greedy",
    "visattn.decoding.Sampling": "sample",
    "visattn.decoding.BeamSearch": "beam",
}
_OWNERS = dict.fromkeys(("beam", "length_penalty", "caution"), "beam") | dict.fromkeys(
    ("temperature", "top_k", "top_p"), "sample"
)


def asks_for_search(options: argparse.Namespace) -> bool:
    """Whether the command line has an option of the search, so that it is not simply the checkpoint's."""
    return any(getattr(options, name, None) is not None for name in ("decode", "n_best", *_OWNERS))


def search_of(options: argparse.Namespace, own: Blueprint | None, captions: int | None = None) -> Blueprint:
    """The search that the options of `add_decoding_options` ask for: those left out are the checkpoint's own.

    If the checkpoint decodes in another way than the one asked for, they have their defaults.

    Args:
        options: the command line's.
        own: how the checkpoint decodes; None is greedily.
        captions: how many captions of an image are wanted; None is as many as the checkpoint returns.

    Raises:
        InputError: if an option belongs to another search, or the beam is smaller than the number of captions. Ranges
            are checked when the search is made.
    """
    own = own or _blueprint("Greedy")
    usual = _KINDS.get(own["class_path"])
    kind = options.decode or (usual if options.beam is None else "beam")
    given = {name: value for name in _OWNERS if (value := getattr(options, name)) is not None}
    for name in given:
        if _OWNERS[name] != kind:
            raise InputError(f"--{name.replace('_', '-')} needs --decode {_OWNERS[name]}")
    arguments = own.get("init_args", {}) if kind == usual else {}
    if kind == "beam":
        arguments = {"size": 5, "best": 1} | arguments
        best = arguments["best"] if captions is None else captions
        size = given.pop("beam", max(arguments["size"], best))
        if best > size > 0:
            raise InputError(f"--n-best {best} needs a beam of at least that size, not {size}; set --beam {best}")
        return _blueprint("BeamSearch", **arguments | {"size": size, "best": best} | given)
    if kind == "sample":
        return _blueprint("Sampling", **arguments | ({} if captions is None else {"count": captions}) | given)
    if (captions or 1) > 1:
        raise InputError("--n-best needs --decode beam or --decode sample")
    return own if kind == usual else _blueprint("Greedy")


def choose_search(options: argparse.Namespace) -> Search | None:
    """The search that the options of `visattn caption` ask for; None if they ask for none.

    Raises:
        InputError: as `search_of`; if the checkpoint cannot be read; if an option is out of its range.
    """
    if not asks_for_search(options):
        return None
    return read("search", search_of(options, _own_search(options.checkpoint), options.n_best))()


def _own_search(checkpoint: Path) -> Blueprint | None:
    """How the captioner in a checkpoint or an exported folder decodes; None is greedily."""
    if is_exported(checkpoint):
        return description(checkpoint).get("search")
    from visattn.training.checkpoints import read as content_of  # Lightning takes seconds, and only checkpoints need it

    search = content_of(checkpoint)["hyper_parameters"].get("search")
    return describe("search", search) if search else None


def _blueprint(name: str, **arguments: float) -> Blueprint:
    return {"class_path": f"visattn.decoding.{name}", "init_args": arguments}
