"""How threads of operations wait for the next one: a moment awake, then asleep, so that others get the processors.

torch's threads on Linux (libgomp) wait awake for some milliseconds otherwise. That is no faster where a process is
alone, and several times slower beside others. It is read when torch is loaded, so that it is set before.
"""

from collections.abc import Mapping

# Turns of a waiting thread, a few microseconds.
TURNS = {"GOMP_SPINCOUNT": "1000"}


def with_short_waits(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which threads wait so, unless it says how they wait."""
    is_chosen = environment.keys() & {"OMP_WAIT_POLICY", *TURNS}
    return dict(environment) if is_chosen else {**environment, **TURNS}
