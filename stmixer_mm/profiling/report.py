"""The machine that figures are measured on."""

import os
import platform

import torch


def machine(device: str | torch.device) -> dict:
    """What figures depend on besides the program."""
    device = torch.device(device)
    name = platform.processor() or platform.machine()
    if device.type == 'cuda':
        name = torch.cuda.get_device_name(device)
    return dict(
        device=str(device),
        name=name,
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )
