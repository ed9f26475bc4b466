"""Precision inside networks: geometry stays in float32 where matrix products may run in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import torch
from torch import Tensor, nn

Function = TypeVar('Function', bound=Callable)


def full_precision(function: Function) -> Function:
    """Run a function of tensors outside of autocast, with float32 in place of bfloat16 and float16 arguments."""

    @wraps(function)
    def call(*args, **options):
        tensors = [x for x in (*args, *options.values()) if isinstance(x, Tensor)]
        device = tensors[0].device.type if tensors else 'cpu'
        if not torch.is_autocast_enabled(device):
            return function(*args, **options)
        with torch.autocast(device, enabled=False):
            return function(*map(_single, args), **{name: _single(x) for name, x in options.items()})

    return call


def _single(x):
    return x.float() if isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16) else x


class LayerNorm(nn.LayerNorm):
    """Layer norm in float32, so that the sum over all blocks keeps its digits where matrix products run in bfloat16."""

    @full_precision
    def forward(self, x: Tensor) -> Tensor:
        """(..., F) -> (..., F), float32 under autocast."""
        return super().forward(x)
