"""The program as a user runs it: every shipped configuration, its checkpoints, and mistakes in one sentence."""

import csv
import json

import numpy as np
import pytest
import torch
from conftest import CONFIGS, FAST, SMALL_SHAPES, fit
from PIL import Image

from visattn.cli import main
from visattn.data import ShapesCaptions
from visattn.errors import InputError
from visattn.metrics import grounding
from visattn.models import Encoder
from visattn.training.callbacks import FeatureCache
from visattn.training.captioner import POINTING_TOLERANCE, Captioner
from visattn.training.checkpoints import load_model
from visattn.training.classifier import Classifier


def run(subcommand, config, output, *options):
    return main([subcommand, "--config", str(CONFIGS / config), "--output", str(output), *FAST, *options])


def photograph_options(root):
    """Small pictures, and a backbone without pretrained weights."""
    return [
        f"--data.init_args.root={root}",
        "--data.init_args.workers=0",
        "--data.init_args.min_count=1",
        "--data.init_args.image_size=64",
        "--model.init_args.encoder.init_args.weights=random",
    ]


# A backbone and a decoder that take a second where the recipe's own are not the point.
IN_SMALL = ["--model.encoder.backbone=test_efficientnet", "--model.decoder.hidden=32", "--model.decoder.embedding=32"]
# The file that `karpathy_root` has, and a backbone with the same stages that takes seconds, not minutes.
COCO_IN_SMALL = ["--data.annotations=dataset_flickr8k.json", "--model.encoder.backbone=resnet18"]


def options_for(config, request):
    """What a shipped configuration needs in order to run without its data."""
    if config.startswith("shapes"):
        return SMALL_SHAPES
    if config.startswith("cifar10"):
        root = request.getfixturevalue("cifar_root")
        return [f"--data.init_args.root={root}", "--data.init_args.download=false"]
    if config.startswith("mnist"):
        return [f"--data.init_args.root={request.getfixturevalue('mnist_root')}", "--data.init_args.download=false"]
    root = request.getfixturevalue("karpathy_root")
    small = [*COCO_IN_SMALL, "--model.decoder.hidden=32"] if config.startswith("coco") else []
    return [*photograph_options(root), f"--features={root / 'features'}", *small]


@pytest.mark.parametrize("config", sorted(path.name for path in CONFIGS.glob("*.yaml")))
def test_every_shipped_configuration_fits_tests_and_predicts(config, request, tmp_path, capsys):
    options = options_for(config, request)
    output = tmp_path / "run"
    assert run("fit", config, output, *options) == 0
    assert (output / "last.ckpt").exists()
    best = ["--ckpt_path", str(output / "best.ckpt")]
    assert run("validate", config, output, *options, *best) == 0
    assert run("test", config, output, *options, *best) == 0
    assert run("predict", config, output, *options, *best) == 0
    predictions = json.loads((output / "predictions.json").read_text())
    assert predictions
    assert "caption" in predictions[0] or "class" in predictions[0]
    with (output / "logs" / "version_0" / "metrics.csv").open() as file:
        columns = next(csv.reader(file))
    assert ("val/CIDEr-D" in columns) or ("val/accuracy" in columns)


