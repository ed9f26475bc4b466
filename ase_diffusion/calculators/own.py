"""The shipped force fields that are calculators by name."""

OWN = {'ag-o': 'ag-o-forcefield', 'metal-oxide': 'metal-oxide-forcefield'}  # calculator: weights
