"""The built-in protocols."""

from collections.abc import Sequence

from oodbench.protocols.case import Case


def known(unknown: Sequence[str]) -> list[Case]:
    """Fitted on known samples, tested on known samples: wrong against right."""
    return [Case(exposed=(), tested=())]


def unknown_unknowns(unknown: Sequence[str]) -> list[Case]:
    """Fitted on known samples only, tested on every unknown set."""
    return [Case(exposed=(), tested=tuple(unknown))]


def known_unknowns(unknown: Sequence[str]) -> list[Case]:
    """Exposed to each unknown set alone, and to all; tested on every unknown set: the exposed × tested matrix."""
    alone = [Case(exposed=(name,), tested=tuple(unknown)) for name in unknown]
    return alone if len(unknown) == 1 else [*alone, Case(exposed=tuple(unknown), tested=tuple(unknown))]


def leave_one_out(unknown: Sequence[str]) -> list[Case]:
    """Exposed to all unknown sets but one, tested on that one."""
    return [Case(exposed=tuple(exposed for exposed in unknown if exposed != name), tested=(name,)) for name in unknown]


def covariate(unknown: Sequence[str]) -> list[Case]:
    """Fitted on known samples, tested on them and on those under a shift, each set alone: wrong against right."""
    return [Case(exposed=(), tested=(), known="with-covariate")]


def full_spectrum(unknown: Sequence[str]) -> list[Case]:
    """Fitted on known samples only; unknown sets against known samples and known ones under a shift together.

    Yang, Zhou, Liu 2023 (arXiv 2204.05306).
    """
    return [Case(exposed=(), tested=tuple(unknown), known="with-covariate")]
