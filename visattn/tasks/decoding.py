"""How captions are decoded, as the command line asks for it."""

import argparse

from visattn.decoding import Search
from visattn.errors import InputError, require_number
from visattn.export.blueprint import Blueprint, read


def search_of(options: argparse.Namespace, captions: int = 1) -> Blueprint | None:
    """The search that the options of `add_decoding_options` ask for; None if they ask for none.

    Args:
        options: the command line's.
        captions: how many captions of an image are wanted.

    Raises:
        InputError: if an option belongs to another search, or is out of its range.
    """
    kind = options.decode or (None if options.beam is None else "beam")
    owners = dict.fromkeys(("beam", "length_penalty", "caution"), "beam")
    owners |= dict.fromkeys(("temperature", "top_k", "top_p"), "sample")
    given = {name: value for name, value in vars(options).items() if name in owners and value is not None}
    for name in given:
        if owners[name] != kind:
            raise InputError(f"--{name.replace('_', '-')} needs --decode {owners[name]}")
    for name, least in (("max_length", 1), ("no_repeat", 0)):
        if (value := getattr(options, name)) is not None:
            require_number(f"--{name.replace('_', '-')}", value, least=least)
    if kind == "beam":
        size = given.pop("beam", max(5, captions))
        if captions > size > 0:
            raise InputError(
                f"--n-best {captions} needs a beam of at least that size, not {size}; set --beam {captions}"
            )
        return _blueprint("BeamSearch", size=size, best=captions, **given)
    if kind == "sample":
        return _blueprint("Sampling", count=captions, **given)
    if captions > 1:
        raise InputError("--n-best needs --decode beam or --decode sample")
    return _blueprint("Greedy") if kind == "greedy" else None


def choose_search(options: argparse.Namespace) -> Search | None:
    """The search that the options of `visattn caption` ask for; None if they ask for none.

    Raises:
        InputError: as `search_of`.
    """
    chosen = search_of(options, options.n_best)
    return None if chosen is None else read("search", chosen)()


def _blueprint(name: str, **arguments: float) -> Blueprint:
    return {"class_path": f"visattn.decoding.{name}", "init_args": arguments}
