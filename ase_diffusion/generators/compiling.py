"""Compilation of networks with torch, with the plain network as the way out."""

from __future__ import annotations

import logging

import torch

log = logging.getLogger(__name__)


def compile_core(network: torch.nn.Module) -> None:
    """Compile ``network.core`` with torch; where that fails, the plain network goes on and a warning says so."""
    plain = network.core
    fast = torch.compile(plain, dynamic=True)

    def core(*args):
        try:
            return fast(*args)
        except Exception as error:  # compilers fail in many ways; the result does not depend on them
            log.warning('torch.compile failed (%s); going on without it', str(error).splitlines()[0] if str(error) else error)
            network.core = plain
            return plain(*args)

    network.core = core


def copy_network(network: torch.nn.Module) -> torch.nn.Module:
    """Return a network of the same class, settings and weights, to be trained without changing this one."""
    copy = type(network)(**network.settings)
    copy.load_state_dict(network.state_dict())
    return copy.to(next(network.parameters()).device)
