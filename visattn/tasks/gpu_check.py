"""Run the parts of `visattn gpu-check`, each as a process with a limit of time."""

import datetime
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import visattn
from visattn.data import CIFAR10
from visattn.data.parts import in_parts
from visattn.devices import choose_device
from visattn.errors import InputError
from visattn.files import write_text

ROOT = Path(visattn.__file__).parent.parent
BENCHMARKS = ("vit", "captioner", "decoding", "maps", "reward")
PARTS = ("tests", *BENCHMARKS, "cifar_60s", "cifar_5min")
WHOLE = 540.0  # seconds, of which the following are parts
LIMITS = {"tests": 120.0, "benchmarks": 180.0, "cifar_60s": 105.0}
START = 45.0  # seconds to start, to compile and to test, which are not for epochs
TEST = 12.0  # seconds to test, so long before its limit a training is stopped
LEAST = 3.0  # seconds, below which nothing is started
EPOCHS = {"cifar_60s": 45, "cifar_5min": 190}
# Work for an image, over that of the 60-second preset: so the rate of one says how many epochs of the other fit.
WORK, RATE = 1.5, 30_000.0
TINY = ("size=12", "depth=1", "embed.widths=[3,5]")


def require_data(folder: Path) -> None:
    """Check that a folder looks like one of CIFAR-10, before minutes are spent on the other parts.

    Raises:
        InputError: if it has neither parts nor torchvision's folder.
    """
    if not in_parts(folder) and not (folder / CIFAR10.source.base_folder).is_dir():
        raise InputError(
            f"--data {folder} has neither part_0.npz nor {CIFAR10.source.base_folder}; give the folder of CIFAR-10, or "
            "choose other --parts than cifar_60s and cifar_5min"
        )


