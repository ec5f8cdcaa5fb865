"""Families of timm that attend in windows, to pooled keys or on several grids: maps against their own arithmetic.

What a family computes without fused kernels is caught where it takes its softmax, and laid out by hand.
"""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import maxxvit, nest, swin_transformer
from torch.nn import functional as F

from visattn.cli import main
from visattn.errors import InputError
from visattn.explain import GradientRollout, Layered, Raw, Relevance, ViT, as_read, record, timm_subject
from visattn.overlay import heatmap

SWIN = {"img_size": (32, 64), "window_size": 4, "depths": (2, 1), "embed_dim": 12, "num_heads": (2, 3)}


def mean(w, grid):
    """The mean over all queries, keys in reading order: (B, heads, N, H W) to (B, heads, H, W)."""
    return w.mean(-2).unflatten(-1, grid)


def row(w, grid, prefix=1):
    """The first query's, keys after some of no place."""
    return w[..., 0, prefix:].unflatten(-1, grid)


def windows(w, grid, size, shift=(0, 0), back=maxxvit.window_reverse):
    """Windows (B P, heads, N, M) on a grid, their weight all together 1; padding is cut off, and a shift undone."""
    padded = [-(-n // s) * s for n, s in zip(grid, size, strict=True)]
    count = padded[0] * padded[1] // (size[0] * size[1])
    real = torch.zeros(1, *padded, 1)
    real[:, : grid[0], : grid[1]] = 1
    real = swin_transformer.window_partition(real, size).flatten(1).repeat(len(w) // count, 1)  # which queries count
    received = (w * real[:, None, :, None]).sum(-2) / (grid[0] * grid[1])
    laid = back(received.transpose(1, 2).unflatten(1, size), size, padded)[:, : grid[0], : grid[1]]
    return laid.roll(shift, (1, 2)).permute(0, 3, 1, 2)


def of_swin(model, ws):
    blocks = [block for stage in model.layers for block in stage.blocks]
    assert any(any(block.shift_size) for block in blocks)
    return [
        windows(w, block.input_resolution, block.window_size, block.shift_size)
        for block, w in zip(blocks, ws, strict=True)
    ]


def of_pvt(model, ws):
    return [mean(w, (2, 3)) for w in ws]


def of_twins(model, ws):
    out = []
    for n, w in enumerate(ws):
        grid = [(24, 40), (12, 20), (6, 10), (3, 5)][n // 2]
        if n % 2:
            out.append(mean(w, (3, 5)))
        else:  # (B, windows, heads, N, M)
            out.append(windows(w.flatten(0, 1), grid, (7, 7)))
    return out


def of_cait(model, ws):
    mixed = [
        block.attn.proj_w(w.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        for block, w in zip(model.blocks, ws[:2], strict=True)
    ]
    return [*(mean(w, (3, 5)) for w in mixed), *(row(w, (3, 5)) for w in ws[2:])]


def of_xcit(model, ws):
    return [row(w, (3, 5)) for w in ws[-2:]]


def of_pit(model, ws):
    grids = {50: (7, 7), 17: (4, 4), 5: (2, 2)}
    return [row(w, grids[w.shape[-1]]) for w in ws]


def of_maxvit(model, ws):
    out = []
    for stage, grid in zip(model.stages, [(16, 24), (8, 12), (4, 6), (2, 3)], strict=True):
        for _ in stage.blocks:
            for back in (maxxvit.window_reverse, maxxvit.grid_reverse):
                out.append(windows(ws[len(out)], grid, (2, 3), back=back))
    return out


def of_nest(model, ws):
    out = []
    for n, w in enumerate(ws):  # (B, heads, blocks, N, M)
        blocks = w.mean(-2).permute(0, 2, 3, 1)
        side = int(w.shape[-1] ** 0.5)
        laid = nest.deblockify(blocks, side).permute(0, 3, 1, 2) / w.shape[2]
        assert laid.shape[-1] == 16 >> min(n // 2, 2)
        out.append(laid)
    return out


def of_hiera(model, ws):
    out = []
    for number, (block, w) in enumerate(zip(model.blocks, ws, strict=True)):
        received = w.mean(-2)  # (B, heads, units, M), or (B, heads, M) where it is global
        if received.dim() == 4:
            units = received.shape[2]
            received = received.transpose(2, 3).flatten(2) / units  # tokens are (position in a unit, unit)
        laid = model.reroll(received.transpose(1, 2), max(number - 1, 0) if block.attn.q_stride > 1 else number)
        out.append(laid.permute(0, 3, 1, 2))
    return out


def of_mobilevit(model, ws):
    out, grids = [], {24: (4, 6), 6: (2, 3)}
    for w in ws:
        if w.shape[-1] not in grids:
            continue  # 2×3 places, resized to 2×4 before they are made patches: no key has one place
        grid = grids[w.shape[-1]]
        received = w.mean(-2).unflatten(0, (-1, 2, 2)).unflatten(-1, grid) / 4  # (B, 2, 2, heads, H, W)
        out.append(received.permute(0, 3, 4, 1, 5, 2).flatten(4).flatten(2, 3))
    return out


def of_sam(model, ws):
    ws = [w.unflatten(0, (-1, 2)) for w in ws]
    return [windows(ws[0], (5, 7), (3, 3)), mean(ws[1], (5, 7)), windows(ws[2], (5, 7), (3, 3))]


def of_volo(model, ws):
    ws = [w for w in ws if w.dim() == 4]  # outlook attention is no comparison of queries with keys
    return [row(w, (4, 6)) if w.shape[-2] == 1 else mean(w, (4, 6)) for w in ws]


def of_convit(model, ws):
    (patch, place), (again, there), last = ws[:2], ws[2:4], ws[4]
    out = []
    for block, a, b in zip(model.blocks, (patch, again), (place, there), strict=False):
        gate = block.attn.gating_param.view(1, -1, 1, 1).sigmoid()
        mixed = (1 - gate) * a + gate * b
        out.append(mean(mixed / mixed.sum(-1, keepdim=True), (3, 3)))
    return [*out, row(last, (3, 3))]


def of_davit(model, ws):
    spatial = [w for w in ws if w.shape[-1] == 49]
    return [windows(w, g, (7, 7)) for w, g in zip(spatial, [(16, 24), (8, 12), (4, 6), (2, 3)], strict=True)]


def of_gcvit(model, ws):
    grids = [16] * 2 + [8] * 2 + [4] * 6 + [2] * 2
    return [windows(w, (n, n), (int(w.shape[-1] ** 0.5),) * 2) for w, n in zip(ws, grids, strict=True)]


def of_tiny_vit(model, ws):
    grids = [8] * 2 + [4] * 6 + [2] * 2
    return [windows(w, (n, n), (int(w.shape[-1] ** 0.5),) * 2) for w, n in zip(ws, grids, strict=True)]


def of_tnt(model, ws):
    out = []
    for w in ws:
        if len(w) == 2:
            out.append(row(w, (3, 5)))
        else:  # pixels of patches
            out.append(windows(w, (12, 20), (4, 4)))
    return out


def of_naflex(model, ws):
    return [w[..., 4:, 4:].mean(-2).unflatten(-1, (3, 3)) for w in ws]


def of_levit(model, ws):
    return [mean(w, (int(w.shape[-1] ** 0.5),) * 2) for w in ws]


def of_mvit(model, ws):
    return of_levit(model, ws)


def of_csatv2(model, ws):
    return [mean(w, (4, 6) if w.shape[-1] == 24 else (2, 3)) for w in ws if w.dim() == 4]  # the others: of the batch


def of_visformer(model, ws):
    return [mean(w, {24: (4, 6), 6: (2, 3)}[w.shape[-1]]) for w in ws]


def of_crossvit(model, ws):
    return [row(w, {401: (20, 20), 197: (14, 14)}[w.shape[-1]]) for w in ws]


def of_patches(model, ws):
    return [w[..., 1:, 1:].mean(-2).unflatten(-1, (3, 5)) for w in ws]


def of_parallel(model, ws):
    return [row(w, (3, 5)) for w in ws]


# name of timm, options, (h, w), layers laid out by hand
FAMILIES = {
    "swin": ("swin_tiny_patch4_window7_224", SWIN, (32, 64), of_swin),
    "swinv2": ("swinv2_tiny_window8_256", SWIN, (32, 64), of_swin),
    "pvt": ("pvt_v2_b0", {"depths": (1, 1, 1, 1)}, (64, 96), of_pvt),
    "cait": ("cait_xxs24_224", {"img_size": (48, 80), "depth": 2, "embed_dim": 24, "num_heads": 2}, (48, 80), of_cait),
    "sam": (
        "samvit_base_patch16",
        {
            "img_size": (80, 112),
            "depth": 3,
            "embed_dim": 24,
            "num_heads": 2,
            "window_size": 3,
            "global_attn_indexes": (1,),
        },
        (80, 112),
        of_sam,
    ),
    "max pooling": (
        "vit_tiny_patch16_224",
        {"img_size": (48, 80), "depth": 2, "embed_dim": 24, "num_heads": 2, "global_pool": "max"},
        (48, 80),
        of_patches,
    ),
    "hiera": ("hiera_tiny_224", {"img_size": (64, 96), "embed_dim": 24}, (64, 96), of_hiera),
    "twins": (
        "twins_svt_small",
        {"depths": (2, 2, 2, 2), "embed_dims": (16, 32, 48, 64), "num_heads": (2, 4, 3, 4)},
        (96, 160),
        of_twins,
    ),
    "maxvit": ("maxvit_rmlp_pico_rw_256", {"img_size": (64, 96)}, (64, 96), of_maxvit),
    "xcit": ("xcit_nano_12_p16_224", {"depth": 1, "embed_dim": 24, "num_heads": 2}, (48, 80), of_xcit),
    "crossvit": ("crossvit_9_240", {"depth": ((1, 1, 0),)}, (240, 240), of_crossvit),
    "pit": ("pit_ti_224", {"img_size": 64}, (64, 64), of_pit),
    "mobilevit": ("mobilevit_xxs", {}, (64, 96), of_mobilevit),
    "levit": ("levit_128s", {"img_size": 64}, (64, 64), of_levit),
    "volo": ("volo_d1_224", {"img_size": (64, 96)}, (64, 96), of_volo),
    "convit": (
        "convit_tiny",
        {"img_size": (48, 48), "depth": 3, "local_up_to_layer": 2, "embed_dim": 24, "num_heads": 2},
        (48, 48),
        of_convit,
    ),
    "csatv2": ("csatv2", {}, (128, 192), of_csatv2),
    "visformer": ("visformer_tiny", {"img_size": (64, 96), "depth": (1, 1, 1)}, (64, 96), of_visformer),
    "mvit": ("mvitv2_tiny", {"img_size": 64}, (64, 64), of_mvit),
    "davit": (
        "davit_tiny",
        {"depths": (1, 1, 1, 1), "embed_dims": (12, 24, 48, 96), "num_heads": (1, 2, 4, 8)},
        (64, 96),
        of_davit,
    ),
    "nest": ("nest_tiny", {"img_size": 64}, (64, 64), of_nest),
    "gcvit": ("gcvit_xxtiny", {"img_size": 64}, (64, 64), of_gcvit),
    "tinyvit": ("tiny_vit_5m_224", {}, (64, 64), of_tiny_vit),
    "efficientformer": ("efficientformer_l1", {}, (224, 224), of_levit),
    "tnt": ("tnt_s_patch16_224", {"img_size": (48, 80), "depth": 2}, (48, 80), of_tnt),
    "naflex": (
        "naflexvit_base_patch16_gap",
        {"img_size": 48, "depth": 2, "embed_dim": 24, "num_heads": 2},
        (48, 48),
        of_naflex,
    ),
    "parallel": (
        "vit_small_patch16_18x2_224",
        {"img_size": (48, 80), "depth": 1, "embed_dim": 24, "num_heads": 2},
        (48, 80),
        of_parallel,
    ),
}
SAMPLE = ["swin", "pvt", "cait", "sam", "max pooling", "hiera"]

# Models of all kinds, at their own size.
NAMED = """
    vit_tiny_patch16_224 deit_tiny_patch16_224 deit_tiny_distilled_patch16_224 deit3_small_patch16_224
    vit_small_patch14_dinov2 vit_small_patch14_reg4_dinov2 vit_small_patch16_dinov3 vit_small_plus_patch16_dinov3
    vit_base_patch16_siglip_224 vit_base_patch16_siglip_gap_224 naflexvit_base_patch16_gap
    naflexvit_base_patch16_siglip eva02_tiny_patch14_224 beit_base_patch16_224 beitv2_base_patch16_224 cait_xxs24_224
    xcit_nano_12_p16_224 swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 pvt_v2_b0 twins_svt_small
    crossvit_9_240 pit_ti_224 mobilevit_xxs mobilevitv2_050 levit_128s coat_tiny hiera_tiny_224
    maxvit_rmlp_pico_rw_256 vit_base_patch16_clip_224 vit_pe_core_tiny_patch16_384 vit_base_patch16_rope_reg1_gap_256
    vit_small_patch16_rope_ape_224 samvit_base_patch16 volo_d1_224 convit_tiny flexivit_small
    visformer_tiny mvitv2_tiny davit_tiny efficientformer_l1 efficientvit_b0 fastvit_t8 nest_tiny gcvit_xxtiny
    edgenext_xx_small tnt_s_patch16_224 vitamin_small_224 vit_relpos_small_patch16_224 vit_srelpos_small_patch16_224
    vit_small_r26_s32_224 vit_base_patch16_plus_clip_240 aimv2_large_patch14_224 vit_so150m_patch16_reg4_gap_256
    vit_medium_patch16_reg4_gap_256 vit_dwee_patch16_reg1_gap_256 vit_dpwee_patch16_reg1_gap_256
    vit_dlittle_patch16_reg1_gap_256 test_vit test_vit2 test_vit3 test_vit4 beit3_base_patch16_224 csatv2
    tiny_vit_5m_224
    halonet26t cpubone_nano efficientformerv2_s0 efficientvit_m0 efficientvim_m1 gemma4_vit_167m iformer_t levit_384_s8
    lowformer_b0 test_maxvit caformer_s18 mobilenetv5_base nextvit_small qwen3_vit_88m shvit_s1 swin_s3_tiny_224
    swinv2_cr_tiny_224
"""
REFUSED = ["coat_tiny", "edgenext_xx_small", "efficientvit_b0", "fastvit_t8", "mobilevitv2_050"]


def pytest_generate_tests(metafunc):
    if "family" in metafunc.fixturenames:
        metafunc.parametrize("family", FAMILIES if metafunc.config.getoption("--every-family") else SAMPLE)
    if "named" in metafunc.fixturenames:
        metafunc.parametrize("named", NAMED.split() if metafunc.config.getoption("--every-family") else ["test_vit4"])


def built(family):
    name, options, size, _ = FAMILIES[family]
    torch.manual_seed(0)
    model = timm.create_model(name, **options).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():  # so that attention is far from even
        if parameter.dim() == 2:
            parameter.data.normal_(std=1.5 * parameter.shape[1] ** -0.5, generator=generator)
    return model, torch.randn(2, 3, *size, generator=generator)


def unfused(model, flag=False):
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = flag
    return model


@torch.no_grad()
def softmaxes(model, pixels, monkeypatch):
    """What each softmax of the model without fused kernels gives."""
    caught, plain = [], torch.Tensor.softmax

    def softmax(self, *args, **kwargs):
        caught.append(plain(self, *args, **kwargs))
        return caught[-1]

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "softmax", softmax)
        unfused(model)(pixels)
    return caught


@torch.no_grad()
def own_grids(vit, pixels):
    """Each layer's map (B, heads, H, W) on its own grid."""
    found = {}
    vit.run(pixels, lambda layer, call: found.update({layer: vit.received(layer, call)}))
    return [found[layer] for layer in range(vit.depth)]


def test_maps_are_the_familys_own(family, monkeypatch):
    model, pixels = built(family)
    vit = as_read(model, FAMILIES[family][0], FAMILIES[family][2])
    assert isinstance(vit, Layered)
    expected = FAMILIES[family][3](model, softmaxes(model, pixels, monkeypatch))
    for flag in (True, False):
        unfused(model, flag)
        maps = own_grids(vit, pixels)
        assert len(maps) == len(expected) == vit.depth
        for one, other in zip(maps, expected, strict=True):
            assert one.shape == other.shape
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_outputs_stay_as_they_are(family, one_thread):
    model, pixels = built(family)
    with torch.no_grad():
        plain = model(pixels)
        with record(model) as attention:
            assert torch.equal(model(pixels), plain)
    assert attention


def test_swins_map_is_that_of_a_mask_over_the_whole_image():
    """Window attention is attention of all places to all, masked to pairs of one window that were neighbours."""
    model, pixels = built("swin")
    vit = Layered(model, "swin", (32, 64))
    block = model.layers[0].blocks[1]
    kept = []
    with torch.no_grad(), block.norm1.register_forward_hook(lambda *given: kept.append(given[-1])):
        maps = own_grids(vit, pixels)
    x = kept[0].flatten(1, 2)  # (B, N, C)
    height, width, size, shift = 8, 16, 4, 2
    assert block.window_size == (size, size)
    assert block.shift_size == (shift, shift)
    y, x_ = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rolled = [(y.flatten() - shift) % height, (x_.flatten() - shift) % width]
    apart = [r[:, None] - r[None] for r in rolled]
    window = [r // size for r in rolled]
    region = [(r >= n - shift).int() for r, n in zip(rolled, (height, width), strict=True)]
    same = [p[:, None] == p[None] for p in (*window, *region)]
    allowed = same[0] & same[1] & same[2] & same[3]
    attn = block.attn
    index = (apart[0] + size - 1) * (2 * size - 1) + apart[1] + size - 1
    bias = attn.relative_position_bias_table[index.clamp(0, len(attn.relative_position_bias_table) - 1)]
    query, key, _ = F.linear(x, attn.qkv.weight, attn.qkv.bias).unflatten(-1, (3, 2, 6)).unbind(2)
    scores = torch.einsum("bnhd,bmhd->bhnm", query, key) * 6**-0.5 + bias.permute(2, 0, 1)
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
    torch.testing.assert_close(maps[1], mean(weights, (height, width)).detach(), rtol=0, atol=1e-5)


def test_layers_of_coarser_grids_are_spread_evenly():
    model, pixels = built("swin")
    vit = Layered(model, "swin", (32, 64))
    coarse = own_grids(vit, pixels)[2]
    assert coarse.shape == (2, 3, 4, 8)
    rows = vit.rows(pixels, [2])[:, 0]
    torch.testing.assert_close(rows, coarse.repeat_interleave(2, -1).repeat_interleave(2, -2) / 4)
    assert vit.rows(pixels).shape == (2, 3, 1, 8, 16)  # 2, 2 and 3 heads: their mean
    torch.testing.assert_close(Raw()(vit, pixels), rows.mean(1))
    torch.testing.assert_close(Raw(2, 1)(vit, pixels), rows[:, 1])
    with pytest.raises(InputError, match="no head 2"):
        Raw(0, 2)(vit, pixels)
    with pytest.raises(InputError, match="64×32 pixels, and not of 32×32"):
        Raw()(vit, pixels[..., :32])
    for method in (GradientRollout(), Relevance()):
        with pytest.raises(InputError, match=r"not defined for swin.*choose raw"):
            method(vit, pixels)


def test_cells_are_where_convolutions_look():
    """A patch embedding of 7×7 pixels, stride 4, padding 3, is centred 1.5 pixels to the upper left of 4×4 squares."""
    hiera = Layered(built("hiera")[0], size=(64, 96)).cells((64, 96))
    assert (*hiera, *hiera.stride) == (-1.5, -1.5, 4, 4)
    swin = Layered(built("swin")[0], size=(32, 64)).cells((32, 64))
    assert (*swin, *swin.stride) == (0, 0, 4, 4)


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("edgenext_xx_small", {"depths": (1, 1, 1, 1)}, "over channels"),
        ("mobilevitv2_050", {}, "softmax for each query"),
        ("efficientvit_b0", {}, "softmax for each query"),
        ("fastvit_t8", {}, "softmax for each query"),
        ("coat_tiny", {"serial_depths": (1, 1, 1, 1), "parallel_depth": 0}, "softmax for each query"),
    ],
)
def test_what_has_no_map_is_refused(name, options, why):
    with pytest.raises(InputError, match=f"{name} .*{why}"):
        timm_subject(name, "random", **options)


def test_a_model_is_read_or_refused_at_its_own_size(named):
    torch.manual_seed(0)
    if named in REFUSED:
        with pytest.raises(InputError, match=f"^{named} "):
            timm_subject(named, "random")
        return
    subject = timm_subject(named, "random")
    photograph = Image.effect_noise((301, 257), 90).convert("RGB")
    for layer in (0, -1):
        weights, geometry = subject.map(photograph, Raw(layer))
        assert weights.shape == subject.vit.grid(geometry.input)
        assert np.isfinite(weights).all()
        assert np.abs(weights).sum() > 0
        assert weights.sum() < 1 + 1e-4 or "cait" in named  # whose heads are mixed after the softmax
        assert heatmap(np.asarray(photograph), weights, geometry).shape == (257, 301, 3)


def test_plain_transformers_are_read_as_before():
    for name, options in (
        ("vit_tiny_patch16_224", {"img_size": 32}),
        ("beit_base_patch16_224", {"img_size": 32, "embed_dim": 24}),
    ):
        model = timm.create_model(name, depth=1, num_heads=2, **{"embed_dim": 24, **options})
        assert type(as_read(model, name, (32, 32))) is ViT


def test_overlay_lays_them_over_a_photograph(photographs, tmp_path, capsys):
    given = [
        "overlay",
        str(photographs),
        "--timm",
        "pvt_v2_b0",
        "--weights",
        "random",
        "--output",
        str(tmp_path / "out"),
    ]
    assert main([*given, "--export", "npz"]) == 0
    assert (tmp_path / "out" / "wide.npz").is_file()
    assert main([*given, "--method", "rollout"]) != 0
    assert "rollout is not defined for pvt_v2_b0" in capsys.readouterr().err
