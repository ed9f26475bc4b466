"""Choice of the torch device."""

from __future__ import annotations

import torch

__all__ = ['pick_device']


def pick_device(device: str | int | torch.device | None = None) -> torch.device:
    """Return a device that is available.

    Parameters
    ----------
    device : None, str, int or torch.device
        None is the current CUDA device if there is one, otherwise the CPU.

    Returns
    -------
    torch.device

    Raises
    ------
    ValueError
        The device is unknown or not available on this machine.
    """
    if device is None:
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        here = ['cpu', *(f'cuda:{index}' for index in range(torch.cuda.device_count()))]
        raise ValueError(
            f'the device is one that torch finds on this machine ({", ".join(here)}); got {str(device)!r}; '
            'take one of them, or None for the best'
        ) from error
    return device
