"""Printing of compiled libraries."""

import ctypes
import os
import sys

import pytest

from ase_diffusion.utils.quiet import quiet_libraries


@pytest.mark.skipif(sys.platform == 'win32', reason='needs the C library of the process')
def test_only_what_c_prints_inside_is_lost(capfd):
    printf = ctypes.CDLL(None).printf
    print('before')
    printf(b'C before\n')
    with quiet_libraries():
        printf(b'C inside\n')
    with pytest.raises(KeyError), quiet_libraries():
        raise KeyError
    print('after', flush=True)
    ctypes.CDLL(None).fflush(None)
    out = capfd.readouterr().out
    assert 'inside' not in out and out.count('before') == 2 and out.endswith('after\n')


def test_without_a_standard_output(monkeypatch):
    monkeypatch.setattr(sys, 'stdout', None)
    with quiet_libraries():
        pass
    monkeypatch.undo()
    kept = os.dup(1)
    os.close(1)
    try:
        with quiet_libraries():
            pass
    finally:
        os.dup2(kept, 1)
        os.close(kept)
