"""Attention during the training of a LightningModule that is not visattn's: the one in docs/attention_maps.md."""

import contextlib
import json
import re
import warnings
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from visattn.errors import InputError
from visattn.explain import Raw, as_read
from visattn.metrics import attention_health
from visattn.training.callbacks import AttentionHealth, AttentionSheets

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
PAGE = (Path(__file__).parent.parent / "docs" / "attention_maps.md").read_text(encoding="utf-8")
(SOURCE,) = re.findall(r"```python\n(import lightning\n.*?)```", PAGE, flags=re.S)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("foreign")
    with contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {}
        exec(SOURCE, names)
    return names | {"folder": folder}


def trainer(folder, *callbacks, epochs=1):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    return lightning.Trainer(callbacks=[ModelCheckpoint(folder), *callbacks], max_epochs=epochs, **quiet)


def test_the_page_s_training_leaves_sheets_and_statistics(trained):
    (folder,) = trained["folder"].rglob("attention")
    assert [path.name for path in sorted(folder.glob("epoch_*"))] == ["epoch_000", "epoch_001"]
    sheets = sorted((folder / "epoch_001").glob("*.png"))
    assert [path.name for path in sheets] == [f"{n:02d}_image_{n}.png" for n in range(9)]
    with Image.open(sheets[0]) as sheet:
        assert np.ptp(np.asarray(sheet)) > 200
    lines = [json.loads(line) for line in (folder / "health.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    images = trained["data"].dataset.tensors[0]
    vit = as_read(trained["trainer"].lightning_module.model)
    assert vit.grid((30, 30)) == (5, 5)  # as built, not as timm's configuration says
    maps = Raw()(vit, images[:32], None).numpy()
    assert maps.shape == (23, 5, 5)
    assert lines[1]["entropy"] == pytest.approx(attention_health([maps]).entropy, rel=1e-5)


def test_training_is_that_without_the_callbacks(trained, tmp_path):
    ends = []
    for callbacks in ([], [AttentionSheets(2), AttentionHealth()]):
        torch.manual_seed(1)
        module = trained["Classifier"]()
        trainer(tmp_path / str(len(callbacks)), *callbacks).fit(module, trained["data"], trained["data"])
        ends.append(module.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_transformer_is_named_or_missing(trained, tmp_path):
    class Nested(trained["Classifier"]):
        def __init__(self):
            super().__init__()
            self.within = torch.nn.ModuleDict({"vit": self.model, "other": torch.nn.Linear(2, 3)})
            self.stem, self.model = torch.nn.Identity(), None

        def training_step(self, batch, index):
            return torch.nn.functional.cross_entropy(self.within["vit"](batch[0]), batch[1])

    data = trained["data"]
    for name, callback in (("none", AttentionSheets(2)), ("wrong", AttentionHealth(network="within.absent"))):
        with pytest.raises(InputError, match="network"):
            trainer(tmp_path / name, callback).fit(Nested(), data, data)
    trainer(tmp_path / "named", AttentionSheets(2, network="within.vit")).fit(Nested(), data, data)
    assert len(list((tmp_path / "named").rglob("*.png"))) == 2


def test_a_module_without_a_transformer_trains_with_health_which_every_run_has(trained, tmp_path):
    class Plain(trained["Classifier"]):
        def __init__(self):
            super().__init__()
            self.model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2700, 5))

    run = trainer(tmp_path, AttentionHealth(), epochs=2)
    run.fit(Plain(), trained["data"], trained["data"])
    assert run.current_epoch == 2
    assert not list(tmp_path.rglob("health.jsonl"))


def test_options_are_checked():
    with pytest.raises(InputError, match="std"):
        AttentionSheets(mean=(0.5, 0.5, 0.5))
