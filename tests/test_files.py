"""Atomic writing of files, and safe file names."""

import json
import re
from pathlib import Path

import pytest

from visattn.files import safe_name, safe_names, write_json

HOSTILE = {
    "../../x": "___.._x",
    "/etc/passwd": "_etc_passwd",
    "..": "__",
    "": "_",
    "a\0b": "a_b",
    "C:\\x": "C__x",
    "line\nend": "line_end",
    "CON": "_CON",
    "nul.tar": "_nul.tar",
    "com1": "_com1",
    "trailing. .": "trailing",
    "\ud800half": "_half",
    "evil\u202egnp": "evil_gnp",
    "<b>|?*": "_b____",
}
ORDINARY = ["1000268201_693b08cb0e", "000000000009", "my photo (2)", "собака", "写真", "a.b-c_d", "console", "café"]


@pytest.mark.parametrize(("text", "name"), HOSTILE.items())
def test_a_hostile_name_stays_in_its_folder(tmp_path: Path, text: str, name: str) -> None:
    made = safe_name(text)
    assert made == name
    (tmp_path / f"{made}.png").touch()
    assert [path.name for path in tmp_path.iterdir()] == [f"{made}.png"]


def test_an_ordinary_name_stays_as_it_is() -> None:
    assert [safe_name(text) for text in ORDINARY] == ORDINARY
    assert safe_name("cafe\u0301") == "café"


def test_json_has_null_for_numbers_that_it_does_not_have(tmp_path: Path) -> None:
    numbers = {"a": float("nan"), "b": [1.5, (float("inf"), "x")], "c": None, "d": True}
    write_json(tmp_path / "a.json", numbers)
    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert found == {"a": None, "b": [1.5, [None, "x"]], "c": None, "d": True}


def test_a_long_name_is_cut_and_stays_itself(tmp_path: Path) -> None:
    long = ["é" * 5000 + "a", "é" * 5000 + "b"]
    names = [safe_name(text) for text in long]
    assert all(190 < len(name.encode()) <= 200 for name in names)
    assert names[0] != names[1]
    assert all(re.fullmatch(r"é+-[0-9a-f]{12}", name) for name in names)
    (tmp_path / f"{names[0]}.png").touch()


def test_names_are_unique_also_where_case_does_not_count() -> None:
    assert safe_names(["a", "a", "A", "a-2", "b", "../a"]) == ["a", "a-2", "A-3", "a-2-2", "b", "___a"]
