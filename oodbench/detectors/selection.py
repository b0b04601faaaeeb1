"""Which detectors a user means: names, globs, parameters, or plugins themselves."""

import hashlib
import inspect
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from oodbench import registry
from oodbench.detectors.plugin import DetectorPlugin
from oodbench.errors import MissingPrerequisiteError, OodbenchError, UsageError, blaming
from oodbench.isolation import Failure, failed, isolated, time_limit
from oodbench.parameters import defaults, split_spec
from oodbench.plain import plain

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Provider:
    """Who provides a detector: an installed distribution or a local file, and its version."""

    distribution: str
    version: str


@dataclass(frozen=True)
class Chosen:
    """A detector with its parameters and who provides it.

    Attributes:
        name: The name that it is known by, which may have its distribution's before it.
        plugin: The detector.
        given: The parameters that the user gave.
        provider: Who provides it.
    """

    name: str
    plugin: DetectorPlugin
    given: dict[str, Any]
    provider: Provider

    def parameters(self, seed: int) -> dict[str, Any]:
        """All parameters; one named ``seed`` that was not given is the run's seed."""
        given = dict(self.given)
        if self._takes_seed:
            given.setdefault("seed", seed)
        return self.plugin.parameters(given)

    @cached_property
    def _takes_seed(self) -> bool:
        return "seed" in defaults(self.plugin.target)

    @cached_property
    def version(self) -> str:
        """The detector's own or its distribution's, and of whose code nobody releases with care, a digest of that."""
        version = self.plugin.version or self.provider.version
        if self.plugin.target.__module__.partition(".")[0] == "oodbench":
            return version
        try:
            source = Path(inspect.getsourcefile(self.plugin.target) or "").read_bytes()
        except (TypeError, OSError):  # typed at a prompt, or of a compiled module
            return version
        digest = hashlib.sha256(source).hexdigest()[:8]
        return version if digest in self.provider.version else f"{version}+{digest}"

    @property
    def label(self) -> str:
        """Its name with the parameters that were given."""
        return _label(self.name, self.given)

    @property
    def key(self) -> str:
        """The same for the same detector with the same parameters."""
        return json.dumps([self.name, plain(self.parameters(seed=0), f"a parameter of {self.name}")], sort_keys=True)


@dataclass(frozen=True)
class Broken:
    """A detector that cannot be loaded, and why.

    Attributes:
        name: Its name.
        given: The parameters that the user gave.
        provider: Who provides it.
        failure: Why.
    """

    name: str
    given: dict[str, Any]
    provider: Provider
    failure: Failure

    @property
    def label(self) -> str:
        """Its name with the parameters that were given."""
        return _label(self.name, self.given)


def _label(name: str, given: Mapping[str, Any]) -> str:
    texts = ",".join(f"{key}={value}" for key, value in given.items())
    return f"{name}:{texts}" if texts else name


def choose(wanted: Sequence[str | DetectorPlugin], timeout: float | None = None) -> list[Chosen | Broken]:
    """The detectors meant by names, globs and specs such as ``grad-l2:layer=conv1``, each once.

    Args:
        wanted: What the user means.
        timeout: Seconds that the loading of one may take.

    Raises:
        UsageError: A name or a parameter is unknown.
        OodbenchError: None of them can be loaded.
    """
    chosen: dict[str, Chosen | Broken] = {}
    reasons: list[OodbenchError] = []
    for one in wanted:
        pattern, given = (one.name, {}) if isinstance(one, DetectorPlugin) else split_spec(one)
        names = registry.matching("detectors", pattern)
        for name in names:
            entry = registry.get("detectors", name)
            provider = Provider(entry.distribution, entry.version)
            try:
                with isolated(0), time_limit(timeout):
                    candidate = Chosen(name, load_detector(name), dict(given), provider)
                    chosen.setdefault(_tried(candidate).key, candidate)
            except OodbenchError as error:
                if not given or not isinstance(error, UsageError):
                    reasons.append(error)
                    chosen.setdefault(name, Broken(name, dict(given), provider, failed("load", error)))
                elif len(names) == 1:
                    raise
                else:
                    # Who asked for all that have a parameter did not ask for this one.
                    logger.warning("left out: %s", error)
    if reasons and not any(isinstance(one, Chosen) for one in chosen.values()):
        raise reasons[0]
    if wanted and not chosen:
        raise UsageError(f"no detector of {', '.join(map(str, wanted))} is left.")
    return list(chosen.values())


def _tried(candidate: Chosen) -> Chosen:
    """The same, if its parameters can be meant.

    Raises:
        UsageError: They cannot.
    """
    parameters = candidate.parameters(seed=0)
    with blaming(f"the detector {candidate.label} cannot be made: it"):
        candidate.plugin.build(parameters)
    if "scores" in candidate.plugin.needs:
        # An input that cannot be loaded is the failure of its meta classifier's cells.
        with suppress(MissingPrerequisiteError):
            input_detectors(candidate.name, parameters["inputs"])
    return candidate


def load_detector(name: str) -> DetectorPlugin:
    """Import a detector.

    Raises:
        UsageError: The name is unknown or stands for several, or what it is loaded from is no detector.
        MissingPrerequisiteError: Its package cannot be imported.
    """
    entry = registry.get("detectors", name)
    plugin = registry.load("detectors", name)
    if type(plugin) is not DetectorPlugin:
        raise UsageError(
            f"the detector {entry.name!r} of {entry.distribution} is a {type(plugin).__name__}; decorate the function "
            f"or class at {entry.target} with @oodbench.detector."
        )
    return plugin


def input_detectors(name: str, specs: Sequence[str]) -> list[Chosen]:
    """The detectors meant by names, globs and specs such as ``knn:k=10;normalize=false``.

    Of what a glob matches, meta classifiers of other detectors' scores are left out.

    Args:
        name: The meta classifier.
        specs: Its parameter ``inputs``; ``;`` parts parameters, where ``,`` parts those of the meta classifier.

    Raises:
        UsageError: One is unknown, or is such a meta classifier itself.
        MissingPrerequisiteError: One cannot be loaded.
    """
    found: dict[str, Chosen] = {}
    for spec in filter(None, specs):
        try:
            matching = choose([spec.replace(";", ",")])
        except MissingPrerequisiteError as error:
            raise MissingPrerequisiteError(f"its input {spec} cannot be loaded: {error}") from error
        for one in matching:
            if isinstance(one, Broken):
                raise MissingPrerequisiteError(f"its input {one.name} cannot be loaded: {one.failure.error}")
            if "scores" not in one.plugin.needs:
                found.setdefault(one.key, one)
            elif not any(character in spec for character in "*?["):
                raise UsageError(f"the input {one.name!r} of {name!r} works on scores itself; name its inputs instead.")
    if not found:
        raise UsageError(f"{name!r} has no inputs; name some detectors, such as inputs=entropy+energy.")
    return list(found.values())
