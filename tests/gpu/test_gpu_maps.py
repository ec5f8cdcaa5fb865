"""Recorded attention under each fused kernel of the device."""

import re

import pytest
import timm
import torch
from support.gpu import DEVICE, MARKS, apart
from torch.nn.attention import SDPBackend, sdpa_kernel

from visattn.explain import ViT, record

pytestmark = MARKS

KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH]


def vit(device):
    torch.manual_seed(0)
    options = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 96, "num_heads": 3, "num_classes": 7}
    return timm.create_model("vit_tiny_patch16_224", **options).eval().to(device)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_recorded_weights_are_those_of_the_plain_model(kernel):
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    plain, model, seen = vit(torch.device("cpu")), vit(DEVICE), []
    for block in plain.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        logits = plain(images)

    def run():
        with torch.no_grad(), torch.autocast(DEVICE.type, torch.bfloat16), sdpa_kernel(kernel):
            return model(images.to(DEVICE))

    try:
        alone = run()
    except RuntimeError as error:
        if not re.search("No (available kernel|viable backend)", str(error)):
            raise
        pytest.skip(f"{DEVICE} has no kernel {kernel.name}")
    with record(model) as attention:
        recorded = run()
    assert torch.equal(recorded, alone)
    assert apart(recorded, logits) < 0.05
    assert len(attention) == len(seen) == 2
    for act, expected in zip(attention, seen, strict=True):
        weights = act.weights()
        assert weights.dtype == torch.float32
        assert torch.allclose(weights.sum(-1), torch.ones_like(weights.sum(-1)), atol=1e-5)
        assert apart(weights, expected) < 0.05


def test_maps_on_the_device_are_those_of_the_cpu():
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected = ViT(vit(torch.device("cpu"))).maps(images)
    found = ViT(vit(DEVICE)).maps(images.to(DEVICE))
    assert max(apart(*pair) for pair in zip(found, expected, strict=True)) < 1e-3