OVERLAYS = sorted(path.stem for path in (CONFIGS / "attention").glob("*.yaml"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_mechanism_is_one_more_configuration(overlay, tmp_path):
    """Each trains and captions, over the configuration of soft attention; its header says how."""
    file = CONFIGS / "attention" / f"{overlay}.yaml"
    assert f"--config configs/attention/{overlay}.yaml" in file.read_text()
    output = tmp_path / "run"
    overlaid = ["--config", str(file), *SMALL_SHAPES]
    assert run("fit", "shapes_captioner.yaml", output, *overlaid) == 0
    best = ["--ckpt_path", str(output / "best.ckpt")]
    assert run("predict", "shapes_captioner.yaml", output, *overlaid, *best) == 0
    assert json.loads((output / "predictions.json").read_text())[0]["caption"]
    model = load_model(output / "best.ckpt", Captioner)
    assert (model.loss.reinforce is not None) == overlay.startswith("hard")
    with (output / "logs" / "version_0" / "metrics.csv").open() as log:
        columns = set(next(csv.reader(log)))
    assert {"val/grounding_pointing", "val/ground_truth_grounding_pointing", "val/attention_entropy"} <= columns
    diagnostics = ("advantage", "advantage_variance", "baseline", "entropy", "drawn", "reinforce_gradient_share")
    assert all((f"train/{name}" in columns) == overlay.startswith("hard") for name in diagnostics)


@pytest.mark.parametrize("overlay", sorted(path.name for path in (CONFIGS / "cifar10").glob("*.yaml")))
def test_every_recipe_for_cifar_trains(overlay, cifar_root, tmp_path):
    file = CONFIGS / "cifar10" / overlay
    base = "cifar10/gpu_60s.yaml" if overlay.startswith("gpu") else "cifar10_vit.yaml"
    over = [] if overlay == "gpu_60s.yaml" else [f"--config configs/cifar10/{overlay}"]
    assert " ".join([f"visattn fit --config configs/{base}", *over]) in file.read_text()
    assert "Validation accuracy" in file.read_text() or "Not yet measured" in file.read_text()
    options = [f"--data.root={cifar_root}", "--data.download=false", "--data.workers=0", "--data.batch_size=17"]
    options += ["--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1"]
    if overlay.startswith("gpu"):  # 2% of 100 images are no split
        options += ["--data.val_fraction=0.1", "--trainer.callbacks=[]", "--data.batch_size=5"]
    assert run("fit", base, tmp_path / "run", *(["--config", str(file)] if over else []), *options) == 0
    model = load_model(tmp_path / "run" / "best.ckpt", Classifier)
    assert sum(parameter.numel() for parameter in model.model.parameters()) <= 3.8e6


@pytest.mark.parametrize(
    "overlay",
    [f"{data}/{path.name}" for data in ("flickr8k", "coco") for path in sorted((CONFIGS / data).glob("*.yaml"))],
)
def test_every_recipe_for_photographs_trains(overlay, karpathy_root, tmp_path):
    """Small, from the weights of a soft captioner where its header says so."""
    file, data = CONFIGS / overlay, overlay.split("/")[0]
    assert f"--config configs/{overlay}" in file.read_text()
    assert "Validation split" in file.read_text() or "Not yet measured" in file.read_text()
    options = [*photograph_options(karpathy_root), *(COCO_IN_SMALL if data == "coco" else [])]
    if data == "flickr8k" and "vgg19" not in overlay:
        options += IN_SMALL[:1]
    if "transformer" not in overlay:
        options += ["--model.decoder.hidden=32"]
    if "local" in overlay:
        options += ["--data.init_args.image_size=96", "--model.decoder.attention.window=1"]  # 3×3 places, not 2×2
    if "features: none" not in file.read_text():
        options += [f"--features={tmp_path / 'features'}"]
    start = []
    if f"--start_from runs/{data}_soft/best.ckpt" in file.read_text():
        start = ["--start_from", str(fit(f"{data}_soft.yaml", tmp_path / "soft", *options))]
    output = tmp_path / "run"
    short = ["--trainer.max_epochs=1", "--trainer.max_steps=2", "--trainer.check_val_every_n_epoch=1"]
    assert run("fit", f"{data}_soft.yaml", output, "--config", str(file), *options, *start, *short) == 0
    assert load_model(output / "best.ckpt", Captioner)


def losses_of(output):
    with (output / "logs" / "version_0" / "metrics.csv").open() as log:
        return [float(row["train/loss"]) for row in csv.DictReader(log) if row["train/loss"]]


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch.compile's own looking around
@pytest.mark.parametrize(("config", "part"), [("shapes_vit.yaml", "model"), ("shapes_captioner.yaml", "decoder")])
def test_a_compiled_model_trains_as_any_other(config, part, tmp_path):
    """With a backend that needs no compiler; names of weights stay as they are, so checkpoints are exchangeable.

    Captions are short and nothing is validated: a decoder's loop is compiled anew for each length of caption.
    """
    short = ["--data.things=1", "--trainer.limit_val_batches=0"] if part == "decoder" else []
    callback = "--trainer.callbacks+=visattn.training.callbacks.Compilation"
    compiled = [callback, f"--trainer.callbacks.parts=[{part}]", "--trainer.callbacks.backend=eager"]
    for name, more in (("eager", []), ("compiled", compiled)):
        assert run("fit", config, tmp_path / name, *SMALL_SHAPES, *short, *more) == 0
    assert losses_of(tmp_path / "compiled") == pytest.approx(losses_of(tmp_path / "eager"), rel=1e-5)
    eager, other = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("eager", "compiled"))
    assert list(eager["state_dict"]) == list(other["state_dict"])


def test_a_part_to_compile_that_is_not_there_is_named(tmp_path, capsys):
    callback = ["--trainer.callbacks+=visattn.training.callbacks.Compilation", "--trainer.callbacks.parts=[decoder]"]
    assert run("fit", "shapes_vit.yaml", tmp_path / "run", *SMALL_SHAPES, *callback) == 2
    assert "Classifier has no part 'decoder' to compile" in capsys.readouterr().err


def logged(output):
    """The columns of a run's log."""
    with (output / "logs" / "version_0" / "metrics.csv").open() as log:
        return set(next(csv.reader(log)))


def test_scheduled_sampling_is_one_more_configuration(tmp_path):
    file, output = CONFIGS / "training" / "scheduled_sampling.yaml", tmp_path / "run"
    schedule = "--model.init_args.regime.init_args.schedule.init_args"
    options = ["--config", str(file), *SMALL_SHAPES, f"{schedule}.start=0.5", f"{schedule}.slope=0.125"]
    assert run("fit", "shapes_captioner.yaml", output, *options) == 0
    with (output / "logs" / "version_0" / "metrics.csv").open() as log:
        truth = [row["train/truth"] for row in csv.DictReader(log) if row["train/truth"]]
    assert [float(value) for value in truth] == [0.5, 0.5]  # least is ½


def test_self_critical_training_starts_from_another_training(captioner_checkpoint, tmp_path, caplog):
    file, output = CONFIGS / "training" / "self_critical.yaml", tmp_path / "run"
    options = ["--config", str(file), *SMALL_SHAPES, "--start_from", str(captioner_checkpoint)]
    still = ["--model.init_args.optimization.init_args.lr=0"]
    assert run("fit", "shapes_captioner.yaml", output, *options, *still) == 0
    assert "SCST|baseline:leave-one-out(5)|reward:CIDEr-D|eos:counted|df:references(23)" in caplog.text
    assert {"train/reward", "train/unfinished"} <= logged(output)
    before, after = (load_model(path, Captioner) for path in (captioner_checkpoint, output / "last.ckpt"))
    for name, parameter in before.named_parameters():
        assert torch.equal(parameter, after.get_parameter(name)), name
    best = ["--ckpt_path", str(output / "best.ckpt")]
    assert run("validate", "shapes_captioner.yaml", output, *SMALL_SHAPES, *best) == 0
    report = json.loads((output / "exposure_val.json").read_text())
    assert report["regime"] == "SCST|baseline:leave-one-out(5)|reward:CIDEr-D|eos:counted"
    moved = tmp_path / "moved"
    assert run("fit", "shapes_captioner.yaml", moved, *options) == 0
    assert not torch.equal(load_model(moved / "last.ckpt", Captioner).decoder.out.weight, before.decoder.out.weight)


def test_a_run_that_was_started_from_another_goes_on(captioner_checkpoint, tmp_path):
    options = [*SMALL_SHAPES, "--start_from", str(captioner_checkpoint)]
    assert run("fit", "shapes_captioner.yaml", tmp_path, *options) == 0
    more = ["--ckpt_path", str(tmp_path / "last.ckpt"), "--trainer.max_epochs=2"]
    assert run("fit", "shapes_captioner.yaml", tmp_path, *options, *more) == 0
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 4


def test_only_a_training_starts_from_another(captioner_checkpoint, tmp_path, capsys):
    options = [*SMALL_SHAPES, "--start_from", str(captioner_checkpoint)]
    assert run("validate", "shapes_captioner.yaml", tmp_path, *options) == 2
    assert "--start_from is for 'visattn fit'" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["max_length=0", "no_repeat=-1"])
