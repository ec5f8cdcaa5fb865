"""Estimators in training, by configuration: each trains, saves and exports, and what cannot be is refused."""

import pytest
import torch
from conftest import CONFIGS, FAST, SMALL_SHAPES, TALKATIVE, fit

from visattn.cli import main
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import load_model

DECODER, LOSS = "--model.init_args.decoder.init_args", "--model.init_args.loss.init_args"


def overlay(name):
    return ["--config", str(CONFIGS / "attention" / f"{name}.yaml")]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("reinmax", []),
        ("hard_learned", []),
        ("hard_without_replacement", []),
        ("hard_rebar", [f"{LOSS}.reinforce=visattn.training.objectives.Relax"]),
    ],
)
def test_each_estimator_trains_saves_and_exports(name, options, tmp_path):
    checkpoint = fit("shapes_captioner.yaml", tmp_path / "run", *overlay(name), *SMALL_SHAPES, TALKATIVE, *options)
    model = load_model(checkpoint, Captioner)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert main(["export", "--checkpoint", str(checkpoint), "--output", str(tmp_path / "exported")]) == 0


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("hard_rebar", [f"{LOSS}.reinforce=visattn.training.objectives.Enumeration"], ["limit is 4,096"]),
        ("hard_rebar", [f"{DECODER}.attention.init_args.coin=step"], ["coin is 'step'", "Rebar"]),
        ("reinmax", [f"{LOSS}.reinforce=visattn.training.objectives.Reinforce"], ["reinforce", "relaxation"]),
        (
            "reinmax",
            [f"{DECODER}.attention.init_args.relaxation=visattn.attention.GumbelSoftmax"],
            ["evaluation is 'argmax'", "GumbelSoftmax"],
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(name, options, words, tmp_path, capsys):
    config, output = str(CONFIGS / "shapes_captioner.yaml"), str(tmp_path / "run")
    assert main(["fit", "--config", config, *overlay(name), "--output", output, *FAST, *SMALL_SHAPES, *options]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert all(word in line for word in words)
