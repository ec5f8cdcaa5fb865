"""Run a benchmark with interleaved timing."""

import argparse
from types import ModuleType

from visattn.decoding import BeamSearch
from visattn.overlay import save_figure
from visattn.studies.benchmarks import captioner, decoding, growth, maps, overlays, reward, scores, start, vit
from visattn.studies.benchmarks.report import Report
from visattn.studies.benchmarks.setting import Setting
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import load_model

SUBJECTS = {
    "vit": vit,
    "captioner": captioner,
    "decoding": decoding,
    "maps": maps,
    "overlays": overlays,
    "scores": scores,
    "reward": reward,
    "growth": growth,
    "start": start,
}


def measure(options: argparse.Namespace, title: str) -> Report:
    """Run the benchmark given by the options of `visattn benchmark`."""
    setting = Setting.of(options.device, options.precision, options.rounds)
    module = SUBJECTS[options.subject]
    tables = _tables(options, setting, module)
    return Report(title, setting.conditions(*module.PACKAGES), tables)


def _tables(options: argparse.Namespace, setting: Setting, module: ModuleType) -> list:
    """The tables of a subject."""
    sizes = module.QUICK if options.quick else module.FULL
    if module is growth:
        tables, figure = growth.measure(setting, sizes)
        if options.figure:
            save_figure(figure, options.figure)
        return tables
    if module is maps and not options.quick:
        sizes = maps.Sizes(options.timm, options.images)
    if module is not decoding:
        return module.measure(setting, sizes)
    BeamSearch(options.beam)
    if not options.quick:
        sizes = decoding.Sizes(options.images, options.beam, options.max_length)
    if options.checkpoint is None:
        return decoding.measure(setting, sizes)
    model = load_model(options.checkpoint, Captioner)
    case = decoding.Case(
        str(options.checkpoint), model.decoder, model.encoder.size, model.encoder.grid(model.image_size)
    )
    return decoding.measure(setting, sizes, [case])