def test_options_of_decoding_out_of_range_are_named(option, tmp_path, capsys):
    assert run("fit", "shapes_captioner.yaml", tmp_path / "run", *SMALL_SHAPES, f"--model.init_args.{option}") == 2
    assert option.replace("=", " is ") in capsys.readouterr().err


def test_hard_attention_starts_from_soft(captioner_checkpoint, tmp_path):
    options = ["--config", str(CONFIGS / "attention" / "hard_published.yaml"), *SMALL_SHAPES]
    start = ["--start_from", str(captioner_checkpoint), "--model.init_args.optimization.init_args.lr=0"]
    assert run("fit", "shapes_captioner.yaml", tmp_path / "run", *options, *start) == 0
    before, after = (load_model(path, Captioner) for path in (captioner_checkpoint, tmp_path / "run" / "last.ckpt"))
    assert torch.equal(before.decoder.attention.score.key.weight, after.decoder.attention.score.key.weight)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--start_from=nowhere.ckpt"], "there is no checkpoint nowhere.ckpt"),
        (
            ["--start_from={checkpoint}", "--data.init_args.train_size=7"],
            "was trained with {} words, but this data has",
        ),
        (
            ["--start_from={checkpoint}", f"{'--model.init_args.decoder.init_args'}.hidden=17"],
            "give both the same options",
        ),
        (["--start_from={classifier}"], "holds visattn.training.classifier.Classifier"),
    ],
)
def test_invalid_starting_points(options, sentence, captioner_checkpoint, classifier_checkpoint, tmp_path, capsys):
    known = {"checkpoint": captioner_checkpoint, "classifier": classifier_checkpoint}
    options = [option.format(**known) for option in options]
    assert run("fit", "shapes_captioner.yaml", tmp_path / "run", *SMALL_SHAPES, *options) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert all(part in line for part in sentence.split("{}"))


