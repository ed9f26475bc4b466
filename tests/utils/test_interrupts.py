"""An interrupt in a held block comes after it, never inside and never lost."""

import signal
import threading

import pytest

from ase_diffusion.utils.interrupts import held_interrupts


def test_an_interrupt_waits_for_the_end_of_the_block():
    done = []
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012  what runs inside is the point
            with held_interrupts():
                signal.raise_signal(signal.SIGINT)
                done.append('all of it')
            done.append('not reached')
        assert done == ['all of it']
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)


def test_an_ignored_interrupt_stays_ignored():
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_interrupts():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)


def test_errors_pass_and_the_handler_returns():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), held_interrupts():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_run_as_they_are():
    done = []

    def work():
        with held_interrupts():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
