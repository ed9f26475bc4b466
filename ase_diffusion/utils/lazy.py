"""Public names of a package that are imported at their first use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, home: Mapping[str, str | None]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package, to be assigned in its ``__init__.py``.

    Parameters
    ----------
    package : str
        Its ``__name__``.
    home : dict of str to str or None
        Public name -> module of the package that defines it; None for a module or folder of the package itself.

    Examples
    --------
    >>> __getattr__, __dir__, __all__ = lazy_names(__name__, {'energy_grid': 'lennard_jones'})  # doctest: +SKIP
    """
    public = list(home)

    def find(name: str) -> Any:
        """Import a public name at its first use."""
        if name not in home:
            raise AttributeError(f'module {package!r} has no attribute {name!r}; it has {", ".join(public)}')
        module = import_module(f'{package}.{home[name] or name}')
        value = module if home[name] is None else getattr(module, name)
        setattr(sys.modules[package], name, value)  # later uses find it without this function
        return value

    def names() -> list[str]:
        """List the imported names and those that would be imported."""
        return sorted({*vars(sys.modules[package]), *public})

    return find, names, public