def test_averaged_weights_and_early_stopping_are_one_more_configuration(tmp_path):
    """What is validated and kept is the average; the weights that go on are beside it."""
    options = ["--config", str(CONFIGS / "training" / "regularised.yaml"), *SMALL_SHAPES]
    stop = [
        "--trainer.max_epochs=5",
        "--trainer.limit_train_batches=1",
        "--model.init_args.optimization.init_args.lr=0",
    ]
    assert run("fit", "shapes_captioner.yaml", tmp_path / "run", *options) == 0
    checkpoint = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    name = "decoder.out.weight"
    assert not torch.equal(checkpoint["state_dict"][name], checkpoint["current_model_state"][name])
    assert load_model(tmp_path / "run" / "last.ckpt", Captioner)
    assert run("fit", "shapes_captioner.yaml", tmp_path / "stopped", *options, *stop) == 0
    with (tmp_path / "stopped" / "logs" / "version_0" / "metrics.csv").open() as log:
        epochs = [row["epoch"] for row in csv.DictReader(log) if row["val/CIDEr-D"]]
    assert epochs == ["0", "1", "2", "3"]  # nothing rose after the first


def test_a_test_reports_exposure_bias(captioner_checkpoint, tmp_path):
    best = ["--ckpt_path", str(captioner_checkpoint)]
    assert run("test", "shapes_captioner.yaml", tmp_path, *SMALL_SHAPES, *best) == 0
    report = json.loads((tmp_path / "exposure_test.json").read_text())
    with Image.open(tmp_path / "exposure_test.png") as picture:
        assert picture.format == "PNG"
    positions, overall, scores = report["positions"], report["overall"], report["scores"]
    assert positions["teacher_forced"][0] == positions["free_running"][0]  # nothing has been said before the first word
    assert positions["tokens"][0] == 11 * 5
    assert overall["gap"] == pytest.approx(scores["gap"])
    assert overall["loss"] == pytest.approx(scores["cross_entropy"], rel=1e-4)
    assert scores["teacher_forced_CIDEr-D"] != scores["CIDEr-D"]
    assert (report["split"], report["regime"], report["search"]) == ("test", "TeacherForcing", "Greedy")


