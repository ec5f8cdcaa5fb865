"""`precision: auto`: bfloat16 if the hardware has bfloat16 arithmetic; capabilities are faked."""

import logging
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import CONFIGS, FAST, SMALL_SHAPES
from lightning.pytorch.plugins import DoublePrecision, MixedPrecision

from visattn import precision
from visattn.cli import main
from visattn.errors import InputError
from visattn.precision import bfloat16_support, of_option, resolved, slowness
from visattn.training.checkpoints import read
from visattn.training.runs import Trainer

CPU = torch.device("cpu")
cpu_features = precision.cpu_features  # before a fixture fakes it
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture
def machine(monkeypatch):
    """Sets what this CPU seems to be."""

    def be(*features, arch="x86_64", system="Linux", aten="AVX512", onednn=True, **environment):
        for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(precision, "cpu_features", lambda: set(features))
        monkeypatch.setattr("platform.machine", lambda: arch)
        monkeypatch.setattr("platform.system", lambda: system)
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: aten)
        monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: onednn)

    return be


@pytest.fixture
def gpus(monkeypatch):
    """Sets which GPUs seem to be there, by name and compute capability."""

    def be(*known):
        properties = [
            SimpleNamespace(name=name, major=major, minor=minor, total_memory=2**30) for name, major, minor in known
        ]
        monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties[torch.device(device).index])
        for package in ("lightning.fabric.accelerators.cuda", "lightning.pytorch.accelerators.cuda"):
            monkeypatch.setattr(f"{package}.num_cuda_devices", lambda: len(known))
        monkeypatch.setattr("torch.cuda.device_count", lambda: len(known))

    return be


@pytest.mark.parametrize(
    ("features", "more", "there", "words"),
    [
        (["avx2"], {"aten": "AVX2"}, False, "neither AVX-512 BF16 nor AMX"),
        (["avx2", "avx512_f", "avx512_vnni"], {}, False, "neither AVX-512 BF16 nor AMX"),
        (["avx2", "avx_ne_convert"], {"aten": "AVX2"}, False, "neither"),  # converts, and does not multiply
        (["avx512_f", "avx512_bf16"], {}, True, "AVX-512 BF16"),
        (["amx_bf16", "amx_tile", "avx512_bf16"], {}, True, "AVX-512 BF16 and AMX"),
        (["amx_tile", "amx_int8"], {}, False, "neither"),
        (["avx512_bf16"], {"ONEDNN_MAX_CPU_ISA": "AVX2"}, False, "ONEDNN_MAX_CPU_ISA=AVX2"),
        (["avx512_bf16"], {"ONEDNN_MAX_CPU_ISA": "avx512_core"}, False, "ONEDNN_MAX_CPU_ISA=avx512_core"),
        (["avx512_bf16"], {"DNNL_MAX_CPU_ISA": "AVX512_CORE_VNNI"}, False, "DNNL_MAX_CPU_ISA"),
        (["avx512_bf16"], {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, True, "AVX-512 BF16"),
        (["avx512_bf16"], {"ONEDNN_MAX_CPU_ISA": "ALL"}, True, "AVX-512 BF16"),
        (["avx512_bf16"], {"aten": "AVX2"}, False, "ATEN_CPU_CAPABILITY"),
        (["avx512_bf16"], {"onednn": False}, False, "oneDNN"),
        (["neon"], {"arch": "aarch64", "aten": "DEFAULT"}, False, "no BF16 instructions"),
        (["neon", "bf16"], {"arch": "aarch64", "aten": "DEFAULT"}, True, "ARM's BF16"),
        (["neon", "bf16"], {"arch": "arm64", "aten": "DEFAULT", "system": "Darwin"}, False, "Linux only"),
        ([], {"aten": "NO AVX"}, False, "neither"),
    ],
)
def test_a_cpu_multiplies_in_bfloat16_where_it_has_the_instructions(features, more, there, words, machine):
    machine(*features, **more)
    support = bfloat16_support(CPU)
    assert support.there == there
    assert words in support.reason
    name, reason = resolved([CPU])
    assert name == ("bf16-mixed" if there else "32-true")
    assert reason == support.reason
    for wish in ("bf16-mixed", "bf16-true", "16-true"):
        assert (slowness(wish, CPU) is None) == there
    assert slowness("32-true", CPU) is None
    assert slowness("64-true", CPU) is None


def test_where_pytorch_lists_no_features_the_kernel_does(monkeypatch):
    """Of PyTorch 2.10; whatever this CPU is, a feature is a word in /proc/cpuinfo."""
    monkeypatch.delattr("torch.cpu.get_capabilities", raising=False)
    monkeypatch.setattr("pathlib.Path.read_text", lambda self: "flags\t: fpu avx2 avx512_bf16 amx_bf16\n")
    assert {"avx512_bf16", "amx_bf16"} <= cpu_features()

    def absent(self):
        raise FileNotFoundError

    monkeypatch.setattr("pathlib.Path.read_text", absent)
    assert cpu_features() == set()


def test_gpus_multiply_in_bfloat16_from_ampere_on(gpus):
    gpus(("Tesla T4", 7, 5), ("NVIDIA A100", 8, 0), ("NVIDIA H200", 9, 0))
    t4, a100, h200 = (torch.device("cuda", i) for i in range(3))
    assert not bfloat16_support(t4).there
    assert "Tesla T4 (compute capability 7.5)" in bfloat16_support(t4).reason
    assert resolved([a100, h200]) == ("bf16-mixed", "NVIDIA A100 multiplies in bfloat16")
    name, reason = resolved([h200, t4])
    assert name == "32-true"
    assert "T4" in reason
    assert "T4" in slowness("bf16-mixed", t4)
    assert slowness("16-mixed", t4) is None
    assert slowness("bf16-true", a100) is None
    assert resolved([torch.device("mps")])[0] == "32-true"


@pytest.mark.filterwarnings("ignore:GPU available but not used")
@pytest.mark.parametrize(("feature", "name"), [("avx512_bf16", "bf16-mixed"), ("avx512_f", "32-true")])
def test_a_trainer_takes_what_its_devices_can(feature, name, machine, gpus):
    machine(feature)
    gpus(("NVIDIA H200", 9, 0), ("Tesla T4", 7, 5))
    on_cpu = Trainer(precision="auto", accelerator="cpu", **QUIET)  # though there are GPUs
    assert on_cpu.precision == name
    assert isinstance(on_cpu.precision_plugin, MixedPrecision) == (name == "bf16-mixed")
    assert on_cpu.said.startswith(f"precision: {name}, since this CPU has ")
    assert on_cpu.slow is None
    for accelerator in ("auto", "gpu", "cuda"):
        assert Trainer(precision="auto", accelerator=accelerator, devices=[0], **QUIET).precision == "bf16-mixed"
        assert Trainer(precision="auto", accelerator=accelerator, devices=[1], **QUIET).precision == "32-true"
        assert Trainer(precision="auto", accelerator=accelerator, **QUIET).precision == "32-true"  # on both
    with torch.autocast("cpu", enabled=False), on_cpu.precision_plugin.forward_context():
        assert torch.is_autocast_enabled("cpu") == (name == "bf16-mixed")


def test_a_given_precision_is_used(machine):
    machine("avx512_f")
    wished = Trainer(precision="bf16-mixed", accelerator="cpu", **QUIET)
    assert wished.precision == "bf16-mixed"
    assert "neither AVX-512 BF16 nor AMX" in wished.slow
    assert Trainer(accelerator="cpu", **QUIET).precision == "32-true"  # Lightning's default, on every machine
    machine("avx512_bf16")
    assert Trainer(accelerator="cpu", **QUIET).precision == "32-true"
    assert Trainer(precision="32-true", accelerator="cpu", **QUIET).precision == "32-true"
    assert Trainer(precision="bf16-mixed", accelerator="cpu", **QUIET).slow is None
    plugin = DoublePrecision()
    assert Trainer(precision="auto", accelerator="cpu", plugins=[plugin], **QUIET).precision_plugin is plugin


def test_programs_take_auto_as_well(machine, caplog):
    machine("avx512_f")
    assert [of_option(name, CPU) for name in ("auto", "32")] == ["32", "32"]
    assert not caplog.text
    assert of_option("bf16", CPU) == "bf16"
    assert "will be slow" in caplog.text
    machine("avx512_bf16")
    caplog.clear()
    assert [of_option(name, CPU) for name in ("auto", "32", "bf16")] == ["bf16", "32", "bf16"]
    assert not caplog.text
    with pytest.raises(InputError, match="--precision is '8'"):
        of_option("8", CPU)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.name)
