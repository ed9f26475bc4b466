"""Errors of this package; where a builtin error says it all, that one is raised."""


class GenerationFailed(RuntimeError):
    """No structure passed the checks.

    Parameters
    ----------
    message : str
        The law, what came and the way out.
    reasons : dict of str to int, or None
        How often an attempt failed for each reason; the text lists them, the most frequent first.
    """

    def __init__(self, message, reasons=None):
        self.reasons = dict(reasons or {})
        super().__init__(message, self.reasons)  # the arguments as they came: an error of a worker process is pickled

    def __str__(self):
        message = str(self.args[0])
        if not self.reasons:
            return message
        ranked = sorted(self.reasons.items(), key=lambda item: -item[1])
        return f'{message}; failed attempts: {", ".join(f"{count} x {reason}" for reason, count in ranked)}'


class CheckpointError(ValueError):
    """A file is not a checkpoint, is damaged, or was made for something else."""


class MissingDependency(ImportError):
    """An optional package is needed and not installed; the text is the command that helps.

    Parameters
    ----------
    package : str
        Name of the package for pip.
    extra : str or None
        Extra of ase_diffusion that brings it.
    """

    def __init__(self, package, extra=None):
        self.package, self.extra = package, extra
        text = f'the package {package} is needed and not installed: pip install {package}'
        if extra:
            text += f"   (or, with the packages of this extra, in a checkout of ase_diffusion: pip install '.[{extra}]')"
        super().__init__(text, name=package)

    def __reduce__(self):
        return type(self), (self.package, self.extra)
