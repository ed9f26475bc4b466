"""Public names of a package that are imported at their first use."""

import sys
from importlib import import_module


def lazy_names(package, home):
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package, to be assigned in its ``__init__.py``.

    Parameters
    ----------
    package : str
        Its ``__name__``.
    home : dict
        Public name -> module of the package that has it.

    Examples
    --------
    >>> __getattr__, __dir__, __all__ = lazy_names(__name__, {'energy_grid': 'lennard_jones'})  # doctest: +SKIP
    """
    public = list(home)

    def find(name):
        """Import a public name at its first use."""
        if name not in home:
            raise AttributeError(f'module {package!r} has no attribute {name!r}; it has {", ".join(public)}')
        value = getattr(import_module(f'{package}.{home[name]}'), name)
        setattr(sys.modules[package], name, value)  # found without this function from now on
        return value

    def names():
        """List what is there and what would be imported."""
        return sorted({*vars(sys.modules[package]), *public})

    return find, names, public
