"""Selection of the device by `--device`."""

import torch

from visattn.errors import InputError


def choose_device(name: str = "auto") -> torch.device:
    """Select a device by name.

    Args:
        name: "auto" for an accelerator, if there is one, or else the CPU, or "cpu", "cuda", "cuda:1", "mps".

    Raises:
        InputError: if there is no such device.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device is {name}; it must be auto, cpu, cuda, cuda:N or mps")
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[device.type]
    if (device.index or 0) >= count:
        has = f"{count} such device{'s' * (count > 1)}" if count else "no such device"
        raise InputError(f"--device is {name}, but PyTorch finds {has}; leave it out, or give --device cpu")
    return device