class Check:
    """The run of all parts.

    Args:
        output: folder of the results; it must not have any.
        data: folder of CIFAR-10.
        device: "cuda" or "cpu".
        quick: whether sizes are tiny.
        seconds: for everything.

    Raises:
        InputError: if there is no such device, or the folder has results.
    """

    def __init__(self, output: Path, data: Path, device: str, quick: bool, seconds: float) -> None:
        choose_device(device)
        output, data = output.resolve(), data.resolve()  # the parts run in another folder
        self.results = output / "results.jsonl"
        if self.results.exists():
            raise InputError(f"{self.results} exists already; choose another --output")
        (output / "logs").mkdir(parents=True, exist_ok=True)
        self.output, self.data, self.device, self.quick, self.seconds = output, data, device, quick, seconds
        self.lines: list[dict[str, Any]] = []
        self._benchmarks = LIMITS["benchmarks"] * seconds / WHOLE  # seconds left for them
        self._rate: float | None = None  # images a second of the 60-second preset

    def run(self, parts: Sequence[str]) -> bool:
        """Run these parts in their order; returns whether all of them went well."""
        self._ends = time.monotonic() + self.seconds
        name = torch.cuda.get_device_name() if self.device == "cuda" else "CPU"
        versions = {"python": sys.version.split()[0], "torch": torch.__version__, "cuda": torch.version.cuda}
        self._tell({"part": "machine", "device": name, "date": datetime.date.today().isoformat(), **versions})
        chosen = [part for part in PARTS if part in parts]
        for part in chosen:
            if part == "tests":
                self._tests()
            elif part in BENCHMARKS:
                later = [other for other in chosen[chosen.index(part) :] if other in BENCHMARKS]
                self._benchmark(part, self._benchmarks / len(later))
            else:
                self._training(part)
        write_text(self.output / "results.md", self.markdown())
        return all(line["status"] == "done" for line in self.lines[1:])

    def markdown(self) -> str:
        """All results as a table."""
        machine, *lines = self.lines
        heading = f"{machine['device']}, PyTorch {machine['torch']}, CUDA {machine['cuda']}, {machine['date']}"
        rows = [f"{heading}{'; tiny sizes, the numbers mean nothing' if self.quick else ''}", ""]
        rows += ["| part | | seconds | limit | result |", "|---|---|---:|---:|---|"]
        for line in lines:
            said = line.get("error") or "; ".join(line.get("summary", []))
            numbers = f"{line['seconds']:.0f} | {line['limit']:.0f}"
            rows.append(f"| {line['part']} | {line['status']} | {numbers} | {said.replace('|', '/')} |")
        return "\n".join([*rows, ""])

    def _tests(self) -> None:
        folder = ROOT / "tests" / "gpu"
        if not folder.is_dir():
            self._skip("tests", f"there is no {folder}; run it from a checkout")
            return
        words = ["-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", "--tb=short", "--durations=5", str(folder)]
        if self.quick:
            words += ["-k", "recorded_weights and MATH"]
        line, log = self._process("tests", words, LIMITS["tests"] * self.seconds / WHOLE)
        counts = {
            kind: int(count) for count, kind in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", log[-500:])
        }
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", log, flags=re.M)
        summary = [f"{count} {kind}" for kind, count in counts.items()] + failed
        self._tell({**line, "numbers": counts, "failed": failed, "summary": summary})

    def _benchmark(self, name: str, limit: float) -> None:
        file = self.output / f"{name}.json"
        words = ["-m", "visattn", "benchmark", name, "--device", self.device, "--output", str(file)]
        words += ["--quick", "--rounds", "1"] if self.quick else ["--precision", "bf16"]
        line, _ = self._process(name, words, limit)
        self._benchmarks -= line["seconds"]
        tables = json.loads(file.read_text(encoding="utf-8"))["tables"] if line["status"] == "done" else []
        summary = [f"{table['title']}: {table['note'] or _first(table['rows'])}" for table in tables]
        numbers = {table["title"]: _medians(table["rows"]) for table in tables}
        self._tell({**line, "numbers": numbers, "summary": summary})

    def _training(self, name: str) -> None:
        """A preset; once more without a compiler if that fails."""
        scale, left = self.seconds / WHOLE, self._left()
        limit = min(left, LIMITS["cifar_60s"] * scale) if name == "cifar_60s" else left
        budget, longest = (max(1.0, limit - seconds * scale) for seconds in (START, TEST))
        epochs = EPOCHS[name]
        if name == "cifar_5min":
            rate = (self._rate or RATE) / WORK
            epochs = max(1, min(epochs, int(budget * rate / 49_000)))
        preset = [] if name == "cifar_60s" else ["--config=cifar10/gpu_5min"]
        words = ["--config=cifar10/gpu_60s", *preset, f"--data.root={self.data}", "--data.download=false"]
        words += ["--seed_everything=0", f"--trainer.accelerator={'gpu' if self.device == 'cuda' else 'cpu'}"]
        words += [f"--trainer.max_epochs={epochs}", f"--trainer.check_val_every_n_epoch={epochs}"]
        words.append(f"--trainer.max_time={time.strftime('00:%H:%M:%S', time.gmtime(longest))}")
        if self.quick:
            words += tiny()
        for attempt, more in enumerate([[], ["--trainer.callbacks=[]"]]):
            part = name if not attempt else f"{name}, not compiled"
            run = self.output / part.replace(", ", "_").replace(" ", "_")
            line, log = self._process(part, ["-m", "visattn.tasks.gpu_training", str(run), *words, *more], limit)
            numbers = json.loads(log.strip().splitlines()[-1]) if line["status"] == "done" else {}
            if name == "cifar_60s":
                self._rate = numbers.get("images_per_s")
            summary = [f"{key.replace('_', ' ')} {value:.6g}" for key, value in numbers.items()]
            self._tell({**line, "numbers": numbers, "summary": summary})
            limit = min(limit, self._left())
            if line["status"] != "failed" or line["exit"] == 2 or self.quick:  # 2: the data or an option
                break

    def _process(self, part: str, words: Sequence[str], limit: float) -> tuple[dict[str, Any], str]:
        """Run Python with these words, at most for `limit` seconds; returns the result's line and all it printed."""
        limit = min(limit, self._left())
        line: dict[str, Any] = {
            "part": part,
            "status": "left out",
            "seconds": 0.0,
            "limit": round(limit, 1),
            "exit": None,
        }
        if limit < LEAST:
            return {**line, "error": "no time was left"}, ""
        log = self.output / "logs" / f"{re.sub('[^a-z0-9]+', '_', part)}.txt"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        if self.device == "cpu":
            environment["VISATTN_GPU_TESTS"] = "cpu"
        began = time.monotonic()
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [sys.executable, *words],
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environment,
                start_new_session=True,  # its workers end with it
            )
            try:
                process.wait(limit)
                line["status"] = "failed" if process.returncode else "done"
            except subprocess.TimeoutExpired:
                line["status"] = "timed out"
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        line |= {"seconds": round(time.monotonic() - began, 1), "exit": process.returncode}
        said = log.read_text(encoding="utf-8", errors="replace")
        if line["status"] == "failed":
            words_ = [row.strip() for row in said.splitlines() if row.strip()]
            line["error"] = next((row for row in reversed(words_) if "rror" in row), "".join(words_[-1:]))[:300]
        return line, said

    def _skip(self, part: str, reason: str) -> None:
        self._tell({"part": part, "status": "left out", "seconds": 0.0, "limit": 0.0, "exit": None, "error": reason})

    def _left(self) -> float:
        return self._ends - time.monotonic()

    def _tell(self, line: dict[str, Any]) -> None:
        """Print a result, and keep it at once: what follows may be killed."""
        self.lines.append(line)
        text = json.dumps(line, ensure_ascii=False)
        print(text, flush=True)
        with self.results.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def tiny() -> list[str]:
    """Options that make a preset tiny."""
    limits = [f"--trainer.limit_{split}_batches=2" for split in ("train", "val", "test")]
    data = ["--data.batch_size=7", "--data.eval_batch_size=5", "--data.val_fraction=0.1"]
    steps = ["--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1", "--trainer.log_every_n_steps=1"]
    model = [f"--model.model.{option}" for option in TINY]
    return [*limits, *data, *steps, *model, "--trainer.callbacks=[]", "--trainer.enable_model_summary=false"]


def _medians(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows of a benchmark's table, with medians in place of spreads."""
    return {
        name: {heading: cell["median"] if isinstance(cell, dict) else cell for heading, cell in row.items()}
        for name, row in rows.items()
    }


def _first(rows: dict[str, dict[str, Any]]) -> str:
    """The first row in words."""
    name, row = next(iter(_medians(rows).items()))
    cells = (
        f"{cell:.4g} {heading}" if isinstance(cell, float) else f"{cell} {heading}" for heading, cell in row.items()
    )
    return f"{name} {', '.join(cells)}"
