"""Training on the device: compiled, in a process group, resumed, exported."""

import copy
import functools

import pytest
import torch
from conftest import FAST, SMALL_SHAPES
from support.gpu import CUDA, DEVICE, MARKS, ON_DEVICE, apart
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from witness import QUIET, steps, watched

from visattn.cli import main
from visattn.export import load_captioner, load_classifier
from visattn.models import ConvolutionalStem, VisionTransformer
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import load_model, read
from visattn.training.classifier import Classifier

pytestmark = MARKS


def network():
    torch.manual_seed(0)
    stem = functools.partial(ConvolutionalStem, widths=[8, 16])
    model = VisionTransformer(7, (32, 32), patch=4, size=48, depth=2, heads=3, embed=stem)
    torch.nn.init.normal_(model.head.weight, std=0.1)
    return model.to(DEVICE)


def trained(model, count=5):
    """Losses of some steps in bfloat16, with an optimiser that changes weights in place."""
    draw, losses = torch.Generator().manual_seed(2), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(count):
        images, labels = torch.randn(10, 3, 32, 32, generator=draw), torch.randint(7, (10,), generator=draw)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            logits = model(images.to(DEVICE))
        loss = torch.nn.functional.cross_entropy(logits.float(), labels.to(DEVICE))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_network_trains_as_any_other(mode):
    """CUDA graphs are recorded at the second step and replayed from the third."""
    expected, model = trained(network()), network()
    options = {"mode": mode} if CUDA else {"backend": "eager"}
    model.compile(**options)
    assert trained(model) == pytest.approx(expected, rel=0.03)


def test_one_process_of_a_group_has_the_gradients_of_none(tmp_path):
    """NCCL on CUDA, gloo on a CPU."""
    plain = network()
    trained(plain, 1)
    where = f"file://{tmp_path / 'group'}"
    distributed.init_process_group("nccl" if CUDA else "gloo", init_method=where, rank=0, world_size=1)
    try:
        model = network()
        trained(DistributedDataParallel(model, device_ids=[DEVICE.index or 0] if CUDA else None), 1)
    finally:
        distributed.destroy_process_group()
    gradients = zip(model.parameters(), plain.parameters(), strict=True)
    assert max(apart(own.grad, other.grad) for own, other in gradients) < 0.02


class Killed(BaseException):
    """What ends a run in the middle."""


def test_a_run_on_the_device_is_resumed(cifar_root, tmp_path):
    """Its data on the device, too. Sums there have no fixed order, so losses are near, and images the same."""
    configs = [word for name in ("60s", "5min") for word in ("--config", f"cifar10/gpu_{name}")]
    small = ["--model.model.size=24", "--model.model.depth=2", "--model.model.embed.widths=[8,8]"]
    data = [f"--data.root={cifar_root}", "--data.download=false", "--data.batch_size=15", "--data.val_fraction=0.1"]
    short = ["--trainer.callbacks=[]", "--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=2"]
    words = ["fit", *configs, *QUIET, *small, *data, *short, "--trainer.precision=32-true", *ON_DEVICE]

    def kill(step):
        if step == 8:
            raise Killed

    with watched(tmp_path / "expected"):
        assert main([*words, f"--output={tmp_path / 'whole'}"]) == 0
    run = [*words, f"--output={tmp_path / 'run'}", "--last.every_steps=4"]
    with watched(tmp_path / "record", kill), pytest.raises(Killed):
        main(run)
    with watched(tmp_path / "record"):
        assert main([*run, "--resume=auto"]) == 0
    expected, found = steps(tmp_path / "expected"), steps(tmp_path / "record")
    assert [entry[:2] for entry in found] == [entry[:2] for entry in expected]
    losses = [[float.fromhex(entry[2]) for entry in run] for run in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    ends = (read(tmp_path / name / "last.ckpt")["state_dict"] for name in ("run", "whole"))
    assert max(apart(*pair) for pair in zip(*(end.values() for end in ends), strict=True)) < 0.05


@pytest.mark.parametrize("kind", ["classifier", "captioner"])
def test_a_checkpoint_of_the_device_is_exported(kind, tmp_path):
    config = {"classifier": "shapes_vit", "captioner": "shapes_captioner"}[kind]
    words = ["--config", config, *FAST, *SMALL_SHAPES, f"--output={tmp_path}", *ON_DEVICE]
    assert main(["fit", *words]) == 0
    assert main(["export", "--checkpoint", str(tmp_path / "best.ckpt"), "--output", str(tmp_path / "model")]) == 0
    images = torch.randint(256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        if kind == "classifier":
            trained, exported = load_model(tmp_path / "best.ckpt", Classifier), load_classifier(tmp_path / "model")
            expected, pixels = trained(images), exported.normalise(images)
            assert torch.equal(exported.model(pixels), expected)
            moved = copy.deepcopy(exported.model).to(DEVICE)(pixels.to(DEVICE))
        else:
            trained, exported = load_model(tmp_path / "best.ckpt", Captioner), load_captioner(tmp_path / "model")
            expected = trained.encoder(images)[0]
            assert torch.equal(exported.encoder(images)[0], expected)
            moved = copy.deepcopy(exported.encoder).to(DEVICE)(images.to(DEVICE))[0]
    assert apart(moved, expected) < 0.01
