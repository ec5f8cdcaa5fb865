"""Selection of the precision: bfloat16 only on hardware with bfloat16 arithmetic.

Other CPUs convert every number to float32 and back: an encoder was 12 to 40 times slower than in float32.
"""

import logging
import os
import platform
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from visattn.errors import require_choice

log = logging.getLogger(__name__)

HALF = ("bf16-mixed", "bf16-true", "16-mixed", "16-true")  # Lightning's names

OPTIONS = ("32", "bf16", "auto")  # of programs other than training

_X86 = {"avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX"}  # the names in cpuinfo and Linux
_ARM = {"bf16": "ARM's BF16", "sve_bf16": "SVE's BF16", "svebf16": "SVE's BF16"}
# Limits on oneDNN's instruction set, set in the environment, that exclude bfloat16.
_ISA_WITHOUT = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}


class Support(NamedTuple):
    """Whether a device has bfloat16 arithmetic.

    Attributes:
        there: whether it has.
        reason: words that follow "since".
    """

    there: bool
    reason: str


def bfloat16_support(device: torch.device) -> Support:
    """Whether a device has instructions for bfloat16 products: CUDA from Ampere on, ROCm, and some CPUs."""
    if device.type == "cpu":
        return _of_cpu()
    if device.type == "cuda":
        return _of_gpu(device)
    return Support(False, f"bfloat16 is chosen only on CUDA and CPUs, not on {device.type}")


def resolved(devices: list[torch.device]) -> tuple[str, str]:
    """Resolve `precision: auto` on these devices: ("bf16-mixed" or "32-true", the reason).

    GPUs with only fast float16 get "32-true": float16 needs loss scaling, and no configuration was measured with it.
    """
    found = [bfloat16_support(device) for device in devices]
    lacking = next((support for support in found if not support.there), None)
    return ("32-true", lacking.reason) if lacking else ("bf16-mixed", found[0].reason)


def slowness(precision: str, device: torch.device) -> str | None:
    """A warning if the device has no instructions for a half precision, or None."""
    if precision not in HALF or (device.type == "cuda" and not precision.startswith("bf16")):
        return None
    support = bfloat16_support(device)
    if support.there or device.type not in ("cpu", "cuda"):
        return None
    return f"precision {precision} will be slow, many times slower than float32 on some machines: {support.reason}"


def of_option(precision: str, device: torch.device) -> Literal["32", "bf16"]:
    """Resolve `--precision`: "auto" selects the fast precision of the device; a warning says if "bf16" is slow.

    Raises:
        InputError: if it is not one of OPTIONS.
    """
    require_choice("--precision", precision, OPTIONS)
    if precision == "auto":
        return "bf16" if bfloat16_support(device).there else "32"
    if precision == "bf16":
        if sentence := slowness("bf16-mixed", device):
            log.warning(sentence)
        return "bf16"
    return "32"


def autocast(precision: Literal["32", "bf16"], device: torch.device) -> torch.autocast:
    """A context with the precision chosen by `of_option`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def cpu_features() -> set[str]:
    """Names of this CPU's instruction sets, such as `avx512_bf16`, `amx_bf16` and `bf16`."""
    if hasattr(torch.cpu, "get_capabilities"):
        return {name for name, there in torch.cpu.get_capabilities().items() if there is True}
    try:  # PyTorch before 2.11
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return set()


def _of_cpu() -> Support:
    arm = platform.machine().lower() in ("aarch64", "arm64")
    known = _ARM if arm else _X86
    has = [name for feature, name in known.items() if feature in cpu_features()]
    if not has:
        return Support(False, f"this CPU has {'no BF16 instructions' if arm else 'neither AVX-512 BF16 nor AMX'}")
    if not torch.backends.mkldnn.is_available():
        return Support(False, f"this PyTorch has no oneDNN, which would use {has[0]}")
    if arm and platform.system() != "Linux":
        return Support(False, f"PyTorch uses {has[0]} on Linux only")
    for variable in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        if not arm and (isa := os.environ.get(variable, "")).upper() in _ISA_WITHOUT:
            return Support(False, f"{variable}={isa} forbids this CPU's {has[0]}")
    if not arm and (capability := torch.backends.cpu.get_cpu_capability()) in ("NO AVX", "DEFAULT", "AVX2"):
        return Support(False, f"PyTorch is held to {capability} (ATEN_CPU_CAPABILITY), below this CPU's {has[0]}")
    return Support(True, f"this CPU has {' and '.join(has)}")


def _of_gpu(device: torch.device) -> Support:
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip or properties.major >= 8:
        return Support(True, f"{properties.name} multiplies in bfloat16")
    return Support(
        False,
        f"{properties.name} (compute capability {properties.major}.{properties.minor}) does not multiply in bfloat16",
    )
