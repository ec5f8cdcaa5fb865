"""How fast is it? Ratios of runs that take turns, so that whatever else the machine does disturbs all alike.

    uv run scripts/benchmark.py decoding
    uv run scripts/benchmark.py decoding --checkpoint runs/flickr8k_soft/best.ckpt --output runs/benchmark.json
    OMP_NUM_THREADS=1 uv run scripts/benchmark.py maps

`decoding`: beam search over many images at once against one image at a time, the same decoder and annotation vectors;
the encoder is left out. Without a checkpoint the decoders have the sizes below and random weights, and hardly any
caption ends before the greatest length; of a checkpoint the annotation vectors are random, so its captions mean
nothing. Beside the ratio stands what the arithmetic alone would give: how much faster the decoder's linear layers are
for the beams of all images than for those of one.

`maps`: what looking into a Vision Transformer of timm costs, in the processor time of plain inference on the same
images; random weights, at the size of timm's configuration.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from tqdm import tqdm

from visattn.captioner import Captioner
from visattn.checkpoints import load_model
from visattn.decoding import BeamSearch, decode
from visattn.errors import InputError
from visattn.explain import GradientRollout, Relevance, Rollout, timm_subject
from visattn.files import write_text
from visattn.models import Decoder, LSTMDecoder, LuongDecoder, TransformerDecoder
from visattn.program import program

# name: decoder, vocabulary, size of an annotation vector, grid, options
DECODERS: dict[str, tuple[type[Decoder], int, int, tuple[int, int], dict[str, int]]] = {
    "LSTM, Shapes' sizes": (LSTMDecoder, 60, 64, (8, 8), {"hidden": 160, "embedding": 96}),
    "LSTM, Flickr8k's sizes": (LSTMDecoder, 2550, 352, (9, 9), {}),
    "LSTM in Luong's order": (LuongDecoder, 2550, 352, (9, 9), {}),
    "LSTM, 14×14 places, 10,000 words": (LSTMDecoder, 10_000, 512, (14, 14), {}),
    "Transformer, Flickr8k's sizes": (TransformerDecoder, 2550, 352, (9, 9), {"size": 384, "layers": 2, "heads": 6}),
}


def decoding(
    decoder: Decoder, size: int, grid: tuple[int, int], images: int, beam: int, rounds: int, max_length: int
) -> dict[str, float]:
    """Images per second of a beam search, all at once and one by one, and how they compare.

    Args:
        decoder: in evaluation mode.
        size: of an annotation vector.
        grid: of the places.
        images: searched at once.
        beam: captions that each search follows.
        rounds: that are timed, after one that warms up; in each, one image in eight is searched alone.
        max_length: of a caption.
    """
    values = torch.randn(images, grid[0] * grid[1], size, generator=torch.Generator().manual_seed(0))
    alone = range(0, images, 8)
    search = BeamSearch(beam)

    def run(part: torch.Tensor) -> None:
        decode(decoder, decoder.prepare(part, grid), search, max_length)

    with torch.inference_mode():
        together, single = take_turns(rounds, lambda: run(values), lambda: [run(values[i : i + 1]) for i in alone])
        layers = [module for module in decoder.modules() if isinstance(module, nn.Linear)]

        def multiply(rows: int) -> None:
            for layer in layers:
                layer(torch.zeros(rows, layer.in_features))

        products = take_turns(rounds, lambda: multiply(images * beam), lambda: multiply(beam))
    together, single = [images / t for t in together], [len(alone) / t for t in single]
    ratios = [many / one for many, one in zip(together, single, strict=True)]
    return {
        "together": statistics.median(together),
        "one_by_one": statistics.median(single),
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "products": statistics.median(images * one / many for many, one in zip(*products, strict=True)),
    }


def maps(name: str, images: int, rounds: int) -> dict[str, dict[str, float]]:
    """What each way to look into a Vision Transformer costs, in plain inferences.

    Args:
        name: of a model of timm.
        images: at once.
        rounds: that are timed, after one that warms up.
    """
    subject = timm_subject(name, "random")
    vit, (height, width) = subject.vit, timm.data.resolve_model_data_config(subject.vit.model)["input_size"][1:]
    pixels = torch.randn(images, 3, height, width, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(images, dtype=torch.long)

    @torch.no_grad()
    def plain() -> None:
        vit.model(pixels)

    runs = {
        "plain inference": plain,
        "what the classes are read from, all layers and heads": lambda: vit.rows(pixels),
        "all maps, all layers and heads": lambda: vit.maps(pixels),
        "rollout": lambda: Rollout()(vit, pixels),
        "rollout, max of heads, 90 % discarded": lambda: Rollout("max", 0.9)(vit, pixels),
        "gradient rollout of a class": lambda: GradientRollout()(vit, pixels, targets),
        "relevance of a class": lambda: Relevance()(vit, pixels, targets),
    }
    seconds = take_turns(rounds, *runs.values(), clock=time.process_time)
    costs = {}
    for title, times in zip(runs, seconds, strict=True):
        ratios = [own / plain for own, plain in zip(times, seconds[0], strict=True)]
        costs[title] = {"cost": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
    return costs


def take_turns(
    rounds: int, *runs: Callable[[], Any], clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Seconds that each takes in each round; one round before warms up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for turn in range(rounds + 1):
        for run, times in zip(runs, seconds, strict=True):
            start = clock()
            run()
            if turn:
                times.append(clock() - start)
    return seconds


def table(results: dict[str, dict[str, float]], images: int) -> str:
    """The results as Markdown."""
    lines = [
        f"| decoder | {images} images at once | one by one | ratio (least–most) | linear layers alone |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, r in results.items():
        spread = f"{r['ratio']:.1f} ({r['least']:.1f}–{r['most']:.1f})"
        lines.append(f"| {name} | {r['together']:.0f}/s | {r['one_by_one']:.1f}/s | {spread} | {r['products']:.1f} |")
    return "\n".join(lines)


def costs_table(costs: dict[str, dict[str, float]], name: str, images: int) -> str:
    """The costs as Markdown."""
    lines = [f"| {name}, {images} images at once | cost (least–most) |", "|---|---:|"]
    lines += [f"| {title} | {c['cost']:.2f} ({c['least']:.2f}–{c['most']:.2f}) |" for title, c in costs.items()]
    return "\n".join(lines)


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("decoding", "maps"), help="what to time")
    parser.add_argument("--checkpoint", type=Path, help="a captioner, in place of decoders with random weights")
    parser.add_argument("--timm", default="vit_small_patch16_224", help="of maps: the model (default: %(default)s)")
    parser.add_argument("--images", type=int, help="images at once (default: 64, of maps 8)")
    parser.add_argument("--beam", type=int, default=5, help="captions that a search follows (default: 5)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, of which the median counts (default: 5)")
    parser.add_argument("--max-length", type=int, default=20, help="words of a caption at most (default: 20)")
    parser.add_argument("--output", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args(args)
    if options.images is None:
        options.images = 64 if options.what == "decoding" else 8
    for name in ("images", "rounds", "max_length"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be at least 1")
    BeamSearch(options.beam)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
    if options.what == "maps":
        results = maps(options.timm, options.images, options.rounds)
        print(costs_table(results, options.timm, options.images))
        finish("", results, options.output)
        return
    results = {}
    if options.checkpoint is None:
        cases = {
            name: (kind(words, size, **own).eval(), size, grid)
            for name, (kind, words, size, grid, own) in DECODERS.items()
        }
    else:
        model = load_model(options.checkpoint, Captioner)
        cases = {str(options.checkpoint): (model.decoder, model.encoder.size, model.encoder.grid(model.image_size))}
    for name, (decoder, size, grid) in tqdm(cases.items(), desc="Timing", unit="decoder"):
        results[name] = decoding(decoder, size, grid, options.images, options.beam, options.rounds, options.max_length)
    print(table(results, options.images))
    finish(f"beam {options.beam}, ", results, options.output)


def finish(how: str, results: dict[str, dict[str, float]], output: Path | None) -> None:
    """Say under which conditions it was, and keep the numbers where a file is named."""
    about = f"{how}{torch.get_num_threads()} threads, float32, PyTorch {torch.__version__}"
    print(f"\n{about}, {platform.processor() or platform.machine()}")
    if output:
        write_text(output, json.dumps({"about": about, "results": results}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
