"""The benchmark's statistics, with fake clocks; and every benchmark runs. Nothing is timed."""

import functools
import json

import numpy as np
import pytest
import torch

from visattn.attention import GeneralScore, SoftAttention
from visattn.cli import benchmark
from visattn.errors import InputError
from visattn.models import LSTMDecoder
from visattn.studies.benchmarks import captioner, growth, overlays, reward
from visattn.studies.benchmarks.arithmetic import PRODUCT, Product, count
from visattn.studies.benchmarks.report import Report, Table
from visattn.studies.benchmarks.sentences import sentences, zipf
from visattn.studies.benchmarks.setting import Setting
from visattn.studies.benchmarks.timing import Spread, Times, take_turns
from visattn.training.objectives import CaptionLoss
from visattn.vocabulary import END, PAD, START, UNKNOWN


class Clock:
    """A fake clock, which is advanced explicitly."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now

    def run(self, name, *seconds):
        """A run that takes these numbers of seconds, one after another."""
        left = iter(seconds)

        def go():
            self.log.append(name)
            self.now += next(left)

        return go

    def wait(self):
        self.log.append("wait")


def test_runs_take_turns_each_first_in_its_turn_and_the_first_round_is_not_counted():
    clock = Clock()
    runs = {"a": clock.run("a", 100, 2, 3), "b": clock.run("b", 200, 5, 7), "c": clock.run("c", 300, 11, 13)}
    times = take_turns(runs, 2, clock=clock)
    assert times.seconds == {"a": [2, 3], "b": [5, 7], "c": [11, 13]}
    assert clock.log == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_pending_work_is_awaited_before_and_within_the_timing():
    clock = Clock()

    def wait():
        clock.log.append("wait")
        clock.now += 10  # what the device still had to do

    times = take_turns({"a": clock.run("a", 1, 2)}, 1, wait, clock)
    assert clock.log == ["wait", "a", "wait"] * 2
    assert times.seconds == {"a": [12]}


def test_numbers_are_medians_of_rounds_with_their_spread():
    times = Times({"ours": [2.0, 4.0, 10.0], "theirs": [6.0, 4.0, 50.0], "another": [5.0, 5.0, 5.0]})
    assert times.spread("ours") == Spread(4, 2, 10)
    assert times.rate("ours", 20) == Spread(5, 2, 10)
    assert times.ratio("theirs", "ours") == Spread(3, 1, 5)  # of the same round; of the medians it would be 1.5
    assert times.ratio("ours", "ours") == Spread(1, 1, 1)
    assert times.fastest(["theirs", "another"]) == "another"
    assert times.spread("ours").times(3) == Spread(12, 6, 30)
    assert f"{Spread(0.5, 0.25, 1.0):.0%}" == "50% (25%–100%)"


def test_a_share_is_the_time_of_the_products_at_the_measured_rate():
    product = Product(run=lambda: None, flops=1000)
    times = Times({PRODUCT: [1.0, 2.0, 4.0], "run": [10.0, 10.0, 10.0]})
    # 500 operations take half of what the product takes: 0.5, 1 and 2 of 10 seconds.
    assert product.share(times, "run", 500) == Spread(0.1, 0.05, 0.2)
    real = Product.of(Setting.of("cpu", "bf16", 1), 7)
    assert real.run().dtype == torch.bfloat16
    assert real.run().shape == (7, 7)
    assert real.flops == 2 * 7**3


def test_products_are_counted_as_in_the_equations():
    B, L, D, H, E, V, T = 2, 6, 7, 5, 3, 23, 4
    attention = functools.partial(SoftAttention, score=GeneralScore)
    decoder, values = LSTMDecoder(V, D, attention, hidden=H, embedding=E), torch.randn(B, L, D)
    tokens = torch.randint(UNKNOWN + 1, V, (B, T + 1))

    def forward():
        return decoder(decoder.prepare(values, (2, 3)), tokens[:, :-1])

    def step():
        CaptionLoss()(*forward(), tokens[:, 1:]).loss.backward()

    of_values = L * D * H + 2 * D * H + T * L * D  # keys; h₀ and c₀; contexts
    of_the_rest = T * (L * H + E * 4 * H + H + (D + H) * 4 * H + H * E + D * E + E * V)  # scores, gates, β, words
    assert count(forward) == 2 * B * (of_values + of_the_rest)
    # Backward there is a product for each of the two factors, but annotation vectors need no gradient.
    assert count(step) == 2 * B * (2 * of_values + 3 * of_the_rest)


def test_a_setting_is_refused_with_the_option_that_is_wrong():
    for words, message in [
        (("tpu", "32", 1), "--device is tpu"),
        (("cpu", "16", 1), "--precision is '16'; it must be one of 32, bf16"),
        (("cpu", "32", 0), "--rounds is 0; it must be at least 1"),
    ]:
        with pytest.raises(InputError, match=message):
            Setting.of(*words)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device is cuda"):
            Setting.of("cuda", "32", 1)


@pytest.mark.parametrize(("precision", "dtype"), [("32", torch.float32), ("bf16", torch.bfloat16)])
def test_every_run_has_the_precision(precision, dtype):
    seen = []
    x = torch.ones(2, 2)
    Setting.of("cpu", precision, 3).time({"a": lambda: seen.append((x @ x).dtype)})
    assert seen == [dtype] * 4


def test_a_report_is_markdown_and_json_with_its_conditions(tmp_path):
    setting = Setting.of("cpu", "bf16", 3)
    rows = {"ours": {"images/s": Spread(2.0, 1.5, 2.25), "how": "by hand"}, "theirs": {"images/s": 1.0}}
    table = Table("Speed", "what", {"images/s": ".1f", "how": ""}, rows, "A note.")
    report = Report("Subject", setting.conditions("numpy", "no-such-package"), [table])
    report.save(tmp_path / "x.json")
    text, data = (tmp_path / "x.md").read_text(), json.loads((tmp_path / "x.json").read_text())
    assert data["tables"][0]["rows"]["ours"]["images/s"] == {"median": 2.0, "least": 1.5, "most": 2.25}
    assert data["tables"][0]["rows"]["theirs"] == {"images/s": 1.0}
    assert "## Speed\n\n| what | images/s | how |\n|---|---:|---:|\n" in text
    assert "| ours | 2.0 (1.5–2.2) | by hand |\n| theirs | 1.0 |  |\n\nA note.\n" in text
    said = data["conditions"]
    assert said["threads"].startswith(f"{torch.get_num_threads()} of ")
    assert "bfloat16" in said["precision"]
    assert "median of 3" in said["rounds"]
    assert f"PyTorch {torch.__version__}" in said["versions"]
    assert f"numpy {np.__version__}" in said["versions"]
    assert "no-such-package" not in said["versions"]
    assert "kept" in said["memory"]
    assert all(f"- {name}: {value}\n" in text for name, value in said.items())


def test_captions_to_train_on_have_the_lengths_that_were_asked_for():
    sizes = captioner.Sizes(words=31, batch=40, batches=5, shortest=3, longest=7)
    tokens = captioner.captions(sizes)
    assert tokens.shape == (200, 9)
    assert (tokens[:, 0] == START).all()
    words = (tokens > UNKNOWN).sum(dim=1)
    assert sorted(words.tolist()) == sorted(40 * [3, 4, 5, 6, 7])
    for row, count_ in zip(tokens.tolist(), words.tolist(), strict=True):
        assert row[count_ + 1 :] == [END] + [PAD] * (7 - count_)


def test_batches_of_one_length_hold_the_same_captions_without_padding():
    tokens = captioner.captions(captioner.Sizes(words=31, batch=40, batches=5, shortest=3, longest=7))
    mixed, alike = (captioner.batches(order, 40) for order in (tokens, captioner.by_length(tokens)))
    said = [
        sorted([token for token in caption if token != PAD] for batch in one for caption in batch.tolist())
        for one in (mixed, alike)
    ]
    assert said[0] == said[1]
    assert [batch.shape for batch in mixed] == 5 * [(40, 9)]
    assert [batch.shape for batch in alike] == [(40, words + 2) for words in (3, 4, 5, 6, 7)]
    assert not any((batch == PAD).any() for batch in alike)


def test_sentences_use_words_unevenly_and_share_runs_of_them():
    words = [f"w{n}" for n in range(100)]
    made = sentences(300, 3, words, changed=0.25)
    assert list(made.references) == list(made.candidates)
    said = [word for each in made.references.values() for caption in each for word in caption]
    shares = zipf(100)
    assert shares.sum() == pytest.approx(1)
    assert said.count("w0") / len(said) == pytest.approx(shares[0], abs=0.02)
    same = [
        np.mean(np.array(caption) == made.candidates[image])
        for image, each in made.references.items()
        for caption in each
    ]
    chance = float((shares**2).sum())  # of two words that were drawn apart
    assert np.mean(same) == pytest.approx(0.75**2 + (1 - 0.75**2) * chance, abs=0.02)
    assert {len(caption) for caption in made.candidates.values()} == set(range(8, 21))


def test_growth_is_milliseconds_of_an_image():
    class Still:
        def time(self, runs):
            seconds = {"a, 3": 0.5, "a, 6": 2.0, "b, 3": 0.25, "b, 6": 1.0}
            return Times({name: [seconds[name]] for name in runs})

    runs = {"a": [None, None], "b": [None, None]}
    drawn, table = growth.Sweep("step", "words", [3, 6], runs, [5, 10], 0.0).time(Still())
    assert drawn.power == 0
    np.testing.assert_allclose([curve.y for curve in drawn.curves], [[100, 200], [50, 100]])
    np.testing.assert_allclose(drawn.curves[0].x, [3, 6])
    assert table.rows["6"]["a"].median == pytest.approx(200)


def test_the_reward_of_a_step_is_timed_within_it():
    (table,) = reward.measure(Setting.of("cpu", "32", 2), reward.QUICK)
    step, own = table.rows["whole step"], table.rows["reward, CIDEr-D"]
    assert 0 < own["share of the step"].least <= own["share of the step"].most < 1
    assert own["ms"].most < step["ms"].most


def test_subplots_are_a_picture_as_large_as_was_asked_for():
    rng = np.random.default_rng(0)
    image = overlays.picture(rng, (31, 41))
    assert image.shape == (31, 41, 3)
    data = overlays.subplots(image, ["a", "b"], rng.random((2, 3, 5)), (210, 370))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert np.frombuffer(data[16:24], ">u4").tolist() == [370, 210]


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("subject", benchmark.SUBJECTS)
def test_every_subject_runs(subject, precision, tmp_path, capsys):
    file, picture = tmp_path / "made" / "numbers.json", tmp_path / "pictures" / "growth.svg"
    words = [subject, "--quick", "--rounds", "1", "--precision", precision, "--output", str(file)]
    assert benchmark.main(words + (["--figure", str(picture)] if subject == "growth" else [])) == 0
    data = json.loads(file.read_text())
    assert data["tables"]
    numbers = [cell for table in data["tables"] for row in table["rows"].values() for cell in row.values()]
    assert all(cell["median"] > 0 for cell in numbers if isinstance(cell, dict))
    assert capsys.readouterr().out == file.with_suffix(".md").read_text()
    assert picture.is_file() == (subject == "growth")


def test_bad_options_are_refused(tmp_path, capsys):
    for words, message in [
        (["vit", "--output", str(tmp_path / "x.md")], "it must end in .json"),
        (["decoding", "--images", "0"], "--images is 0"),
        (["decoding", "--max-length", "0"], "--max-length is 0"),
        (["decoding", "--beam", "0"], "the beam's size is 0"),
        (["maps", "--timm", "no_such_model"], "timm has no model named"),
        (["growth", "--quick", "--figure", str(tmp_path / "x.gif")], "must end in one of"),
    ]:
        assert benchmark.main(words) == 2
        assert message in capsys.readouterr().err


def test_decoding_of_a_checkpoint(captioner_checkpoint, tmp_path, capsys):
    file = tmp_path / "benchmark.json"
    options = ["--images", "8", "--beam", "2", "--rounds", "1", "--max-length", "3", "--output", str(file)]
    assert benchmark.main(["decoding", "--checkpoint", str(captioner_checkpoint), *options]) == 0
    (row,) = json.loads(file.read_text())["tables"][0]["rows"].values()
    together, single, ratio = (row[name]["median"] for name in list(row)[:3])
    assert ratio == pytest.approx(together / single)
    assert "8 images at once" in capsys.readouterr().out


def test_attention_has_a_cost(tmp_path):
    file = tmp_path / "benchmark.json"
    words = ["maps", "--timm", "test_vit", "--images", "2", "--rounds", "1", "--output", str(file)]
    assert benchmark.main(words) == 0
    rows = json.loads(file.read_text())["tables"][0]["rows"]
    assert rows["plain inference"]["cost"]["median"] == 1
    assert rows["relevance of a class"]["cost"]["median"] > 1
