"""Supervised attention: the loss term, the regions in a batch, and training."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CONFIGS, FAST, SMALL_SHAPES
from torch.nn import functional as F

from visattn.attention import Glimpse, SoftAttention
from visattn.cli import main
from visattn.data import ShapesCaptions
from visattn.data.captions import _Captions
from visattn.data.views import View
from visattn.errors import InputError
from visattn.images import CellShift, Geometry
from visattn.models import LuongDecoder
from visattn.training.objectives import CaptionLoss
from visattn.training.objectives.likelihood import supervision_penalty
from visattn.vocabulary import END, PAD

GRID = (3, 5)


def cells_of(size, shift):
    """Cells that divide an image evenly and look beside themselves."""
    return CellShift(shift, tuple(n / g for n, g in zip(size, GRID, strict=True)), ((0.0, 0.0), size))


def test_the_penalty_by_hand():
    weights = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]])
    regions = torch.tensor([[[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]], [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]])
    expected = [0.5 * math.log(2) + 0.5 * math.log(4), math.log(2)]
    torch.testing.assert_close(supervision_penalty(weights, regions), torch.tensor(expected))


def test_it_is_least_where_attention_is_the_region():
    logits = torch.randn(1, 1, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    region = F.normalize(torch.tensor([[[1.0, 0, 3, 0, 0, 2, 0]]]), p=1, dim=-1)
    supervision_penalty(logits.softmax(-1), region).sum().backward()
    torch.testing.assert_close(logits.grad, logits.detach().softmax(-1) - region)


def test_the_loss_adds_it_per_token():
    generator = torch.Generator().manual_seed(1)
    logits, targets = torch.randn(2, 3, 11, generator=generator), torch.tensor([[5, 6, END], [7, END, PAD]])
    weights = torch.randn(2, 3, 13, generator=generator).softmax(-1)
    glimpses = Glimpse(weights[..., :1], weights, weights, weights[..., 0] * 0, weights[..., 0] * 0 + 1)
    regions = torch.zeros(2, 3, 13)
    regions[0, 1, 4] = 1
    plain, told = (CaptionLoss(0.0, supervision=w)(logits, glimpses, targets, regions) for w in (0.0, 2.5))
    assert plain.supervision == 0
    torch.testing.assert_close(told.supervision, -weights[0, 1, 4].log() / 5)
    torch.testing.assert_close(told.loss, plain.loss + 2.5 * told.supervision)
    assert CaptionLoss(0.0, supervision=2.5)(logits, glimpses, targets).loss == plain.loss
    with pytest.raises(InputError, match="supervision is -1"):
        CaptionLoss(supervision=-1)


def test_a_batch_says_where_each_word_is():
    data = ShapesCaptions(train_size=7, val_size=2, test_size=2)
    size, shifted = data.image_size, cells_of(data.image_size, (3.0, -2.0))
    data.places = GRID, shifted
    captions = _Captions(data, "train")
    batch = captions.batch(np.arange(len(captions.lengths)))
    assert batch.regions.shape == (*batch.tokens[:, 1:].shape, GRID[0] * GRID[1])
    words, cells = data.vocabulary, Geometry.identity(size)._replace(cell_shift=shifted).edges(GRID)
    known = 0
    for row, image in enumerate(batch.owner.tolist()):
        said = [words[i] for i in batch.tokens[row, 1:].tolist() if i > END]
        for t, mask in enumerate(data.regions(batch.ids[image], said)):
            region = batch.regions[row, t].view(GRID).numpy()
            if mask is None:
                assert not region.any()
                continue
            known += 1
            assert region.sum() == pytest.approx(1)
            # By hand, pixel by pixel: in which cell is the middle of each pixel of the thing?
            rows, columns = np.nonzero(mask)
            inside = [np.digitize(at + 0.5, edge) - 1 for at, edge in zip((rows, columns), cells, strict=True)]
            counts = np.zeros(GRID)
            for r, c in zip(*inside, strict=True):
                if 0 <= r < GRID[0] and 0 <= c < GRID[1]:
                    counts[r, c] += 1
            assert np.abs(region - counts / counts.sum()).sum() < 0.25
        assert not batch.regions[row, len(said) :].any()
    assert known > 50
    assert next(iter(data.val_dataloader())).regions is None  # nothing would look at them


def test_regions_of_a_mirrored_image_are_mirrored():
    data = ShapesCaptions(train_size=5, val_size=2, test_size=2)
    data.places = GRID, cells_of(data.image_size, (0.0, 0.0))
    captions = _Captions(data, "train")
    found = 0
    for pair in range(11):
        plain, turned = captions._regions_of(pair, View()), captions._regions_of(pair, View(mirrored=True))
        for one, other in zip(plain, turned, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                found += 1
                torch.testing.assert_close(one.view(GRID).flip(1), other.view(GRID), rtol=0, atol=1e-6)
    assert found > 20


def test_attention_learns_the_supervised_regions():
    torch.manual_seed(2)
    places, size, vocabulary = 17, 12, 19
    values, tokens = torch.randn(1, places, size), torch.tensor([[1, 7, 9, 11, END]])
    regions = torch.zeros(1, 4, places)
    for t, place in enumerate((3, 16, 0)):
        regions[0, t, place] = 1
    decoder = LuongDecoder(vocabulary, size, SoftAttention, 29, 13, 0.0)
    optimizer, loss = torch.optim.Adam(decoder.parameters(), 0.01), CaptionLoss(0.0, supervision=1.0)
    for _ in range(80):
        logits, glimpses = decoder(decoder.prepare(values, (1, places)), tokens[:, :-1])
        optimizer.zero_grad()
        loss(logits, glimpses, tokens[:, 1:], regions).loss.backward()
        optimizer.step()
    attended = (glimpses.weights * regions).sum(-1)[0, :3]
    assert (attended > 0.9).all()


def test_a_training_is_supervised_by_a_number(tmp_path, karpathy_root, capsys):
    words = ["fit", "--config", str(CONFIGS / "shapes_captioner.yaml"), *FAST, *SMALL_SHAPES]
    assert main([*words, "--model.loss.supervision=0.5", f"--output={tmp_path / 'run'}"]) == 0
    with Path(tmp_path / "run/logs/version_0/metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["train/supervision"]]
    for row in logged:
        assert float(row["train/supervision"]) > 0.5
        total = float(row["train/cross_entropy"]) + 0.5 * float(row["train/supervision"])
        assert float(row["train/loss"]) == pytest.approx(total, rel=1e-4)
    assert len(logged) == 2
    options = ["--data.init_args.image_size=64", "--data.init_args.min_count=1", "--data.init_args.workers=0"]
    options += ["--features=none", "--model.encoder.weights=random", f"--data.root={karpathy_root}", *FAST]
    words = ["fit", "--config", str(CONFIGS / "flickr8k_soft.yaml"), *options, f"--output={tmp_path / 'no'}"]
    assert main([*words, "--model.loss.supervision=0.5"]) == 2
    said = capsys.readouterr().err
    assert "dataset_flickr8k.json" in said
    assert "--data.instances" in said
    assert not list((tmp_path / "no").rglob("*.ckpt"))
    critical = ["--config", str(CONFIGS / "training" / "self_critical.yaml"), f"--output={tmp_path / 'critical'}"]
    words = ["fit", "--config", str(CONFIGS / "shapes_captioner.yaml"), *critical, *FAST, *SMALL_SHAPES]
    assert main([*words, "--model.loss.supervision=0.5"]) == 2
    assert "SelfCritical" in capsys.readouterr().err