def test_a_beam_is_an_option_of_validation(captioner_checkpoint, tmp_path):
    options = ["--ckpt_path", str(captioner_checkpoint), "--model.init_args.search=visattn.decoding.BeamSearch"]
    assert run("validate", "shapes_captioner.yaml", tmp_path, *SMALL_SHAPES, *options) == 0
    assert json.loads((tmp_path / "exposure_val.json").read_text())["search"] == "BeamSearch"


DECODER, LOSS = "--model.init_args.decoder.init_args", "--model.init_args.loss.init_args"


@pytest.mark.parametrize(
    ("overlays", "options", "sentence"),
    [
        (
            [],
            [f"{DECODER}.attention=visattn.attention.HardAttention"],
            "set the loss's option reinforce",
        ),
        ([], [f"{LOSS}.reinforce=visattn.training.objectives.Reinforce"], "reinforce needs attention that samples"),
        (["hard"], [f"{LOSS}.reinforce.init_args.baseline.init_args.draws=1"], "draws is 1"),
        (["hard"], [f"{DECODER}.attention.init_args.coin=word"], "coin"),
        (["local_p"], [f"{DECODER}.attention.init_args.window=4"], "window is 4, so it covers 9×9 places"),
        (["local_m"], [f"{DECODER}.attention.init_args.score=visattn.attention.LocationScore"], "LocationScore"),
        (
            [],
            [f"{DECODER}.attention.init_args.score=visattn.attention.DotScore"],
            "needs a query and values of the same",
        ),
        (["multihead"], [f"{DECODER}.attention.init_args.heads=7"], "7 heads"),
        (["transformer"], [f"{DECODER}.heads=7"], "7 heads"),
    ],
)
def test_mechanisms_that_cannot_be_are_refused_in_one_sentence(overlays, options, sentence, tmp_path, capsys):
    configs = [word for name in overlays for word in ("--config", str(CONFIGS / "attention" / f"{name}.yaml"))]
    assert run("fit", "shapes_captioner.yaml", tmp_path / "run", *configs, *SMALL_SHAPES, *options) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert sentence in line
    assert not (tmp_path / "run").exists()


def test_reading_a_caption_is_teacher_forcing(captioner_checkpoint):
    """Log-probabilities and maps of given words; validation's scores of the references' maps are made of these."""
    model = load_model(captioner_checkpoint, Captioner)
    data = ShapesCaptions(train_size=23, val_size=7, test_size=11)
    examples = data.examples("val")
    images = torch.stack([data.load(example)[0] for example in examples])
    words = [example.captions[1] for example in examples]
    together = model.read(images, words)
    for i, read in enumerate(together):
        (alone,) = model.read(images[i : i + 1], words[i : i + 1])
        assert read.words == words[i]
        assert read.weights.shape == (len(words[i]), 8, 8)
        torch.testing.assert_close(torch.tensor(alone.weights), torch.tensor(read.weights), rtol=1e-3, atol=1e-5)
        assert alone.log_prob == pytest.approx(read.log_prob, rel=1e-3)
    generated = [caption for (caption,) in model.caption(images)]
    again = model.read(images, [caption.words for caption in generated])
    for one, other in zip(generated, again, strict=True):
        np.testing.assert_allclose(one.weights, other.weights, rtol=1e-3, atol=1e-5)
        # Generated words are among those that may come, read ones among all, unknown ones included.
        assert np.all(other.log_probs < one.log_probs)
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1)
    (unknown,) = model.read(images[:1], [["a", "zebra"]])
    assert unknown.words == ["a", "zebra"]
    assert unknown.weights.shape == (2, 8, 8)


