"""The device to compute on."""

import torch

__all__ = ['pick_device']


def pick_device(device=None):
    """Return a device that is there.

    Parameters
    ----------
    device : None, str, int or torch.device
        None is the current CUDA device where there is one, and else the CPU.

    Returns
    -------
    torch.device

    Raises
    ------
    ValueError
        The device is not known, or not on this machine.
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
