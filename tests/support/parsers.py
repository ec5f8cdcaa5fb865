"""The commands' parsers, without running the commands."""

import argparse
import importlib

import pytest


class _CaughtError(Exception):
    """Carries a parser out of a program."""


def parser_of(name: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser of the command in `visattn/cli/NAME.py`."""

    def catch(self: argparse.ArgumentParser, *_: object) -> None:
        raise _CaughtError(self)

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", catch)
        try:
            importlib.import_module(f"visattn.cli.{name}").main([])
        except _CaughtError as caught:
            return caught.args[0]
    raise AssertionError(f"{name} has no parser")