def test_validation_scores_the_references_maps(captioner_checkpoint):
    model = load_model(captioner_checkpoint, Captioner)
    data = ShapesCaptions(train_size=23, val_size=7, test_size=11)
    maps, masks = [], []
    for example in data.examples("val"):
        for caption in example.captions:
            maps += list(model.read(data.load(example)[0][None], [caption])[0].weights)
            masks += data.regions(example.id, caption)
    found = grounding(maps, masks, POINTING_TOLERANCE * 64, model.input.cell_shift)
    with next((captioner_checkpoint.parent / "logs").glob("*/metrics.csv")).open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/ground_truth_grounding_mass"]]
    assert float(rows[-1]["val/ground_truth_grounding_mass"]) == pytest.approx(found.mass, rel=1e-3)
    assert float(rows[-1]["val/ground_truth_grounding_words"]) == found.words


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_states_command_time_and_scores(config):
    header = [line for line in config.read_text().splitlines() if line.startswith("#")]
    text = " ".join(header)
    assert f"--config configs/{config.name}" in text
    assert "minutes" in text.lower()
    assert any(character.isdigit() for character in text)


def test_a_checkpoint_is_self_contained(captioner_checkpoint):
    checkpoint = torch.load(captioner_checkpoint, weights_only=True)
    assert checkpoint["hyper_parameters"]["output_names"][:4] == ["<pad>", "<start>", "<end>", "<unk>"]
    model = load_model(captioner_checkpoint, Captioner)
    images = torch.randint(0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    captions = model.caption(images)
    assert len(captions) == 3
    for (caption,) in captions:
        assert caption.words
        assert caption.weights.shape == (len(caption.words), 8, 8)
        torch.testing.assert_close(torch.tensor(caption.weights.sum((1, 2))), torch.ones(len(caption.words)))
        assert caption.log_prob <= caption.log_probs.sum()


def test_validation_scores_what_is_generated_freely(captioner_checkpoint, tmp_path):
    """The logged CIDEr-D is that of the captions which `caption` makes, not of teacher-forced words."""
    from visattn.metrics import caption_scores

    output = captioner_checkpoint.parent
    with next((output / "logs").glob("*/metrics.csv")).open() as file:
        logged = [float(row["val/CIDEr-D"]) for row in csv.DictReader(file) if row["val/CIDEr-D"]]
    data = ShapesCaptions(train_size=23, val_size=7, test_size=11)
    images = torch.stack([data.load(example)[0] for example in data.examples("val")])
    model = load_model(captioner_checkpoint, Captioner)
    names = [example.id for example in data.examples("val")]
    candidates = {name: best.words for name, (best,) in zip(names, model.caption(images), strict=True)}
    scores = caption_scores(data.references("val"), candidates)
    assert scores.corpus["CIDEr-D"] == pytest.approx(logged[-1], abs=1e-6)


def test_features_of_other_generated_images_are_not_taken(tmp_path):
    """Scenes are named alike, whatever their seed."""
    kept, frozen = tmp_path / "kept", tmp_path / "frozen.yaml"
    frozen.write_text("model: {init_args: {encoder: {init_args: {train_from: null}}}}")
    for number, seed in enumerate((0, 1, 0)):
        options = [f"--config={frozen}", *SMALL_SHAPES, f"--data.init_args.seed={seed}", f"--features={kept}"]
        fit("shapes_captioner.yaml", tmp_path / str(number), *options)
    assert len(list(kept.iterdir())) == 2


def test_a_best_checkpoint_of_another_name_is_found(tmp_path):
    run_folder = tmp_path / "run"
    words = [*SMALL_SHAPES, "--checkpoint.filename=mine"]
    assert run("fit", "shapes_vit.yaml", run_folder, *words) == 0
    assert run("validate", "shapes_vit.yaml", run_folder, *words, "--ckpt_path=best") == 0
    for name in ("last", "previous"):
        (run_folder / f"{name}.ckpt").unlink(missing_ok=True)
    whole = (run_folder / "mine.ckpt").read_bytes()
    assert run("fit", "shapes_vit.yaml", run_folder, *words, "--resume=auto") == 0
    assert (run_folder / "mine.ckpt").read_bytes() == whole  # its training had ended


def test_an_encoder_is_trained_on_random_parts(karpathy_root, tmp_path, capsys):
    parts = ["--data.init_args.crop=0.6", "--data.init_args.grouped=true"]
    small = [*photograph_options(karpathy_root), *IN_SMALL]
    trained = ["--model.encoder.train_from=4", "--model.encoder.keep_statistics=true"]
    fit("flickr8k_soft.yaml", tmp_path / "run", *small, *parts, *trained, "--features=none")
    for name, options, sentence in (
        ("kept", [*parts, f"--features={tmp_path / 'kept'}"], "features are of whole images; set --features none"),
        ("none", ["--data.init_args.crop=0", "--features=none"], "crop is 0"),
    ):
        assert run("fit", "flickr8k_soft.yaml", tmp_path / name, *small, *options) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "kept").exists() or not any(tmp_path.glob("kept/*/features.npy"))


