"""The cases that the user's protocols ask for, each seen by the leak guard."""

import logging
from collections.abc import Iterator, Mapping, Sequence

from oodbench import registry
from oodbench.datasets.splits import SuiteData
from oodbench.errors import LeakError, OodbenchError, UsageError, blaming
from oodbench.protocols.case import Case, Protocol
from oodbench.protocols.leak_guard import refuse_leaks

logger = logging.getLogger(__name__)


def load_protocol(name: str) -> Protocol:
    """Import a protocol.

    Raises:
        UsageError: The name is unknown, or what it is loaded from is no function.
        MissingPrerequisiteError: Its package cannot be imported.
    """
    protocol: Protocol = registry.load("protocols", name)
    if not callable(protocol):
        raise UsageError(f"the protocol {name} is a {type(protocol).__name__}; expected a function to a list of Cases.")
    return protocol


def load_protocols(patterns: Sequence[str]) -> dict[str, Protocol]:
    """The protocols meant by names and globs; a broken one that a glob matches is left out, with a warning.

    Raises:
        UsageError: A name is unknown, or none is left.
        MissingPrerequisiteError: One that is named cannot be imported.
    """
    found: dict[str, Protocol] = {}
    for pattern in patterns:
        for name in registry.matching("protocols", pattern):
            try:
                found.setdefault(name, load_protocol(name))
            except OodbenchError as error:
                _leave_out(name, patterns, error)
    _require_some(found, patterns)
    return found


def cases_of(protocols: Mapping[str, Protocol], patterns: Sequence[str], drawn: SuiteData) -> dict[str, list[Case]]:
    """The cases of each protocol; a broken one that a glob matched is left out, with a warning.

    Args:
        protocols: By name.
        patterns: The names and globs that they are meant by.
        drawn: What there is to be fitted and tested on.

    Raises:
        LeakError: A case would be tested on what is fitted on.
        UsageError: One that is named asks for what cannot be run, or none is left.
    """
    found: dict[str, list[Case]] = {}
    for name, protocol in protocols.items():
        try:
            found[name] = list(_cases(name, protocol, drawn))
        except LeakError:
            raise
        except UsageError as error:
            _leave_out(name, patterns, error)
    _require_some(found, patterns)
    return found


def _cases(name: str, protocol: Protocol, drawn: SuiteData) -> Iterator[Case]:
    with blaming(f"the protocol {name}"):
        returned = list(protocol(list(drawn.unknown)))
    if not returned:
        raise UsageError(f"the protocol {name} returned no case for the unknown sets {', '.join(drawn.unknown)}.")
    for i, case in enumerate(returned):
        if not isinstance(case, Case):
            raise UsageError(f"the protocol {name} returned a {type(case).__name__}; expected oodbench Cases.")
        strange = [one for one in (*case.exposed, *case.tested) if one not in list(drawn.unknown)]
        if strange:
            raise UsageError(f"the protocol {name} asks for {strange[0]!r}; the suite has {', '.join(drawn.unknown)}.")
        if case in returned[:i] or any(len(set(names)) < len(names) for names in (case.exposed, case.tested)):
            raise UsageError(
                f"the protocol {name} asks twice for the same, exposed to {', '.join(case.exposed) or 'nothing'} and "
                f"tested on {', '.join(case.tested) or 'the known set'}; expected each once."
            )
        refuse_leaks(drawn, case)
        yield case


def _leave_out(name: str, patterns: Sequence[str], error: OodbenchError) -> None:
    """Whoever asks for all protocols that match did not ask for this one.

    Raises:
        OodbenchError: The user named it.
    """
    if name in patterns:
        raise error
    logger.warning("the protocol %s is left out: %s", name, error)


def _require_some(found: Mapping[str, object], patterns: Sequence[str]) -> None:
    if not found:
        raise UsageError(f"no protocol of {', '.join(patterns)} is left.")
