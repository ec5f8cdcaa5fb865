"""The schedule's shape, and which parameters decay."""

import pytest
import torch
from lightning import LightningModule, Trainer
from timm.optim import create_optimizer_v2, muon
from torch import nn

from visattn import precision
from visattn.errors import InputError
from visattn.precision import Support
from visattn.training.optimization import Optimization, stacked_update, total_steps


def test_factor_rises_then_falls_as_a_cosine():
    schedule = Optimization(warmup=0.2, final=0.1)
    assert schedule.factor(10, 100) == pytest.approx(0.5)
    assert schedule.factor(20, 100) == pytest.approx(1.0)
    assert schedule.factor(60, 100) == pytest.approx(0.55)  # half-way down: (1 + 0.1) / 2
    assert schedule.factor(100, 100) == pytest.approx(0.1)
    assert schedule.factor(130, 100) == pytest.approx(0.1)
    assert Optimization(warmup=0).factor(1, 10**6) == pytest.approx(1.0)


class Module(LightningModule):
    def __init__(self, optimization):
        super().__init__()
        self.encoder, self.head = nn.Linear(3, 5), nn.Linear(5, 2)
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
        self.optimization, self.rates = optimization, []

    def training_step(self, batch, index):
        self.rates.append([group["lr"] for group in self.optimizers().param_groups])
        return self.head(self.encoder(torch.ones(1, 3))).sum()

    def train_dataloader(self):
        return torch.utils.data.DataLoader(range(7), num_workers=0)

    def configure_optimizers(self):
        return self.optimization.configure(self)


@pytest.mark.filterwarnings("ignore")
def test_groups_and_rates_through_a_trainer(tmp_path):
    module = Module(Optimization(lr=0.5, weight_decay=0.3, warmup=0.5, final=0.0, encoder=0.1))
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    trainer.fit(module)
    groups = trainer.optimizers[0].param_groups
    assert sorted((group["weight_decay"], len(group["params"])) for group in groups) == [
        (0, 1),
        (0, 1),
        (0.3, 1),
        (0.3, 1),
    ]
    rates = torch.tensor(module.rates)
    assert rates.shape == (14, 4)
    highest = rates.max(dim=1).values
    assert highest.argmax() == 7  # half of 14 steps: the end of the warm-up, known without asking for the data first
    assert highest.max().item() == pytest.approx(0.5)
    torch.testing.assert_close(rates.min(dim=1).values, highest * 0.1)
    assert highest[0] < 0.01
    assert highest[-1] < 0.05


class Gaze(LightningModule):
    """A module whose location policy and its parts are where those of a glimpse model are."""

    def __init__(self, optimization):
        super().__init__()
        names = ("policy", "locator", "context", "policy_of_others", "core")
        self.model = nn.ModuleDict({name: nn.Linear(3, 2) for name in names})
        self.optimization, self.trainer = optimization, Trainer(max_steps=7, accelerator="cpu", logger=False)


@pytest.mark.filterwarnings("ignore")
def test_what_chooses_locations_has_a_rate_of_its_own():
    module = Gaze(Optimization(lr=0.5, policy=0.25))
    groups = module.optimization.configure(module)["optimizer"].param_groups
    rates = {id(p): group["initial_lr"] for group in groups for p in group["params"]}
    expected = {"policy": 0.125, "locator": 0.125, "context": 0.125, "policy_of_others": 0.5, "core": 0.5}
    assert {name: {rates[id(p)] for p in part.parameters()} for name, part in module.model.items()} == {
        name: {rate} for name, rate in expected.items()
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"max_epochs": 2}, 10),
        ({"max_steps": 7}, 7),
        ({"max_epochs": 2, "max_steps": 7}, 7),
        ({"max_epochs": 2, "max_steps": 1000}, 10),
    ],
)
def test_the_schedule_ends_with_the_first_limit(limits, steps):
    trainer = Trainer(accelerator="cpu", logger=False, **limits)
    trainer.fit_loop.max_batches = 5
    assert total_steps(trainer) == steps


@pytest.mark.filterwarnings("ignore")
def test_without_a_warm_up_the_first_step_has_the_whole_rate():
    for warmup, first in ((0.0, 0.5), (0.1, 0.5e-3)):
        module = Gaze(Optimization(lr=0.5, warmup=warmup, final=1.0))
        optimizer = module.optimization.configure(module)["optimizer"]
        assert optimizer.param_groups[0]["lr"] == pytest.approx(first, rel=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_training_without_an_end_is_refused():
    """Its rate stayed at the first step's, which is nearly 0."""
    module = Gaze(Optimization())
    module.trainer = Trainer(max_epochs=-1, accelerator="cpu", logger=False)
    with pytest.raises(InputError, match=r"--trainer\.max_epochs"):
        module.optimization.configure(module)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "fused"), [("adamw", True), ("adam", True), ("sgd", None), ("muon", None)])
def test_adam_runs_fused_on_a_cpu_and_others_as_they_do(tmp_path, name, fused):
    module = Module(Optimization(name))
    before = module.head.weight.clone()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_steps=2, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    trainer.fit(module)
    assert {group.get("fused") for group in trainer.optimizers[0].param_groups} == {fused}
    assert not torch.equal(module.head.weight, before)


def test_muon_orthogonalises_in_bfloat16_only_where_that_is_fast(monkeypatch):
    """A step from zero, without momentum: of a gradient G it is Newton and Schulz's polynomial of G, times a scale."""
    gradient = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    steps = {}
    for fast in (True, False):
        monkeypatch.setattr(precision, "_of_cpu", lambda fast=fast: Support(fast, "this test says so"))
        weight = nn.Parameter(torch.zeros(5, 7))
        weight.grad = gradient.clone()
        options = {"momentum": 0.0, "ns_coefficients": "original", "ns_steps": 5}
        create_optimizer_v2([weight], "muon", lr=1.0, weight_decay=0.0, **options).step()
        steps[fast] = weight.detach().double()
    left, values, right = torch.linalg.svd(gradient.double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5  # Jordan 2024; keeps singular vectors
    exact = left @ values.diag() @ right
    exact *= (steps[False] * exact).sum() / exact.square().sum()
    torch.testing.assert_close(steps[False], exact, rtol=0, atol=1e-5 * float(exact.abs().max()))
    assert (steps[True] - exact).abs().max() > 1e-3 * exact.abs().max()


def test_stacked_matrices_are_updated_as_one_by_one(monkeypatch):
    """Muon's update of matrices and convolutions of several shapes, three steps with momentum and decay."""
    torch.manual_seed(0)
    shapes = [(7, 5), (5, 7), (7, 5), (11, 3, 2, 2), (11, 12), (11, 3, 2, 2), (7, 5)]
    start = [torch.randn(shape) for shape in shapes]
    gradients = [[torch.randn(shape) for shape in shapes] for _ in range(3)]
    found = []
    for stacked in (False, True):
        if stacked:
            monkeypatch.setattr(muon, "_single_tensor_muon", stacked_update)
        parameters = [nn.Parameter(tensor.clone()) for tensor in start]
        optimizer = create_optimizer_v2([{"params": parameters}], "muon", lr=0.1, weight_decay=0.05)
        for step in gradients:
            for parameter, gradient in zip(parameters, step, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
        found.append([*parameters, *(optimizer.state[parameter]["momentum_buffer"] for parameter in parameters)])
    for alone, together in zip(*found, strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
