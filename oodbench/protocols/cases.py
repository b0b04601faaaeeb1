"""The cases of the protocols that the user chose, each checked by the leak guard."""

import logging
from collections.abc import Iterator, Mapping, Sequence

from oodbench import registry
from oodbench.datasets.splits import SuiteSplits
from oodbench.errors import LeakError, OodbenchError, UsageError, blaming
from oodbench.protocols.case import Case, Protocol
from oodbench.protocols.leak_guard import refuse_leaks

logger = logging.getLogger(__name__)


def load_protocol(name: str) -> Protocol:
    """Import a protocol.

    Raises:
        UsageError: The name is unknown, or its target is not a function.
        MissingPrerequisiteError: Its package cannot be imported.
    """
    protocol: Protocol = registry.load("protocols", name)
    if not callable(protocol):
        raise UsageError(f"the protocol {name} is a {type(protocol).__name__}; expected a function to a list of Cases.")
    return protocol


def load_protocols(patterns: Sequence[str]) -> dict[str, Protocol]:
    """Import the protocols that match names and globs.

    A protocol that cannot be imported is left out with a warning if only a glob matches it.

    Raises:
        UsageError: A name is unknown, or no protocol is left.
        MissingPrerequisiteError: A protocol that is named cannot be imported.
    """
    loaded: dict[str, Protocol] = {}
    for pattern in patterns:
        for name in registry.matching("protocols", pattern):
            try:
                loaded.setdefault(name, load_protocol(name))
            except OodbenchError as error:
                _leave_out(name, patterns, error)
    _require_some(loaded, patterns)
    return loaded


def cases_of(protocols: Mapping[str, Protocol], patterns: Sequence[str], splits: SuiteSplits) -> dict[str, list[Case]]:
    """The cases of each protocol.

    A protocol that fails is left out with a warning if only a glob matches it.

    Args:
        protocols: The protocols by name.
        patterns: The names and globs that the user typed.
        splits: The splits of the suite.

    Raises:
        LeakError: A case would test on samples that are fitted on.
        UsageError: A protocol that is named returns cases that cannot be run, or no protocol is left.
    """
    cases: dict[str, list[Case]] = {}
    for name, protocol in protocols.items():
        try:
            asked = list(_cases(name, protocol, splits))
        except LeakError:
            raise
        except UsageError as error:
            _leave_out(name, patterns, error)
            continue
        of_protocol = [case for case in asked if _has_samples(case, splits)]
        if of_protocol:
            cases[name] = of_protocol
        else:
            needs_shifted = any(case.known == "with-covariate" for case in asked)
            _leave_out_empty(name, patterns, needs_shifted=needs_shifted)
    _require_some(cases, patterns)
    return cases


def _cases(name: str, protocol: Protocol, splits: SuiteSplits) -> Iterator[Case]:
    """The cases of a protocol; those that the suite has samples for are checked by the leak guard."""
    with blaming(f"the protocol {name}"):
        returned = list(protocol(list(splits.unknown)))
    if not returned:
        raise UsageError(f"the protocol {name} returned no case for the unknown sets {', '.join(splits.unknown)}.")
    for i, case in enumerate(returned):
        if not isinstance(case, Case):
            raise UsageError(f"the protocol {name} returned a {type(case).__name__}; expected oodbench Cases.")
        strange = [dataset for dataset in (*case.exposed, *case.tested) if dataset not in list(splits.unknown)]
        if strange:
            raise UsageError(f"the protocol {name} asks for {strange[0]!r}; the suite has {', '.join(splits.unknown)}.")
        if case in returned[:i] or any(len(set(names)) < len(names) for names in (case.exposed, case.tested)):
            raise UsageError(
                f"the protocol {name} asks twice for the same, exposed to {', '.join(case.exposed) or 'nothing'} and "
                f"tested on {', '.join(case.tested) or 'the known set'}; expected each once."
            )
        if _has_samples(case, splits):
            refuse_leaks(splits, case)
        yield case


def _has_samples(case: Case, splits: SuiteSplits) -> bool:
    """Whether the suite has the exposed samples and the covariate sets that a case needs."""
    has_known = case.known == "test" or bool(splits.covariate)
    return has_known and all(dataset in splits.exposed for dataset in case.exposed)


def _leave_out(name: str, patterns: Sequence[str], error: OodbenchError) -> None:
    """Warn that a broken protocol is left out, if only a glob matches it.

    Raises:
        OodbenchError: The user named the protocol.
    """
    if name in patterns:
        raise error
    logger.warning("the protocol %s is left out: %s", name, error)


def _leave_out_empty(name: str, patterns: Sequence[str], *, needs_shifted: bool) -> None:
    """Say that a protocol is left out for want of samples; of covariate sets only if the user named the protocol."""
    if needs_shifted and name in patterns:
        logger.warning("the protocol %s is left out: the suite has no set of the group covariate.", name)
    if needs_shifted:
        return
    logger.warning(
        "the protocol %s is left out: it has nothing to expose, since the suite holds no unknown samples back "
        "([sizes] exposed = 0).",
        name,
    )


def _require_some(left: Mapping[str, object], patterns: Sequence[str]) -> None:
    if not left:
        raise UsageError(f"no protocol of {', '.join(patterns)} is left.")