@pytest.mark.parametrize("mirror", [False, True])
def test_features_give_the_losses_of_images(mirror, karpathy_root, tmp_path, monkeypatch):
    options = [
        *photograph_options(karpathy_root),
        *IN_SMALL,
        "--trainer.precision=32",
        f"--data.init_args.mirror={mirror}",
    ]
    losses, kept = [], tmp_path / "kept"
    for name, features in (("images", "none"), ("first", kept), ("again", kept)):
        fit("flickr8k_soft.yaml", tmp_path / name, *options, f"--features={features}")
        with (tmp_path / name / "logs" / "version_0" / "metrics.csv").open() as file:
            losses.append([float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]])
    assert losses[1] == pytest.approx(losses[2], rel=1e-6)
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)  # half precision
    assert len(list(kept.iterdir())) == 1 + mirror
    best = ["--ckpt_path", str(tmp_path / "first" / "best.ckpt"), f"--features={kept}"]
    forward = Encoder.forward

    def refuse(self, images):
        assert images.is_meta, "an image was encoded again"
        return forward(self, images)

    monkeypatch.setattr(Encoder, "forward", refuse)
    assert run("validate", "flickr8k_soft.yaml", tmp_path / "alone", *options, *best) == 0
    alone = json.loads((tmp_path / "alone" / "exposure_val.json").read_text())
    assert alone["scores"]["loss"] == pytest.approx(losses[1][-1], rel=1e-6)


def test_features_of_other_weights_are_others(karpathy_root, tmp_path):
    options = [
        *photograph_options(karpathy_root),
        *IN_SMALL,
        f"--features={tmp_path / 'features'}",
    ]
    fit("flickr8k_soft.yaml", tmp_path / "one", *options)
    fit("flickr8k_soft.yaml", tmp_path / "two", *options, "--seed_everything=1")
    fit("flickr8k_soft.yaml", tmp_path / "three", *options, "--data.init_args.fit=pad")
    kept = [path.name for path in (tmp_path / "features").iterdir()]
    as_they_are = [name for name in kept if not name.endswith("-mirrored")]
    assert len(as_they_are) == 3
    assert sorted(kept) == sorted([*as_they_are, *(f"{name}-mirrored" for name in as_they_are)])


def test_two_runs_may_compute_the_same_features_at_once(karpathy_root, tmp_path, monkeypatch):
    compute = FeatureCache._compute

    def both(*args):
        compute(*args)  # the other run's, done first
        compute(*args)

    monkeypatch.setattr(FeatureCache, "_compute", both)
    features = tmp_path / "features"
    options = [*photograph_options(karpathy_root), *IN_SMALL]
    fit("flickr8k_soft.yaml", tmp_path / "run", *options, f"--features={features}")
    folder, mirrored = sorted(features.iterdir())
    assert mirrored.name == f"{folder.name}-mirrored"
    for kept in (folder, mirrored):
        assert {path.name for path in kept.iterdir()} == {"features.npy", "ids.json"}


