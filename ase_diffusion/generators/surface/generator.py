"""Generate overlayers on a frozen substrate (Ronne, Aspuru-Guzik and Hammer, Phys. Rev. B 110, 235427, 2024)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self, overload

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms

from ...calculators.default import default_calculator
from ...calculators.names import CalculatorLike
from ...diffusion import Batch
from ...representations import Failure
from ...representations.slab import (
    Slab,
    SlabTemplate,
    check_mobile_atoms,
    check_right_way_up,
    check_slab,
    check_window,
    mobile_layer_height,
    surface_height,
)
from ...training.surface import train_surface
from ...training.surface_data import Overlayers
from ...utils.atoms import (
    VALID_RATIO,
    check_extendable,
    check_one_piece,
    composition_text,
    copy_atoms,
    frozen_mask,
    parse_formula,
    unsupported_constraints,
)
from ...utils.checks import check_integer, check_keywords
from ...utils.provenance import forget_notes
from ..base import Generator, collect, record_of
from ..compiling import copy_network
from ..relaxation import relax_keywords
from ..selection import BestOf
from ..tasks import FromNoise, FromStructures, check_noise, given_structures
from ..text import formula_text
from .choice import default_model, nearest_measured
from .guidance import Guidance
from .inpainting import Inpaint, as_template, check_indices
from .molecules import Molecules, rigid_process, whole
from .selftraining import SelfTraining, SelfTrainingSchedule

log = logging.getLogger(__name__)


class SurfaceDiffusion(Generator):
    """Generate overlayers of a given composition on a slab: of atoms, of molecules, or of both.

    Parameters
    ----------
    slab : Atoms
        Substrate; its atoms stay where they are, bit by bit. Those in ``FixAtoms`` stay there in relaxations, too. Periodic in
        the plane only. Never changed.
    stoich : str or dict, optional
        Atoms that are put on it, e.g. ``'Ag12O6'`` or ``{'Ag': 12, 'O': 6}``.
    molecules : list of str or Atoms, optional
        Molecules that are put on it: names that :func:`ase.build.molecule` knows, e.g. ``['CO', 'H2O']``, or molecules. They are
        the last atoms, one after another, each in its own order. All distances within a molecule are kept while overlayers are
        generated; only ``relax`` changes them.
    height : (low, high), optional
        Window of the generated atoms in A above the topmost atom that is not generated; default: that of the training data,
        higher by as much as generated slab atoms reach above the others, and in proportion where there are more atoms per area
        than in the data.
    generate_slab : bool
        Whether slab atoms that are not in ``FixAtoms`` are generated from noise as well. By default they are held while the
        overlayer is generated and relax with it afterwards, which costs less and gives lower energies.
    model : str or Path, optional
        A shipped model, a checkpoint, or ``'untrained'`` (then :meth:`fit` comes first). Default: ``'ag-o-overlayer'`` for silver
        and oxygen on silver; else ``'metal-oxide-overlayer'`` (25 metals with H, C, N, O, S; other metals), but
        ``'renamed-silver'`` for metals and oxygen on (110) and steps.
    calculator, guidance : optional
        Force guidance: ``guidance=True``, a dict of the parameters of
        :class:`ase_diffusion.generators.surface.guidance.Guidance`, or one of these; forces come from ``calculator`` (name, ASE
        calculator or factory; default: the shipped force field that knows the slab). ``guidance=EMT()`` says both at once.
    relax : dict, optional
        Keywords of :func:`ase_diffusion.relax.relax`; every structure is relaxed before it is returned. One whose relaxation
        fails is rejected, and another takes its place.
    best_of : int
        Generate this many candidates for each structure and return the one of lowest energy: that of ``relax`` where it is
        given, else a single point of ``calculator`` (default: the first of 'ag-o', 'metal-oxide', 7net-mf-0 and CHGNet that knows
        the slab; one that is given guides as well unless ``guidance=False``). It costs as many generations, and saves
        relaxations with an expensive calculator; the structures are then no fair sample of the model's distribution.
        ``best_of=8, relax={'calculator': 'metal-oxide'}`` finds the lowest energies.
    steps, sampler : optional
        50 steps of ``'renoised_ancestral'`` by default, which finds low energies; 100 of ``'ancestral'`` cost the same and show
        how the training data are spread.
    rng, batch_size, device, logfile, trajectory, denoising_trajectory, maxtries
        See :class:`ase_diffusion.generators.base.Generator`.

    Raises
    ------
    ValueError
        The slab cannot carry an overlayer, the composition is no formula or has elements the model never saw, a molecule is
        unknown, the window is no window or too small.
    CheckpointError
        The model cannot be loaded.

    Examples
    --------
    >>> gen = SurfaceDiffusion(slab, stoich='Ag12O6')  # doctest: +SKIP
    >>> atoms = gen.sample()                           # doctest: +SKIP
    """

    kind: ClassVar[str] = 'surface'
    default_sampling: ClassVar[dict] = {'sampler': 'renoised_ancestral', 'steps': 50}
    default_condition, default_guidance_scale = 0.0, 2.0
    compile_from: ClassVar[int] = 15_000  # structures times network calls; below, compiling takes longer than it saves

    def __init__(
        self,
        slab: Atoms,
        stoich: str | Mapping[str, int] | None = None,
        *,
        molecules: Sequence[str | Atoms] | None = None,
        height: tuple[float, float] | None = None,
        generate_slab: bool = False,
        model: str | Path | None = None,
        calculator: CalculatorLike | None = None,
        guidance: CalculatorLike | Guidance | dict | bool | None = None,
        relax: dict | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_slab(slab)
        check_extendable(slab)
        check_one_piece(slab)
        self.molecules = Molecules(() if molecules is None else molecules)
        if stoich is None and not self.molecules.each:
            raise TypeError("an overlayer is atoms, a formula stoich='Ag12O6', or molecules=['CO', 'H2O'], or both; got neither")
        self.stoich = None if stoich is None else composition_text(stoich)
        self.numbers = ([] if stoich is None else parse_formula(self.stoich)) + self.molecules.numbers
        self.generate_slab, held = bool(generate_slab), np.arange(len(slab) + len(self.numbers)) < len(slab)
        self.overlayer = SlabTemplate(_extended(slab, self.numbers), None if generate_slab else held)
        self.relax = relax_keywords(relax, self.device, self.overlayer)
        self._height, self._slab = height, copy_atoms(slab)
        self._thickness = mobile_layer_height(slab) if generate_slab else 0.0
        self._load(default_model(self.overlayer) if model is None else model)
        if not self.networks:
            low, _ = (0.0, 0.0) if height is None else check_window(height, self.overlayer)
            self._check_slab_atoms(low)
        self.guidance = Guidance.coerce(guidance, calculator, self.steps, self.overlayer, self.device)
        if self.best_of > 1:
            judge = None
            if self.relax is None:
                judge = default_calculator([self.template], own_first=True) if calculator is None else calculator
            self.selection = BestOf(self.best_of, judge, self.device)
            self.selection.check(self.overlayer)
        self._tell(slab)

    def _tell(self, slab: Atoms) -> None:
        """Log which atoms of the slab are generated and which of its constraints are not obeyed."""
        loose = int((~frozen_mask(slab)).sum())
        if loose:
            what = 'generated as well' if self.generate_slab else 'held while structures are generated (generate_slab=False)'
            self.log.write(f'SurfaceDiffusion: {loose} slab atoms are not in FixAtoms; they are {what}')
        if names := unsupported_constraints(slab):
            log.warning(
                'of the constraints of the slab only FixAtoms holds atoms while structures are generated; %s is kept and '
                'holds them afterwards only',
                ', '.join(names),
            )

    @property
    def template(self) -> Atoms:
        """The slab with the new atoms last, at a placeholder height."""
        return self.overlayer.atoms

    def _adapt(self, representation: Slab, networks: dict, header: dict) -> Slab:
        hint = "; train your own with SurfaceDiffusion(slab, stoich, model='untrained').fit(data), or use RandomStructureSearch"
        self.overlayer.check_known(header.get('data', {}), self.model, hint)
        if news := self.overlayer.news(header.get('data', {})):
            log.warning('%s never saw %s; %s', self.model, news, nearest_measured(self.model, self.overlayer))
        scale = representation.scale(self.overlayer)
        low, high = (x / scale for x in representation.height)
        new = self.overlayer.measures['coverage'] * len(self.numbers) / int((~self.overlayer.frozen).sum())
        high *= max(1.0, new / header.get('data', {}).get('coverage', (0.0, math.inf))[1])
        height = (low, high + self._thickness) if self._height is None else self._height
        low, high = check_window(height, self.overlayer)
        if high > (room := self._slab.cell[2, 2] - self.overlayer.surface_z):
            log.warning(
                'the window reaches %.1f A above the slab, the cell %.1f A: add vacuum, slab.center(vacuum=%.0f, axis=2)',
                high,
                room,
                high + 5,
            )
        self._check_slab_atoms(low)
        return replace(representation, height=(low * scale, high * scale))

    def _check_slab_atoms(self, low: float) -> None:
        """Raise a ValueError where slab atoms that are generated lie below the window, or the surface is the lower side."""
        if self.generate_slab:
            check_mobile_atoms(self._slab, low)
        else:
            check_right_way_up(self._slab)

    def _as_template(self, atoms: Atoms) -> SlabTemplate:
        return as_template(atoms, self.overlayer, len(self.molecules.numbers))

    @property
    def least_noise(self) -> float:
        """The least noise of :meth:`perturb`, A."""
        return self.process.schedule.sigma_min / self._scale

    @property
    def _scale(self) -> float:
        """By what the model multiplies lengths of this slab."""
        return self.representation.scale(self.overlayer)

    def _auto_batch_size(self) -> int:
        """Return a batch whose largest tensors stay under the 32 MB from which glibc maps memory anew at each use."""
        return max(1, min(64, 800 // len(self.template)))

    def _reason_to_reject(self, atoms: Atoms) -> str | None:
        ratio = atoms.info['key_value_pairs']['min_distance_ratio']
        return None if ratio >= VALID_RATIO else f'atoms closer than {VALID_RATIO} of the sum of covalent radii'

    def _start(self) -> float:
        """Return the time at which the in-plane noise is uniform: sigma = half the longest in-plane cell vector."""
        longest = float(self.template.cell.lengths()[:2].max()) * self._scale
        return self.process.schedule.time(0.5 * longest)

    def _template(self, seed: int) -> SlabTemplate:
        return self.overlayer

    def _task(self, conditions: dict | None = None) -> FromNoise:
        return FromNoise(self._template, self.steps, self._start())

    def _sample_batch(self, seeds: list[int], conditions: dict, task: FromNoise) -> Batch:
        batch = self._encode(seeds, conditions, task)
        kept = task.rows(batch) if isinstance(task, Inpaint) else None
        bodies = self.molecules.bodies(batch, self._scale, kept)
        guide = None if self.guidance is None else self.guidance.bind(batch, self.representation, kept)
        guides, process = () if guide is None else (guide,), rigid_process(self.process, bodies)
        final = self._denoise(batch, seeds, conditions, task, guides=guides, process=process)
        if guide is not None:
            final = self.guidance.finish(final, guide, self.process, bodies)
            final.extras['labels'] = {'guidance_calls': guide.calls // len(seeds)}
        return whole(final, bodies)

    def _finish(self, atoms: Atoms) -> Atoms | Failure:
        if not np.isfinite(atoms.positions[~self.overlayer.frozen]).all():
            return Failure('positions are not finite, the checkpoint may be damaged')
        return atoms

    def _shown_formula(self, atoms: Atoms) -> str:
        return atoms[~self.overlayer.frozen].get_chemical_formula()

    def _identity(self) -> dict:
        told = {} if self.stoich is None else {'stoich': formula_text(self.stoich, parse_formula(self.stoich))}
        return told | ({'molecules': '+'.join(self.molecules.names)} if self.molecules.names else {})

    @overload
    def perturb(self, atoms: Atoms | Sequence[Atoms], noise: float = 0.3, n: int = 8, **conditions: Any) -> list[Atoms]: ...
    @overload
    def perturb(self, atoms: Atoms | Sequence[Atoms], noise: float = 0.3, n: None = None, **conditions: Any) -> Atoms: ...
    def perturb(
        self, atoms: Atoms | Sequence[Atoms], noise: float = 0.3, n: int | None = 8, **conditions: Any
    ) -> Atoms | list[Atoms]:
        """Noise given structures a little and denoise them: neighbors of theirs that the model finds likely.

        Parameters
        ----------
        atoms : Atoms or list of Atoms
            Overlayers of this composition on this slab, relaxed or not; of several, each has its turn. Never changed. Fixed
            atoms come back bit by bit; mobile atoms outside the window are put back into it; molecules come back as the generator
            knows them.
        noise : float
            Standard deviation of the Gaussian noise in A, as in :meth:`ase.Atoms.rattle`; more than the least that the model
            knows (0.02 with the shipped one). 0.1 leaves a relaxed structure in its minimum, 0.3 to 1 moves some atoms to other
            sites, and half the longest cell vector or more forgets everything, as :meth:`sample` does.
        n : int or None
            Number of structures; None returns one Atoms and not a list.
        conditions
            As for :meth:`sample`, which also describes what is raised in addition.

        Raises
        ------
        ValueError
            noise is not positive; a structure has another cell, substrate or composition.
        """
        count, conditions = check_integer('n', 1 if n is None else n, 1), self.check_conditions(conditions)
        sigma = check_noise(noise, self.least_noise)
        start = min(self.process.schedule.time(sigma * self._scale), self._start())
        parents = [self._as_template(one) for one in given_structures(atoms)]
        task = FromStructures(parents, sigma, self.steps, start, self._start())
        return collect(self._iterate(count, conditions, task), n)

    @overload
    def complete(
        self, atoms: Atoms, indices: int | Sequence[int] | np.ndarray, n: None = None, *, repeats: int = 5, **conditions: Any
    ) -> Atoms: ...
    @overload
    def complete(
        self, atoms: Atoms, indices: int | Sequence[int] | np.ndarray, n: int, *, repeats: int = 5, **conditions: Any
    ) -> list[Atoms]: ...
    def complete(
        self,
        atoms: Atoms,
        indices: int | Sequence[int] | np.ndarray,
        n: int | None = None,
        *,
        repeats: int = 5,
        **conditions: Any,
    ) -> Atoms | list[Atoms]:
        """Generate some mobile atoms of a structure anew; all others stay where they are, bit by bit.

        Parameters
        ----------
        atoms : Atoms
            An overlayer of this composition on this slab. Never changed. Where the atoms to generate are does not matter.
        indices : int or sequence of int
            Atoms to generate; none of them fixed, and molecules as a whole.
        n : int or None
            Number of structures; None returns one Atoms and not a list.
        repeats : int
            How often every step is taken (and paid for); with few the new atoms hardly know of the kept ones.
        conditions
            As for :meth:`sample`, which also describes what is raised in addition.

        Raises
        ------
        ValueError
            Indices out of range, of fixed atoms or of a part of a molecule; the structure has another cell, substrate or
            composition.

        Notes
        -----
        The kept atoms are noised to the level of each step, see
        :class:`ase_diffusion.diffusion.inpainting.Inpainting`. They are not displaced by force guidance, and the option
        ``relax`` of the generator is not applied, since it would move them.
        """
        count, conditions = check_integer('n', 1 if n is None else n, 1), self.check_conditions(conditions)
        template = self._as_template(atoms)
        indices = check_indices(indices, template)
        self.molecules.check_whole(indices, len(template.atoms))
        task = Inpaint(template, indices, check_integer('repeats', repeats, 1), self._start(), self.steps)
        return collect(self._iterate(count, conditions, task), n)

    def _task_again(self, values: dict, conditions: dict) -> FromNoise:
        if values['name'] != Inpaint.name:
            return super()._task_again(values, conditions)
        [parent] = self._parents_again(values['parents'])
        return Inpaint(parent, values['indices'], values['repeats'], self._start(), self.steps)

    def _parents_again(self, parents: list[dict]) -> list[SlabTemplate]:
        return [self._as_template(parent) for parent in super()._parents_again(parents)]

    def again(self, atoms: Atoms) -> Atoms:
        record_of(atoms)
        self._as_template(atoms)  # raises a ValueError for another slab
        return super().again(atoms)

    again.__doc__ = Generator.again.__doc__

    @classmethod
    def _arguments(cls, told: dict, record: dict, atoms: Atoms) -> dict:
        slab = copy_atoms(atoms)
        molecules = Molecules.fromdict(told.get('molecules', []))
        del slab[len(slab) - len(Molecules(molecules).numbers) - len(parse_formula(told['stoich']) if told['stoich'] else []) :]
        slab.calc = None
        own = {'stoich': told['stoich'], 'molecules': molecules, 'height': told['height']}
        own['generate_slab'] = told.get('generate_slab', True)
        return {**super()._arguments(told, record, atoms), 'slab': slab, **own}

    def fit(
        self, data: Iterable[Atoms] | str | Path, out: str | Path | None = None, *, steps: int = 20_000, **options: Any
    ) -> Self:
        """Train on overlayers and use the result; returns self.

        Parameters
        ----------
        data : list of Atoms, or a path that :func:`ase_diffusion.data.read_frames` reads (npz, ASE db, traj, extxyz)
            Relaxed structures, best with frames along the way; FixAtoms on the substrate. With energies the model learns the
            condition ``energy``.
        out : path, optional
            Folder for checkpoints and log; the same folder resumes an interrupted training. Default: a temporary one.
        steps : int
        options : see :func:`ase_diffusion.training.surface.train_surface` and :func:`ase_diffusion.training.train`
            (``minutes``, ``lr``, ``batch_size``, ``features``, ``compile_network``, ...).
        """
        return super().fit(data, out, steps=steps, **options)

    def _train(self, images: list[Atoms], out, **options) -> Path:
        overlayers = Overlayers.from_atoms(self.held(images))
        height = self._height
        if self.networks:
            options.setdefault('network', copy_network(self.network).requires_grad_(True))
            options.setdefault('spacing', self.representation.spacing)
        if height is not None:
            scale = Slab(spacing=options.get('spacing')).scale(self.overlayer)
            height = [x * scale for x in height]
        elif self.networks:
            height = self.header['representation']['height']
        mobile, substrate = overlayers.elements()
        self.overlayer.check_known({'mobile_elements': mobile, 'substrate_elements': substrate}, 'the data')
        return train_surface(overlayers, out, **{'height': height, **options})

    def held(self, images: list[Atoms]) -> list[Atoms]:
        """Return structures for a training in which what this generator holds is in FixAtoms.

        Those that begin with the atoms of the slab, of which some are not in FixAtoms, are copied; others pass.
        """
        n = len(self._slab)
        if self.generate_slab or frozen_mask(self._slab).all():
            return images
        out = []
        for atoms in images:
            same = len(atoms) > n and (atoms.numbers[:n] == self._slab.numbers).all() and not frozen_mask(atoms)[:n].all()
            calc, atoms = atoms.calc, copy_atoms(atoms) if same else atoms
            if same:
                atoms.calc = calc
                atoms.set_constraint(FixAtoms(indices=range(n)))
            out.append(atoms)
        return out

    def fit_with_calculator(
        self, calculator: CalculatorLike, out: str | Path, *, options: dict | None = None, **plan: Any
    ) -> Self:
        """Train without data: sample, relax a little with ``calculator``, weigh by Boltzmann, train, again; returns self.

        In the spirit of GO-Diff (Ronne, Vegge and Bhowmik, arXiv 2510.13448). Round 0 relaxes random starts. Round k > 0 relaxes
        samples of the model so far, and random starts for a share ``explore``. The frames go into a buffer that keeps the
        ``buffer`` lowest; from it the training set of the round is drawn with weights exp(-E / T). T falls geometrically, and
        is raised where fewer than 10 structures would share the weight. Afterwards ``found`` holds the ends of all relaxations,
        the lowest first, and ``calculator_calls`` is the number of evaluations of energy and forces.

        Parameters
        ----------
        calculator : anything :func:`ase_diffusion.relax.get_calculator` takes
            Where it writes files or keeps wave functions (GPAW, VASP), a name or a factory gives a fresh one for each structure,
            in a folder of its own below ``out/calculations``.
        out : path
            Folder; the same call with the same folder goes on where it was stopped, and computes nothing twice.
        rounds, samples : int
            Rounds (10) and relaxations in each (20).
        relax_steps, fmax : int and float
            Most steps (30) of a relaxation and its largest force at convergence (0.05 eV/A).
        temperature : (first, last)
            eV per mobile atom, (0.2, 0.02).
        explore, buffer : float and int
            0.2 and 1000, see above.
        steps, seed : int
            Training steps of a round (400); seed of everything (0).
        options : dict, optional
            Of :func:`ase_diffusion.training.surface.train_surface` (``features``, ``blocks``, ``batch_size``, ``lr``, ...).

        Raises
        ------
        ValueError
            A setting has no meaning; the folder was begun with others.
        GenerationFailed
            The calculator failed for all structures of the first round, or random starts do not fit.
        TypeError
            A keyword or an option does not exist.
        """
        if self.molecules.given:
            raise ValueError(
                'fit_with_calculator begins with atoms at random, which are no molecules; make a generator with stoich alone, or '
                'fit on relaxed structures'
            )
        check_keywords('fit_with_calculator', plan, [each.name for each in fields(SelfTrainingSchedule)])
        work = SelfTraining(self, calculator, out, SelfTrainingSchedule(**plan), options or {})
        work.run()
        self.found, self.calculator_calls = work.found, work.calls
        return self

    def todict(self) -> dict:
        """Return what made the structures, JSON-serialisable."""
        height = [x / self._scale for x in self.representation.height] if self.networks else None
        told = {**super().todict(), 'stoich': self.stoich, 'height': height, 'generate_slab': self.generate_slab}
        return told | ({'molecules': self.molecules.todict()} if self.molecules.given else {})


def _extended(slab: Atoms, numbers: list[int]) -> Atoms:
    """Return the slab with new atoms last, at a placeholder height, with one new tag."""
    template = copy_atoms(slab)
    template.calc = None
    template.info.pop('adsorbate_info', None)
    forget_notes(template)
    place = [[0.0, 0.0, surface_height(slab) + 2.0]] * len(numbers)
    template.extend(Atoms(numbers, place, tags=[int(slab.get_tags().max()) + 1] * len(numbers)))
    return template
