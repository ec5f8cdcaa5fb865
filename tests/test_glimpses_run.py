"""The glimpse model in the commands: fit, resume, test, overlay, export, glimpses."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from support.viewing import data_of, weights_of
from witness import steps, watched

from visattn.cli import main
from visattn.data import ShapesCluttered
from visattn.export import load_classifier, load_glimpses
from visattn.studies.glimpses import Setting, train
from visattn.training.checkpoints import load_model, read
from visattn.training.glimpses import GlimpseClassifier

TINY = """
data:
  init_args: {train_size: 26, val_size: 7, test_size: 5, batch_size: 13, image_size: [37, 37], padding: 3, clutter: 2}
model:
  init_args:
    model:
      init_args:
        glimpses: 3
        hidden: 11
        sensor: {class_path: visattn.models.Retina, init_args: {size: 5, scales: 2}}
        glimpse: {class_path: visattn.models.GlimpseNetwork, init_args: {widths: [3], where: 2}}
        context: {class_path: visattn.models.ContextNetwork, init_args: {side: 7, widths: [3]}}
trainer:
  {max_epochs: 2, accelerator: cpu, log_every_n_steps: 1, enable_progress_bar: false, enable_model_summary: false}
"""

OWN = """
import torch
from visattn.models import LocationPolicy, Sensor
from visattn.models.glimpses import Fixation

class Corner(LocationPolicy):
    def __init__(self, state_size, at=-0.5):
        super().__init__()
        self.at = at

    def forward(self, state, t):
        return Fixation.fixed(torch.full((len(state), 2), self.at))

