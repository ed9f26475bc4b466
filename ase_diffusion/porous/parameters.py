"""Lennard-Jones parameters of probes and frameworks.

Tables are dicts that users may extend or replace, with eps / kB in K and sigma in A. Pairs follow the Lorentz-Berthelot rules,
sigma = (sigma_i + sigma_j) / 2 and eps = sqrt(eps_i eps_j), unless given explicitly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

__all__ = ['PROBES', 'SILICA', 'UFF', 'Probe', 'find_probe', 'find_table', 'pair_parameters']

KCAL = 503.2195  # K: 1 kcal/mol / kB


@dataclass(frozen=True)
class Probe:
    """Probe molecule with one site.

    Parameters
    ----------
    name : str
    epsilon, sigma : float
        Self-interaction, in K and A.
    pairs : dict, optional
        Symbol of a framework atom -> (epsilon, sigma), explicit pairs in place of mixed ones. They belong to the table
        'silica' and are ignored with other tables.
    source : str
    """

    name: str
    epsilon: float
    sigma: float
    pairs: dict[str, tuple[float, float]] = field(default_factory=dict)
    source: str = ''

    def __post_init__(self) -> None:
        check_parameters(f'the probe {self.name}', (self.epsilon, self.sigma))
        for symbol, pair in self.pairs.items():
            check_parameters(f'{self.name} with {symbol}', pair)


ProbeLike = str | Probe | tuple[float, float]  # name, probe, or (epsilon in K, sigma in A)
FrameworkLike = str | Mapping[str, tuple[float, float]]  # name of a table, or symbol -> (epsilon in K, sigma in A)


def check_parameters(who: str, pair: tuple[float, float]) -> None:
    """Raise a ValueError unless a pair is (epsilon, sigma), both finite, epsilon >= 0 and sigma > 0."""
    try:
        epsilon, sigma = (float(value) for value in pair)
        good = np.isfinite([epsilon, sigma]).all() and epsilon >= 0 and sigma > 0
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f'Lennard-Jones parameters are (epsilon >= 0 in K, sigma > 0 in A); {who} has {pair!r}')


_HIRSCHFELDER = 'Hirschfelder, Curtiss, Bird, Molecular Theory of Gases and Liquids (1954), table I-A'
PROBES = {
    probe.name: probe
    for probe in (
        Probe(
            'CH4',
            148.0,
            3.73,
            {'O': (115.0, 3.47)},
            'Martin, Siepmann, J. Phys. Chem. B 102, 2569 (1998); with O of '
            'silica: Garcia-Perez et al., Adsorption 13, 469 (2007)',
        ),
        Probe('Ar', 119.8, 3.405, source=_HIRSCHFELDER),
        Probe('Kr', 171.0, 3.60, source=_HIRSCHFELDER),
        Probe('Xe', 221.0, 4.10, source=_HIRSCHFELDER),
        Probe('N2', 95.05, 3.698, source=_HIRSCHFELDER + '; one site, no charges'),
        Probe('CO2', 195.2, 3.941, source='Svehla, NASA TR R-132 (1962); one site, no charges'),
    )
}

# Symbol -> (x in A, D in kcal/mol) of Rappe et al., J. Am. Chem. Soc. 114, 10024 (1992), table 1; H to Lr in order
_UFF = """\
2.886 .044 2.362 .056 2.451 .025 2.745 .085 4.083 .180 3.851 .105 3.660 .069 3.500 .060 3.364 .050 3.243 .042
2.983 .030 3.021 .111 4.499 .505 4.295 .402 4.147 .305 4.035 .274 3.947 .227 3.868 .185 3.812 .035 3.399 .238
3.295 .019 3.175 .017 3.144 .016 3.023 .015 2.961 .013 2.912 .013 2.872 .014 2.834 .015 3.495 .005 2.763 .124
4.383 .415 4.280 .379 4.230 .309 4.205 .291 4.189 .251 4.141 .220 4.114 .040 3.641 .235 3.345 .072 3.124 .069
3.165 .059 3.052 .056 2.998 .048 2.963 .056 2.929 .053 2.899 .048 3.148 .036 2.848 .228 4.463 .599 4.392 .567
4.420 .449 4.470 .398 4.500 .339 4.404 .332 4.517 .045 3.703 .364 3.522 .017 3.556 .013 3.606 .010 3.575 .010
3.547 .009 3.520 .008 3.493 .008 3.368 .009 3.451 .007 3.428 .007 3.409 .007 3.391 .007 3.374 .006 3.355 .228
3.640 .041 3.141 .072 3.170 .081 3.069 .067 2.954 .066 3.120 .037 2.840 .073 2.754 .080 3.293 .039 2.705 .385
4.347 .680 4.297 .663 4.370 .518 4.709 .325 4.750 .284 4.765 .248 4.900 .050 3.677 .404 3.478 .033 3.396 .026
3.424 .022 3.395 .022 3.424 .019 3.424 .016 3.381 .014 3.326 .013 3.339 .013 3.313 .013 3.299 .012 3.286 .012
3.274 .011 3.248 .011 3.236 .011"""  # x is the distance of the minimum, sigma 2^(1/6) times smaller
_PAIRS = np.array(_UFF.split(), float).reshape(-1, 2).tolist()
UFF = {chemical_symbols[z]: (depth * KCAL, x / 2 ** (1 / 6)) for z, (x, depth) in enumerate(_PAIRS, 1)}

# O: mixes with the methane of PROBES to its explicit pair; Si does not interact; other elements are from UFF
SILICA = {**UFF, 'O': (115.0**2 / 148.0, 2 * 3.47 - 3.73), 'Si': (0.0, 1.0)}
TABLES = {'silica': SILICA, 'uff': UFF}


def find_probe(probe: ProbeLike) -> Probe:
    """Return a probe by name; a `Probe` is returned unchanged, a pair (epsilon, sigma) becomes one.

    Raises
    ------
    ValueError
        No probe of this name is in `PROBES`.
    """
    if isinstance(probe, Probe):
        return probe
    if isinstance(probe, str):
        if probe not in PROBES:
            raise ValueError(
                f'a probe is a name in the table ase_diffusion.porous.PROBES ({", ".join(PROBES)}), a Probe, or '
                f'(epsilon in K, sigma in A); got {probe!r}; add it to the table or pass its numbers'
            )
        return PROBES[probe]
    check_parameters('the probe', probe)
    return Probe('probe', float(probe[0]), float(probe[1]))


def find_table(framework: FrameworkLike) -> dict[str, tuple[float, float]]:
    """Return a table of framework atoms by name, or a dict merged over that of silica.

    Raises
    ------
    ValueError
        The name is unknown, or an entry of the dict is not an element with a pair of numbers.
    """
    if isinstance(framework, str):
        if framework.lower() not in TABLES:
            raise ValueError(
                f'a framework table is one of {", ".join(TABLES)}, or a dict symbol -> (epsilon in K, sigma in A); '
                f'got {framework!r}'
            )
        return TABLES[framework.lower()]
    if not hasattr(framework, 'items'):
        raise ValueError(f'a framework table is a name or a dict symbol -> (epsilon, sigma); got {framework!r}')
    for symbol, pair in framework.items():
        if symbol not in atomic_numbers:
            raise ValueError(f'a framework table maps element symbols to (epsilon, sigma); {symbol!r} is no element')
        check_parameters(symbol, pair)
    return {**SILICA, **framework}


def unlisted(symbols: Iterable[str], framework: FrameworkLike = 'silica') -> set[str]:
    """Return the elements that take their parameters from UFF beside the O of silica, which holds those of silicon, too."""
    if isinstance(framework, str) and framework.lower() != 'silica':
        return set()
    known = {'Si', 'O', 'X'} | (set() if isinstance(framework, str) else set(framework))
    if not isinstance(framework, str) and 'O' in framework:  # another oxygen
        return set()
    return {str(symbol) for symbol in symbols} - known


def unlisted_text(elements: Iterable[str]) -> str:
    """Return the warning about elements that the table of silica takes from UFF."""
    names = ', '.join(sorted(elements))
    return (
        f"the framework table 'silica' has Si and O only, and {names} from UFF, beside an O that holds the dispersion of Si; "
        "for other frameworks take framework='uff' (--framework uff) or a dict of parameters"
    )


def pair_parameters(
    symbols: Iterable[str], probe: ProbeLike = 'CH4', framework: FrameworkLike = 'silica'
) -> dict[str, tuple[float, float]]:
    """Return the parameters of a probe with framework elements.

    Parameters
    ----------
    symbols : iterable of str
    probe : str, Probe or (epsilon, sigma)
        Name in `PROBES`, or values in K and A.
    framework : str or dict
        'silica' (O and Si of silica, UFF for other elements), 'uff', or symbol -> (epsilon, sigma) merged over 'silica'.
        Explicit pairs of a probe apply to the entries of silica only; entries of the dict are mixed.

    Returns
    -------
    dict
        Symbol -> (epsilon, sigma) in K and A.

    Raises
    ------
    ValueError
        The probe, table or an element is unknown.
    """
    probe, table = find_probe(probe), find_table(framework)
    found = {}
    for symbol in dict.fromkeys(symbols):
        if symbol not in table:
            name = framework if isinstance(framework, str) else 'that was passed'
            raise ValueError(
                f'the framework table {name} has no parameters for {symbol!r}; '
                f"pass framework={{'{symbol}': (epsilon in K, sigma in A)}}"
            )
        if symbol in probe.pairs and table[symbol] == SILICA.get(symbol) and table is not UFF:
            found[symbol] = probe.pairs[symbol]
        else:
            epsilon, sigma = table[symbol]
            found[symbol] = (float(np.sqrt(epsilon * probe.epsilon)), (sigma + probe.sigma) / 2)
    return found
