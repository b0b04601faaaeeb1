"""Which detectors a user means: names, globs, parameters, or plugins themselves."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_jsonable_python

from oodbench import registry
from oodbench.detectors.plugin import DetectorPlugin
from oodbench.errors import OodbenchError, UsageError
from oodbench.parameters import defaults, split_spec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """A detector with its parameters and who provides it.

    Attributes:
        plugin: The detector.
        given: The parameters that the user gave.
        distribution: Installed distribution or local file.
        version: Version of that.
    """

    plugin: DetectorPlugin
    given: dict[str, Any]
    distribution: str
    version: str

    def parameters(self, seed: int) -> dict[str, Any]:
        """All parameters; one named ``seed`` that was not given is the run's seed."""
        given = dict(self.given)
        if "seed" in defaults(self.plugin.target):
            given.setdefault("seed", seed)
        return self.plugin.parameters(given)


def choose(wanted: Sequence[str | DetectorPlugin]) -> list[Chosen]:
    """The detectors meant by names, globs and specs such as ``grad-l2:layer=conv1``, each once.

    Raises:
        UsageError: A name or a parameter is unknown.
        MissingPrerequisiteError: A detector's package cannot be imported.
    """
    chosen: dict[str, Chosen] = {}
    for one in wanted:
        pattern, given = (one.name, {}) if isinstance(one, DetectorPlugin) else split_spec(one)
        for name in registry.matching("detectors", pattern):
            try:
                candidate = _load(name, given)
                parameters = candidate.parameters(seed=0)
            except OodbenchError as error:
                if name == pattern:
                    raise
                # Who asked for all that there are, or for all that have a parameter, did not ask for this one.
                logger.warning("left out: %s", error)
                continue
            key = json.dumps([name, to_jsonable_python(parameters)], sort_keys=True)
            chosen.setdefault(key, candidate)
    if wanted and not chosen:
        raise UsageError(f"no detector of {', '.join(map(str, wanted))} is left.")
    return list(chosen.values())


def _load(name: str, given: dict[str, str]) -> Chosen:
    entry = registry.get("detectors", name)
    plugin = registry.load("detectors", name)
    if not isinstance(plugin, DetectorPlugin):
        raise UsageError(
            f"the detector {name!r} of {entry.distribution} is a {type(plugin).__name__}; decorate the function or "
            f"class at {entry.target} with @oodbench.detector."
        )
    return Chosen(plugin, dict(given), entry.distribution, entry.version)