class Mean(Sensor):
    channels, size, squares = 3, 2, (2,)

    def __init__(self, image_size):
        super().__init__()

    def forward(self, images, locations):
        return images.mean(dim=(2, 3), keepdim=True).expand(-1, -1, 2, 2)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a tiny configuration and a run of two epochs."""
    folder = tmp_path_factory.mktemp("glimpses")
    (folder / "tiny.yaml").write_text(TINY)
    assert fit(folder, "whole") == 0
    return folder


def fit(folder, output, *more):
    config = ["--config", "shapes_glimpse", "--config", str(folder / "tiny.yaml")]
    return main(["fit", *config, "--output", str(folder / output), *more])


def test_a_run_that_is_killed_ends_as_one_that_was_not(run):
    class Killed(BaseException):
        """What a kill leaves of a process: nothing is saved or put in order."""

    def before(step):
        if step == 3:
            raise Killed

    with watched(run / "whole.record"):
        assert fit(run, "again", "--last.every_steps=1") == 0
    with watched(run / "parts.record", before), pytest.raises(Killed):
        fit(run, "parts", "--last.every_steps=1")
    assert read(run / "parts" / "last.ckpt")["global_step"] == 3
    with watched(run / "parts.record"):
        assert fit(run, "parts", "--last.every_steps=1", "--resume=auto") == 0
    assert steps(run / "parts.record") == steps(run / "whole.record")
    whole, parts = (read(run / name / "last.ckpt")["state_dict"] for name in ("again", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_scores_of_each_glimpse_are_logged(run, capsys):
    checkpoint = str(run / "whole" / "last.ckpt")
    config = ["--config", "shapes_glimpse", "--config", str(run / "tiny.yaml")]
    assert main(["test", *config, "--ckpt_path", checkpoint, "--output", str(run / "tested")]) == 0
    said = capsys.readouterr().out
    for name in ("test/accuracy_1", "test/accuracy_3", "test/accuracy", "test/seen", "test/loss"):
        assert name in said


def test_the_overlay_shows_fixations_on_the_original_pixels(run, capsys):
    Image.fromarray(np.arange(74 * 74 * 3, dtype=np.uint8).reshape(74, 74, 3)).save(run / "scene.png")
    checkpoint, output = run / "whole" / "last.ckpt", run / "scans"
    words = ["overlay", "--checkpoint", str(checkpoint), "--output", str(output), "--device", "cpu"]
    assert main([*words, "--export", "sheet,gif,npz,svg", str(run / "scene.png")]) == 0
    (entry,) = json.loads((output / "classes.json").read_text())
    assert entry["files"] == ["scene.png", "scene.svg", "scene.gif", "scene.npz"]
    assert entry["class"] == entry["glimpses"][-1]["class"]
    with Image.open(output / "scene.gif") as gif:
        assert gif.n_frames == 1 + 3
    arrays = np.load(output / "scene.npz")
    assert arrays["glimpses"].shape == (3, 2, 5, 5, 3)
    model = load_model(checkpoint, GlimpseClassifier)
    with Image.open(run / "scene.png") as image:
        small = torch.from_numpy(np.array(model.input.fit_image(image.convert("RGB"))[0])).permute(2, 0, 1)[None]
    expected = (model.scan(small).locations[0] + 1) / 2 * 74
    np.testing.assert_allclose(arrays["locations"], expected.detach().numpy(), atol=1e-3)
    for option in ("--method=raw", "--scale=own", "--contour=0.5", "--colour-map=gray", "--workers=0"):
        assert main([*words, option, str(run / "scene.png")]) == 2
        assert f"{option.partition('=')[0]} is for Vision Transformers" in capsys.readouterr().err


def test_the_viewer_plays_the_scan(run):
    """What is framed is the inner square, and it is sharp; the outer one is less so by the share of numbers read."""
    Image.fromarray(np.arange(37 * 74 * 3, dtype=np.uint8).reshape(37, 74, 3)).save(run / "wide.png")
    words = ["overlay", "--checkpoint", str(run / "whole" / "last.ckpt"), "--output", str(run / "viewed")]
    assert main([*words, "--device", "cpu", "--export", "npz", str(run / "wide.png")]) == 0
    assert main(["view", str(run / "viewed"), "--output", str(run / "viewed.html")]) == 0
    (reading,) = data_of((run / "viewed.html").read_text())["scenes"][0]["readings"]
    entry = json.loads((run / "viewed" / "classes.json").read_text())[0]
    assert reading["unit"] == "fixation"
    assert reading["words"] == [step["class"] for step in entry["glimpses"]]
    np.testing.assert_allclose(
        np.exp(reading["logProbs"]), [step["probability"] for step in entry["glimpses"]], rtol=1e-5
    )
    top, left, bottom, right = reading["boxes"][1]
    y, x = entry["glimpses"][1]["location"]
    np.testing.assert_allclose([(top + bottom) / 2 * 37, (left + right) / 2 * 74], [y, x], atol=0.06)
    np.testing.assert_allclose([(bottom - top) * 37, (right - left) * 37], [5, 5], atol=1e-5)
    sharp = weights_of(reading["maps"][0])[1, 0, 0]
    assert sharp.shape == (37, 37)
    assert sharp[int(y), int(x / 2)] == 1
    np.testing.assert_allclose(np.unique(sharp), [0, 0.25, 1], atol=1 / 510)
    assert (sharp == 1).sum() in (20, 25, 30, 36)
    arrays = dict(np.load(run / "viewed" / "wide.npz"))
    for name, broken in (("locations", arrays["locations"][:2]), ("confidence", np.full(3, np.nan))):
        np.savez(run / "viewed" / "wide.npz", **(arrays | {name: broken}))
        assert main(["view", str(run / "viewed"), "--output", str(run / "viewed.html")]) == 2


def test_an_exported_model_is_the_same_without_lightning(run):
    checkpoint = run / "whole" / "last.ckpt"
    assert main(["export", "--checkpoint", str(checkpoint), "--output", str(run / "exported")]) == 0
    exported, model = load_glimpses(run / "exported"), load_model(checkpoint, GlimpseClassifier)
    images = torch.randint(256, (2, 3, 37, 37), generator=torch.Generator().manual_seed(0)).byte()
    with torch.no_grad():
        assert torch.equal(exported.model(exported.normalise(images)), model(images))
        assert torch.equal(load_model(run / "exported", GlimpseClassifier)(images), model(images))  # as a checkpoint
    with pytest.raises(Exception, match="glimpses"):
        load_classifier(run / "exported")


def test_own_sensors_and_policies_work_through_import(run):
    (run / "own_glimpses.py").write_text(OWN)
    own = ["--import", str(run / "own_glimpses.py"), "--model.init_args.model.init_args.policy", "own_glimpses.Corner"]
    own += ["--model.init_args.model.init_args.sensor", "own_glimpses.Mean"]
    assert fit(run, "own", *own) == 0
    model = load_model(run / "own" / "last.ckpt", GlimpseClassifier)
    assert (model.scan(torch.zeros(2, 3, 37, 37)).locations == -0.5).all()


def test_learned_stopping_is_reported_shown_and_exported(run):
    stop = ["--model.init_args.model.init_args.stop=true", "--model.init_args.loss.init_args.price=0.01"]
    assert fit(run, "stopping", *stop) == 0
    checkpoint = str(run / "stopping" / "last.ckpt")
    config = ["--config", "shapes_glimpse", "--config", str(run / "tiny.yaml")]
    assert main(["test", *config, "--ckpt_path", checkpoint, "--output", str(run / "stopped")]) == 0
    report = json.loads((run / "stopped" / "stopping_test.json").read_text())
    assert report["images"] == 5
    assert report["fixed"]["glimpses"] == [1, 2, 3]
    assert 1 <= report["stopped"]["glimpses"] <= 3
    assert report["learned"]["glimpses"][-1] == report["confidence"]["glimpses"][-1] == 3
    assert (run / "stopped" / "stopping_test.png").is_file()

    assert main(["export", "--checkpoint", checkpoint, "--output", str(run / "stopping_exported")]) == 0
    exported, model = load_glimpses(run / "stopping_exported"), load_model(checkpoint, GlimpseClassifier)
    images = torch.randint(256, (2, 3, 37, 37), generator=torch.Generator().manual_seed(0)).byte()
    with torch.no_grad():
        assert torch.equal(exported.model(exported.normalise(images)), model(images))

    Image.fromarray(np.arange(37 * 37 * 3, dtype=np.uint8).reshape(37, 37, 3)).save(run / "small.png")
    words = ["overlay", "--checkpoint", checkpoint, "--output", str(run / "short"), "--device", "cpu"]
    assert main([*words, "--export", "npz", str(run / "small.png")]) == 0
    shown = np.load(run / "short" / "small.npz")["locations"]
    pixels = torch.from_numpy(np.array(Image.open(run / "small.png"))).permute(2, 0, 1)[None]
    assert len(shown) == model.scan(pixels).taken().item()


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--model.init_args.model.init_args.stop=true", "loss.price"),
        ("--model.init_args.loss.init_args.price=0.01", "model.stop"),
        ("--model.init_args.model.init_args.glimpses=0", "glimpses is 0"),
        ("--model.init_args.model.init_args.sensor.init_args.scales=5", "largest square"),
        ("--model.init_args.loss.init_args.cost=time", "cost"),
    ],
)
def test_options_out_of_range_end_in_one_sentence(run, capsys, option, named):
    assert fit(run, "wrong", option) == 2
    assert named in capsys.readouterr().err


def test_the_study_measures_accuracy_and_work(tmp_path, capsys):
    words = ["glimpses", "--scenes", "64", "--test-scenes", "12", "--steps", "1", "--seeds", "0", "--glimpses", "2"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "work.png").is_file()
    results = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    learned, random, whole = (results[name][0] for name in ("learned", "random", "whole"))
    assert len(learned["accuracy"]) == 2
    assert np.isclose(random["multiply_adds"][1], 2 * random["multiply_adds"][0])
    assert learned["multiply_adds"][0] > random["multiply_adds"][0]
    assert whole["values"] == [1.0]
    assert learned["values"][1] == pytest.approx((2 * 2 * 144 + 256) / 128**2, abs=1e-5)
    assert main([*words, "--models", "wise", "--output", str(tmp_path / "no")]) == 2
    assert "wise" in capsys.readouterr().err


def test_the_study_trains_with_an_easier_question_first(tmp_path, capsys):
    colour, shape = (
        ShapesCluttered(70, test_size=12, question=question, batch_size=5) for question in ("colour", "shape")
    )
    before = train("learned", Setting(glimpses=2, steps=3), colour, seed=1)
    after = train("learned", Setting(glimpses=2, steps=2, easier=3, policy=0), shape, seed=1, easier=colour)
    for place in ("policy.mean.weight", "locator.weight_hh", "context.trunk.project.bias"):  # policy: 0 keeps them
        assert torch.equal(after.state_dict()[place], before.state_dict()[place]), place
    assert not torch.equal(after.core.weight_hh, before.core.weight_hh)
    assert len(after.head.weight) == len(shape.class_names) != len(colour.class_names)

    words = ["glimpses", "--scenes", "64", "--test-scenes", "12", "--steps", "1", "--seeds", "0", "--glimpses", "2"]
    words += ["--models", "whole", "--output", str(tmp_path / "out"), "--colour-first", "1"]
    assert main(words) == 2
    assert "--colour-first" in capsys.readouterr().err
    assert main([*words, "--question", "mark", "--std", "0.1"]) == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["setting"]["easier"] == 1