def error_of(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_bfloat16_trains_on_a_cpu(tmp_path):
    assert run("fit", "shapes_captioner.yaml", tmp_path / "run", *SMALL_SHAPES, "--trainer.precision=bf16-mixed") == 0


def test_a_run_is_not_overwritten(captioner_checkpoint, capsys):
    assert run("fit", "shapes_captioner.yaml", captioner_checkpoint.parent, *SMALL_SHAPES) == 2
    assert "already holds a run" in error_of(capsys)


def test_a_run_is_continued(tmp_path):
    output = tmp_path / "run"
    assert run("fit", "shapes_vit.yaml", output, *SMALL_SHAPES) == 0
    more = ["--trainer.max_epochs=2", f"--ckpt_path={output / 'last.ckpt'}"]
    assert run("fit", "shapes_vit.yaml", output, *SMALL_SHAPES, *more) == 0
    assert torch.load(output / "last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("depth:", "dephts:"),
        ("max_epochs:", "max_epoch:"),
        ("lr:", "lrr:"),
        ("class_path: visattn.data", "x: visattn.data"),
    ],
)
def test_a_misspelt_key_is_named(right, wrong, tmp_path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text((CONFIGS / "shapes_vit.yaml").read_text().replace(right, wrong))
    assert main(["fit", "--config", str(config), "--output", str(tmp_path / "run")]) == 2
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert wrong.split(":")[0] in sentence
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--data.init_args.trains_size=3"], "there is no option or configuration key 'trains_size'"),
        (["--data.foo=1"], "there is no option or configuration key 'foo'"),
        (["--model.init_args.foo=1"], "there is no option or configuration key 'foo'"),
        (["--trainer.foo=1"], "there is no option or configuration key 'trainer.foo'"),
        (["--data.init_args.train_size=many"], "many"),
        (["--modle=x"], "modle"),
        (["--config=none.yaml"], "none.yaml"),
        (["--model.init_args.model.init_args.heads=7"], "96 token features are not divisible by 7 heads"),
        (["--data.init_args.batch_size=0"], "batch_size is 0"),
    ],
)
def test_a_wrong_option_is_named(options, named, tmp_path, capsys):
    assert run("fit", "shapes_vit.yaml", tmp_path / "run", *options) == 2
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert named in sentence


def test_missing_data_is_named(tmp_path, capsys):
    where = f"--data.init_args.root={tmp_path / 'nowhere'}"
    assert run("fit", "flickr8k_soft.yaml", tmp_path / "a", where) == 2
    assert "nowhere" in error_of(capsys)
    assert run("fit", "cifar10_vit.yaml", tmp_path / "b", where, "--data.init_args.download=false") == 2
    assert "nowhere" in error_of(capsys)


def test_a_missing_checkpoint_is_named(tmp_path, capsys):
    assert run("test", "shapes_vit.yaml", tmp_path, *SMALL_SHAPES, "--ckpt_path=none.ckpt") == 2
    assert error_of(capsys) == "error: there is no checkpoint none.ckpt (option --ckpt_path)"


def test_checkpoints_are_checked(captioner_checkpoint, classifier_checkpoint, tmp_path):
    with pytest.raises(InputError, match=r"holds .*Captioner, .*Classifier"):
        load_model(captioner_checkpoint, Classifier)
    with pytest.raises(InputError, match=r"holds .*Classifier, .*Captioner"):
        load_model(classifier_checkpoint, Captioner)
    with pytest.raises(InputError, match="there is no checkpoint"):
        load_model(tmp_path / "none.ckpt", Captioner)
    short = tmp_path / "short.ckpt"
    short.write_bytes(captioner_checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"short.ckpt is damaged \(1000 bytes\)"):
        load_model(short, Captioner)
    short.write_bytes(b"")
    with pytest.raises(InputError, match="damaged"):
        load_model(short, Captioner)
    torch.save({"weights": torch.zeros(1)}, short)
    with pytest.raises(InputError, match="has no model configuration"):
        load_model(short, Captioner)
