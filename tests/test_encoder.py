"""Any timm backbone is a grid of annotation vectors."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import swin_transformer, vision_transformer

from visattn.errors import InputError
from visattn.models import Encoder


def images(height=64, width=96):
    return torch.randint(0, 256, (2, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("backbone", "stage", "grid"),
    [
        ("resnet10t", -1, (2, 3)),
        ("resnet10t", 2, (8, 12)),
        ("test_convnext", -1, (2, 3)),
        ("test_efficientnet", -1, (2, 3)),
    ],
)
def test_grid_is_that_of_the_feature_map(backbone, stage, grid):
    encoder = Encoder(backbone, stage).eval()
    values, found = encoder(images())
    assert found == grid
    assert values.shape == (2, grid[0] * grid[1], encoder.size)


@pytest.mark.parametrize(("backbone", "more"), [("test_efficientnet", True), ("resnet10t", False)])
def test_the_head_is_what_the_classifier_pools(backbone, more):
    encoder = Encoder(backbone, "head").eval()
    values, grid = encoder(images())
    assert grid == encoder.grid((64, 96)) == (2, 3)
    assert values.shape == (2, 6, encoder.size)
    classifier = timm.create_model(backbone).eval()
    classifier.load_state_dict(encoder.body.model.state_dict(), strict=False)
    expected = classifier.forward_head(classifier.forward_features(encoder.normalise(images())), pre_logits=True)
    torch.testing.assert_close(values.mean(dim=1), expected)
    assert (encoder.size != Encoder(backbone, -1).size) == more
    assert encoder.cell_shift((64, 96)) == pytest.approx(Encoder(backbone, -1).cell_shift((64, 96)), abs=1e-3)


def test_the_head_takes_weights_files_and_is_frozen_like_stages(tmp_path):
    source = timm.create_model("test_efficientnet")
    path = tmp_path / "weights.safetensors"
    save_file(source.state_dict(), path)
    encoder = Encoder("test_efficientnet", "head", weights=str(path), train_from=2)
    encoder.load_weights()
    assert torch.equal(encoder.body.model.conv_head.weight, source.conv_head.weight)
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert "body.model.conv_head.weight" in trained
    assert "body.model.conv_stem.weight" not in trained
    assert Encoder("test_efficientnet", "head", train_from=None).frozen


def test_a_backbone_without_a_grid_before_its_head_is_refused():
    with pytest.raises(InputError, match=r"'test_vit' has no grid.*stage -1"):
        Encoder("test_vit", "head").eval()(images(160, 160))


def test_transformer_backbone_gives_a_grid_without_its_class_token():
    encoder = Encoder("test_vit").eval()
    values, grid = encoder(images(160, 160))
    assert values.shape[1] == grid[0] * grid[1]


def test_rows_come_first():
    encoder = Encoder("resnet10t", 2).eval()
    with torch.no_grad():
        values, (_, width) = encoder(images())
        changed = images()
        changed[:, :, 56:, 88:] = 0  # the lower right corner
        difference = (encoder(changed).values - values).abs().sum((0, 2))
    assert difference.argmax() // width >= 6
    assert difference.argmax() % width >= 9
    assert difference[0] == 0


@pytest.mark.parametrize("train_from", [None, 0, 3])
def test_frozen_stages_do_not_change(train_from):
    encoder = Encoder("resnet10t", train_from=train_from)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    values, _ = encoder(images())
    assert encoder.frozen == (train_from is None)
    if train_from is not None:
        values.sum().backward()
        for parameter in encoder.parameters():
            if parameter.grad is not None:
                parameter.data -= parameter.grad
    changed = {
        name.split(".")[1] for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])
    }
    assert (
        changed
        == {None: set(), 0: {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}, 3: {"layer3", "layer4"}}[
            train_from
        ]
    )


def test_statistics_can_be_kept_while_the_rest_is_trained():
    encoder = Encoder("resnet10t", train_from=3, keep_statistics=True)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    values, _ = encoder.train()(images())
    assert torch.equal(values, encoder.eval()(images()).values)
    values.sum().backward()
    trained = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert any(".bn" in name for name in trained)
    assert {name.split(".")[1] for name in trained} == {"layer3", "layer4"}
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_local_weights_are_loaded_whole_or_refused(tmp_path):
    source = Encoder("resnet10t", -1)
    path = tmp_path / "w.safetensors"
    save_file({name: value.contiguous() + 1 for name, value in source.body.state_dict().items()}, path)
    encoder = Encoder("resnet10t", 2, weights=str(path))
    encoder.load_weights()
    torch.testing.assert_close(encoder.body.conv1[0].weight, source.body.conv1[0].weight + 1)
    with pytest.raises(InputError, match=r"w.safetensors .*backbone 'resnet18'"):
        Encoder("resnet18", weights=str(path)).load_weights()
    with pytest.raises(InputError, match="no weights file at"):
        Encoder("resnet10t", weights=str(tmp_path / "none.pth")).load_weights()
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"bad.safetensors does not contain"):
        Encoder("resnet10t", weights=str(tmp_path / "bad.safetensors")).load_weights()


VIT = ("vit_tiny_patch16_224", vision_transformer, {"depth": 2, "embed_dim": 30, "num_heads": 5, "img_size": 112})
SWIN = ("swin_tiny_patch4_window7_224", swin_transformer, {"depths": (1, 1), "embed_dim": 6, "num_heads": (2, 3)})


@pytest.mark.filterwarnings("ignore:.*searchsorted", "ignore:Using a non-tuple sequence")  # of timm's interpolation
@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (VIT, {"img_size": (48, 80)}, "position embeddings resampled from 7×7 to 3×5"),
        (VIT, {"img_size": (24, 40), "patch_size": 8}, "patch embedding resampled from 16×16 to 8×8"),
        (SWIN, {"img_size": (80, 80), "window_size": 5}, "relative_position_bias_table resampled"),
    ],
)
def test_weights_of_another_input_size_are_resampled_as_by_timm(model, options, said, tmp_path, caplog):
    """Whatever the number of classes is, and without a classifier, too."""
    name, module, sizes = model
    path = tmp_path / "w.safetensors"
    own = timm.create_model(name, num_classes=0, **sizes | options)
    for classes in (11, 0):
        torch.manual_seed(classes)
        source = timm.create_model(name, num_classes=classes, **sizes)
        for parameter in source.parameters():
            torch.nn.init.normal_(parameter)
        save_file(source.state_dict(), path)
        expected = module.checkpoint_filter_fn(source.state_dict(), own)
        encoder = Encoder(name, weights=str(path), options=sizes | options)
        caplog.clear()
        with caplog.at_level("INFO", "visattn"):
            encoder.load_weights()
        assert said in caplog.text
        for key, value in encoder.body.state_dict().items():
            assert torch.equal(value, expected[key.removeprefix("model.").replace("layers_", "layers.")]), key


@pytest.mark.parametrize("other", [{"embed_dim": 35}, {"depth": 1}, {"class_token": False, "global_pool": "avg"}])
def test_weights_of_another_backbone_are_not_resampled(other, tmp_path):
    name, _, sizes = VIT
    path = tmp_path / "w.safetensors"
    save_file(timm.create_model(name, **sizes | other).state_dict(), path)
    encoder = Encoder(name, weights=str(path), options=sizes | {"img_size": (48, 80)})
    before = {key: value.clone() for key, value in encoder.body.state_dict().items()}
    with pytest.raises(InputError, match="backbone 'vit_tiny_patch16_224'"):
        encoder.load_weights()
    assert all(torch.equal(value, before[key]) for key, value in encoder.body.state_dict().items())


def test_normalisation_is_the_backbones_own():
    encoder = Encoder("resnet10t")
    pixel = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(encoder.normalise(pixel).flatten(), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet10x"}, "no backbone named 'resnet10x'"),
        ({"backbone": "resnet10t", "stage": 9}, "no stage 9"),
        ({"backbone": "resnet10t", "train_from": 5}, "stages 0 to 4, not 5"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(InputError, match=message):
        Encoder(**options)


@pytest.mark.parametrize(
    ("backbone", "stage", "shift"),
    [
        ("resnet18", -1, -15.5),  # five strided layers, each half a pixel early: (1 + 2 + 4 + 8 + 16) / 2
        ("resnet18", 2, -3.5),  # three of them
        ("tf_efficientnet_lite0", -1, 15.5),  # TensorFlow pads on the other side
        ("convnext_atto", -1, 0.0),  # patches
    ],
)
def test_cell_positions_follow_from_strides(backbone, stage, shift):
    assert Encoder(backbone, stage).cell_shift((64, 64)) == pytest.approx((shift, shift), abs=0.15)


def test_the_shift_is_known_in_inference_mode_too():
    with torch.inference_mode():
        assert Encoder("test_convnext").cell_shift((64, 64)) == pytest.approx((0.0, 0.0), abs=0.1)


def test_transformers_look_at_their_own_patch():
    assert Encoder("test_vit").cell_shift((160, 160)) == (0.0, 0.0)


def test_pooled_cells_are_the_means_of_their_blocks_and_look_at_their_middle():
    options = {"backbone": "vit_tiny_patch16_224", "options": {"img_size": [32, 96]}, "train_from": None}
    torch.manual_seed(3)
    fine, coarse = Encoder(**options), Encoder(**options, pool=2)
    coarse.load_state_dict(fine.state_dict())
    images = torch.randint(0, 256, (3, 3, 32, 96), dtype=torch.uint8)
    values, grid = coarse(images)
    blocks = fine(images).values.unflatten(1, (1, 2, 3, 2)).mean(dim=(2, 4)).flatten(1, 2)
    assert grid == coarse.grid((32, 96)) == (1, 3)
    torch.testing.assert_close(values, blocks)
    assert coarse.cell_shift((32, 96)).stride == (32, 32)
    centres = [(i + 0.5) * 16 + fine.cell_shift((32, 96))[1] for i in range(6)]
    expected = [(centres[2 * k] + centres[2 * k + 1]) / 2 for k in range(3)]
    assert [(k + 0.5) * 32 + coarse.cell_shift((32, 96))[1] for k in range(3)] == expected
    assert coarse.description != fine.description, "cached features are of one of them"


@pytest.mark.parametrize("pool", [0, 3])
def test_a_pool_that_does_not_fit_is_named(pool):
    with pytest.raises(InputError, match="'pool'"):
        Encoder("resnet18", pool=pool).grid((128, 128))


def test_the_shift_matches_the_response_to_a_dot():
    """A dot at a cell's stated centre affects that cell more than its neighbours."""
    torch.manual_seed(0)
    encoder = Encoder("resnet18", 1).eval()  # cells of 4 pixels
    shift, _ = encoder.cell_shift((64, 64))
    grey = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)
    responses = torch.zeros(64)
    with torch.no_grad():
        flat = encoder(grey).values.unflatten(1, (16, 16))[0, 8, 8]
        for y in range(64):
            dotted = grey.clone()
            dotted[:, :, y, :] = 255
            responses[y] = (encoder(dotted).values.unflatten(1, (16, 16))[0, 8, 8] - flat).square().sum()
    felt = (responses * (torch.arange(64) + 0.5)).sum() / responses.sum()
    nominal = 8 * 4 + 2
    assert abs(felt - (nominal + shift)) < abs(felt - nominal)
    assert felt < nominal
