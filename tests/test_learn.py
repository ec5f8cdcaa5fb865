"""docs/learn/: every chapter runs as it stands, says what it prints, and checks its reader's answer."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from visattn.attention import SparsemaxAttention

CHAPTERS = sorted((Path(__file__).parent.parent / "docs" / "learn").glob("*.py"))

# For each chapter an answer that is nearly right, and must be refused.
WRONG = {
    "01_one_vector_or_many": lambda a, mask: np.concatenate(
        [a[:, -1, : a.shape[2] // 2], a[:, 0, a.shape[2] // 2 :]], 1
    ),
    "02_queries_keys_values": lambda q, k, v: ((w := np.tril(np.exp(q @ k.T))) @ v, w),  # rows do not sum to 1
    "03_scores": lambda d, s_q, s_k: s_q * s_k * d,
    "04_global_and_local": lambda mechanism, S, T, D: T * (S if mechanism == "global" else 2 * D),
    "05_look_at_a_picture": lambda weights, mask: weights.sum() * mask.mean(),
    "06_hard_attention": lambda costs: costs - costs.mean(axis=1, keepdims=True),
    "07_self_attention_and_heads": lambda a: np.exp(-a * np.log(np.maximum(a, 1e-9))).mean(axis=(1, 2)),
    "08_what_maps_mean": lambda layers: np.linalg.multi_dot([(w.mean(axis=0) + np.eye(len(w[0]))) / 2 for w in layers]),
    "09_training_that_fails": lambda parts, limit: [part * min(1, limit / np.linalg.norm(part)) for part in parts],
    "10_your_own_mechanism": SparsemaxAttention,
}


class Run(NamedTuple):
    """A chapter that has run."""

    name: str
    prose: str
    names: dict
    said: str
    figures: int


def prose_of(source: str) -> str:
    """The markdown cells, without the comment signs."""
    cells = re.split(r"^# %%", source, flags=re.M)
    lines = [line for cell in cells if cell.startswith(" [markdown]") for line in cell.splitlines()[1:]]
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)


@pytest.fixture(scope="module", params=CHAPTERS, ids=lambda path: path.stem)
def chapter(request, tmp_path_factory):
    """Run a chapter once: in an empty folder, nothing drawn on a screen, every warning an error."""
    source = request.param.read_text(encoding="utf-8")
    names: dict = {"__name__": "__main__"}
    shown = []

    def show():
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
            shown.append(number)
        plt.close("all")

    with (
        pytest.MonkeyPatch.context() as patch,
        matplotlib.rc_context(),
        torch.random.fork_rng(devices=[]),
        redirect_stdout(io.StringIO()) as said,
    ):
        plt.switch_backend("agg")
        patch.setattr(plt, "show", show)
        patch.chdir(tmp_path_factory.mktemp("chapter"))
        exec(compile(source, str(request.param), "exec"), names)
    assert plt.get_fignums() == []
    return Run(request.param.stem, prose_of(source), names, said.getvalue(), len(shown))


def test_it_has_the_parts_of_a_chapter(chapter):
    number = int(chapter.name[:2])
    assert chapter.prose.startswith(f"# {number}. ")
    assert "**Objectives.**" in chapter.prose
    assert re.findall(r"^## (Exercise|Further reading)$", chapter.prose, flags=re.M) == ["Exercise", "Further reading"]
    reading = chapter.prose.split("## Further reading")[1]
    assert len(re.findall(r"\b(19|20)\d\d\b", reading)) >= 2
    assert chapter.figures


def test_numbers_of_the_prose_are_printed(chapter):
    quoted = re.findall(r"`([-−]?\d+\.\d+)( %)?`", chapter.prose)
    printed = re.findall(r"[-−]?\d+\.\d+", chapter.said)
    assert quoted
    assert [number for number, _ in quoted if number not in printed] == []


def test_the_check_accepts_the_solution_and_nothing_else(chapter):
    check, unanswered = chapter.names["check"], chapter.names["answer"]
    (hidden,) = re.findall(r"<details><summary>Solution</summary>\n(.*?)</details>", chapter.prose, flags=re.S)
    (solution,) = re.findall(r"```python\n(.*?)```", hidden, flags=re.S)
    names = dict(chapter.names)
    exec(solution, names)
    assert check(names["answer"]).startswith("Right")
    assert check(unanswered).startswith("Not yet")
    assert check(WRONG[chapter.name]).startswith("Not yet")
    assert "Not yet" in chapter.said
    assert "Right" not in chapter.said