def test_no_configuration_requires_bfloat16(path):
    trainer = yaml.safe_load(path.read_text()).get("trainer", {})
    assert trainer.get("precision", "auto") == "auto"


def test_each_run_reports_its_precision_and_saves_the_option(machine, tmp_path, caplog):
    caplog.set_level(logging.INFO, "visattn")
    words = ["--config", str(CONFIGS / "shapes_vit.yaml"), *FAST, *SMALL_SHAPES, "--output", str(tmp_path)]
    small = ["--model.model.size=12", "--model.model.depth=1", "--data.batch_size=5"]
    auto = "--trainer.precision=auto"
    machine("avx512_bf16", "amx_bf16")
    assert main(["fit", *words, *small, auto]) == 0
    assert "precision: bf16-mixed, since this CPU has AVX-512 BF16 and AMX" in caplog.text
    saved = tmp_path / "logs" / "version_0" / "config.yaml"
    assert yaml.safe_load(saved.read_text())["trainer"]["precision"] == "auto"
    assert read(tmp_path / "last.ckpt")["precision"] == "bf16-mixed"
    machine("avx512_f")  # the run is moved to another machine
    caplog.clear()
    resumed = ["fit", "--config", str(saved), "--resume=auto", "--trainer.max_epochs=2"]
    assert main(resumed) == 0
    assert "precision: 32-true, since this CPU has neither" in caplog.text
    assert "continues in 32-true, but was trained in bf16-mixed" in caplog.text
    assert read(tmp_path / "last.ckpt")["global_step"] == 4
    for subcommand in ("validate", "test", "predict"):
        caplog.clear()
        assert main([subcommand, *words, *small, auto, "--ckpt_path=last"]) == 0
        assert caplog.text.count("precision: 32-true, since this CPU has neither") == 1
        assert "the run continues" not in caplog.text
    caplog.clear()
    assert main(["validate", *words, *small, "--trainer.precision=bf16-mixed", "--ckpt_path=last"]) == 0
    assert "precision: bf16-mixed, as requested" in caplog.text
    assert caplog.text.count("will be slow") == 1
