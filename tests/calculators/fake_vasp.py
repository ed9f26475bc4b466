"""A stand-in for VASP: reads POSCAR, INCAR, KPOINTS and POTCAR as they were written, writes vasprun.xml and OUTCAR.

Springs hold every atom at the height of 11 A, wherever it is in the plane; the constant is in eV/A^2. INCAR's SYSTEM line, where
given, names a fault: ``fault exit``, ``fault unconverged`` or ``fault silent``.
"""

import pathlib
import sys

SPRING, HEIGHT = 40.0, 11.0

lines = pathlib.Path('POSCAR').read_text().splitlines()
incar = pathlib.Path('INCAR').read_text()
kpoints, potcar = pathlib.Path('KPOINTS').read_text(), pathlib.Path('POTCAR').read_text()
assert kpoints and potcar, 'VASP wants all four files'
if 'fault exit' in incar:
    sys.exit('ZBRENT: fatal error in bracketing')
if 'fault silent' in incar:
    sys.exit(0)

cell = [[float(x) for x in line.split()] for line in lines[2:5]]
symbols, counts = lines[5].split(), [int(n) for n in lines[6].split()]
first = 9 if lines[7].strip().lower().startswith('s') else 8
cartesian = lines[first - 1].strip().lower().startswith(('c', 'k'))
rows = [[float(x) for x in line.split()[:3]] for line in lines[first : first + sum(counts)]]
if not cartesian:
    rows = [[sum(f * cell[k][i] for k, f in enumerate(row)) for i in range(3)] for row in rows]
atoms = [symbol for symbol, n in zip(symbols, counts, strict=True) for _ in range(n)]
energy = sum(0.5 * SPRING * (row[2] - HEIGHT) ** 2 for row in rows)
forces = [(0.0, 0.0, -SPRING * (row[2] - HEIGHT)) for row in rows]


def vectors(name, values):
    """Return a varray."""
    return f'<varray name="{name}">' + ''.join(f'<v>{a:.10f} {b:.10f} {c:.10f}</v>' for a, b, c in values) + '</varray>'


volume = sum(cell[0][i] * (cell[1][i - 2] * cell[2][i - 1] - cell[1][i - 1] * cell[2][i - 2]) for i in range(3))
inverse = [(1 / cell[0][0], 0, 0), (0, 1 / cell[1][1], 0), (0, 0, 1 / cell[2][2])]  # read and not used
scaled = [(0.0, 0.0, row[2] / cell[2][2]) for row in rows]
structure = (
    f'<structure {{}}><crystal>{vectors("basis", cell)}<i name="volume">{volume}</i>{vectors("rec_basis", inverse)}'
    f'</crystal>{vectors("positions", scaled)}</structure>'
)
names = ('e_fr_energy', 'e_wo_entrp', 'e_0_energy')
energies = '<energy>' + ''.join(f'<i name="{name}">{energy}</i>' for name in names) + '</energy>'
info = ''.join(f'<rc><c>{symbol}</c><c>1</c></rc>' for symbol in atoms)
pathlib.Path('vasprun.xml').write_text(
    '<?xml version="1.0" encoding="ISO-8859-1"?><modeling><generator><i name="version" type="string">6.4.0</i></generator>'
    f'<kpoints>{vectors("kpointlist", [(0, 0, 0)])}<varray name="weights"><v>1.0</v></varray></kpoints>'
    '<parameters><separator name="electronic"><separator name="electronic spin"><i type="int" name="ISPIN">1</i></separator>'
    '</separator></parameters>'
    f'<atominfo><atoms>{len(atoms)}</atoms><types>{len(symbols)}</types><array name="atoms"><set>{info}</set></array></atominfo>'
    + structure.format('name="initialpos"')
    + f'<calculation><scstep>{energies}</scstep>{structure.format("")}{vectors("forces", forces)}'
    f'{vectors("stress", [(0, 0, 0)] * 3)}{energies}<dos><i name="efermi">1.5</i></dos></calculation>'
    + structure.format('name="finalpos"')
    + '</modeling>\n'
)
reason = 'EDIFF was not reached (unconverged)' if 'fault unconverged' in incar else 'because EDIFF is reached'
pathlib.Path('OUTCAR').write_text(
    f' vasp.6.4.0 stand-in\n   k-points  NKPTS = 1   k-points in BZ  NKDIM = 1   number of bands  NBANDS=  8\n'
    f'------------------------ aborting loop {reason} ----------------------\n'
)
