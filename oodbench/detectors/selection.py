"""Selection of detectors by names, globs and parameters, or by plugins themselves."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

from oodbench import registry
from oodbench.detectors.grids import OPENOOD
from oodbench.detectors.plugin import CHOICE, DetectorPlugin
from oodbench.errors import MissingPrerequisiteError, OodbenchError, UsageError, blaming
from oodbench.evidence.parts import collected
from oodbench.registry.code import code_of, own_code, own_module
from oodbench.registry.isolation import UNLIMITED, Failure, TimeLimit, failed, isolated, time_limit
from oodbench.registry.parameters import defaults, split_spec
from oodbench.registry.plain_values import plain

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Provider:
    """Who provides a detector: an installed distribution or a local file, and its version."""

    distribution: str
    version: str


@dataclass(frozen=True)
class SelectedDetector:
    """A detector with its parameters and its provider.

    Attributes:
        name: Name in the registry, maybe with its distribution: ``distribution/name``.
        plugin: The detector.
        given: The parameters that the user set.
        provider: The distribution or file that provides it.
        inputs: For a meta classifier, the detectors whose scores are its inputs, or why an input cannot be loaded.
        is_of_process: Whether it was declared in this process, so that no file stands for its code.
        candidates: For ``tuned``, the detector with each choice of parameters that is tried.
        inner: For ``ensemble``, the detector that scores the mean of the networks.
    """

    name: str
    plugin: DetectorPlugin
    given: dict[str, Any]
    provider: Provider
    inputs: "tuple[SelectedDetector, ...] | MissingPrerequisiteError" = ()
    is_of_process: bool = False
    candidates: "tuple[SelectedDetector, ...]" = ()
    inner: "SelectedDetector | None" = None

    def with_inputs(self) -> "Iterator[SelectedDetector]":
        """This detector, and all those whose scores it works on or that it chooses from."""
        yield self
        for detector in (*(self.inputs if isinstance(self.inputs, tuple) else ()), *self.candidates):
            yield from detector.with_inputs()

    def parameters(self, seed: int) -> dict[str, Any]:
        """All parameters with their values; a parameter ``seed`` that the user did not set gets the run's seed."""
        values = dict(self.given)
        if self._takes_seed:
            values.setdefault("seed", seed)
        return self.plugin.parameters(values)

    @cached_property
    def _takes_seed(self) -> bool:
        return "seed" in defaults(self.plugin.target)

    @cached_property
    def version(self) -> str:
        """Version of the detector, else of its distribution; with a digest of the code that is the user's own."""
        version = self.plugin.version or self.provider.version
        own = own_code(self.plugin.target, is_of_process=self.is_of_process)
        # That of the parts of the evidence that it needs counts, too.
        of_parts = [part.code for part in collected(self.plugin.needs)]
        codes = [code for code in (own, *self._code_of_parameters(), *of_parts) if code]
        if not codes:
            return version
        digest = (codes[0] if len(codes) == 1 else hashlib.sha256(" ".join(codes).encode()).hexdigest())[:8]
        return version if digest in self.provider.version else f"{version}+{digest}"

    def _code_of_parameters(self) -> list[str]:
        """Hashes of the user's own modules that parameters name, such as that of a meta classifier's class."""
        named = [value.rpartition(".")[0] for value in self.given.values() if isinstance(value, str)]
        files = [file for module in named if module and (file := own_module(module)) is not None]
        return [code_of(file) for file in files]

    @property
    def label(self) -> str:
        """Its name with the parameters that were given."""
        return _label(self.name, self.given)

    @cached_property
    def key(self) -> str:
        """A key that is equal for the same detector with the same parameters."""
        return json.dumps([self.name, plain(self.parameters(seed=0), f"a parameter of {self.name}")], sort_keys=True)


@dataclass(frozen=True)
class BrokenDetector:
    """A detector that cannot be loaded.

    Attributes:
        name: Its name.
        given: The parameters that the user set.
        provider: The distribution or file that provides it.
        failure: Why it cannot be loaded.
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


def select(
    wanted: Sequence[str | DetectorPlugin], limit: TimeLimit = UNLIMITED
) -> list[SelectedDetector | BrokenDetector]:
    """Load the detectors that match names, globs and specs such as ``grad-l2:layer=conv1``, without repetition.

    Args:
        wanted: Names, globs, specs or plugins.
        limit: Time limit for loading a detector.

    Raises:
        UsageError: A name or a parameter is unknown.
        OodbenchError: No detector can be loaded.
    """
    selected: dict[str, SelectedDetector | BrokenDetector] = {}
    reasons: list[OodbenchError] = []
    for choice in wanted:
        pattern, parameters = (choice.name, {}) if isinstance(choice, DetectorPlugin) else split_spec(choice)
        names = registry.matching("detectors", pattern)
        for name in names:
            entry = registry.get("detectors", name)
            provider = Provider(entry.distribution, entry.version)
            try:
                with isolated(0), time_limit(limit):
                    plugin = load_detector(name)
                    if name != pattern and plugin.lacks(parameters):
                        logger.info(
                            "left out of %s: %s, which has to be told %s", pattern, name, plugin.lacks(parameters)
                        )
                        continue
                    # What is so by default is not a choice, unless it is said of the wrong detector.
                    default = None if plugin.through else plugin.fitted_on
                    given = {key: value for key, value in parameters.items() if (key, value) != (CHOICE, default)}
                    loaded = SelectedDetector(
                        name, plugin.configured(given), given, provider, is_of_process=entry.origin == "process"
                    )
                    candidate = with_inputs(loaded)
                    selected.setdefault(candidate.key, candidate)
            except OodbenchError as error:
                if not parameters or not isinstance(error, UsageError):
                    reasons.append(error)
                    selected.setdefault(name, BrokenDetector(name, dict(parameters), provider, failed("load", error)))
                elif len(names) == 1:
                    raise
                else:
                    # A glob with parameters selects those detectors that take them.
                    logger.warning("left out: %s", error)
    if reasons and not any(isinstance(candidate, SelectedDetector) for candidate in selected.values()):
        raise reasons[0]
    if wanted and not selected:
        raise UsageError(f"no detector of {', '.join(map(str, wanted))} is left.")
    return list(selected.values())


def with_inputs(candidate: SelectedDetector) -> SelectedDetector:
    """Check that a detector can be made with its parameters, and load what it needs: parts, and a meta one's inputs.

    Raises:
        UsageError: It cannot be made, or its inputs are unknown.
        MissingPrerequisiteError: A part of the evidence that it needs cannot be imported.
    """
    collected(candidate.plugin.needs)
    parameters = candidate.parameters(seed=0)
    with blaming(f"the detector {candidate.label} cannot be made: it"):
        candidate.plugin.build(parameters)
    if candidate.plugin.through:
        if CHOICE in candidate.given:
            inner, choice = parameters["detector"], candidate.given[CHOICE]
            raise UsageError(f"{CHOICE} belongs to the other detector: detector={inner};{CHOICE}={choice}.")
        detector = load_one(candidate.name, parameters["detector"])
        if candidate.plugin.through == "tuning":
            return _with_candidates(candidate, detector, parameters)
        plugin = replace(candidate.plugin, fitted_on=detector.plugin.fitted_on)
        return replace(candidate, plugin=plugin, inner=detector)
    if "scores" not in candidate.plugin.needs:
        return candidate
    try:
        return replace(candidate, inputs=_input_detectors(candidate.name, parameters["inputs"]))
    except MissingPrerequisiteError as error:  # recorded as a failure of its own cells
        return replace(candidate, inputs=error)


def load_one(name: str, spec: str) -> SelectedDetector:
    """Load the detector that another one works through.

    Args:
        name: Name of the other one.
        spec: The detector; its parameters are separated by ``;``, since ``,`` separates those of the other one.

    Raises:
        UsageError: The spec names no single detector, or one that works on other detectors itself.
        MissingPrerequisiteError: The detector cannot be loaded.
    """
    chosen = select([spec.replace(";", ",")])
    if len(chosen) != 1:
        raise UsageError(f"{name} takes one detector, and {spec!r} matches {len(chosen)}; name one.")
    (detector,) = chosen
    if isinstance(detector, BrokenDetector):
        raise MissingPrerequisiteError(f"the detector {spec} cannot be loaded: {detector.failure.error}")
    if detector.plugin.through or "scores" in detector.plugin.needs:
        raise UsageError(f"{detector.name!r} works on other detectors; {name} takes one that does not.")
    return detector


def _with_candidates(
    tuned: SelectedDetector, detector: SelectedDetector, parameters: Mapping[str, Any]
) -> SelectedDetector:
    """``tuned`` with the detectors that it chooses from.

    Raises:
        UsageError: There is nothing to tune.
    """
    spec = parameters["detector"]
    own = detector.plugin.search_space
    grid = OPENOOD.get(detector.name, own) if parameters["grid"] == "openood" else own
    tried = {name: values for name, values in grid.items() if name not in detector.given}
    if not tried:
        why = f"all of {', '.join(grid)} are given" if grid else "it declares none"
        raise UsageError(f"the detector {spec} has no search space ({why}); expected parameters that are left to try.")
    candidates = []
    for values in product(*tried.values()):
        given = detector.given | dict(zip(tried, values, strict=True))
        candidates.append(replace(detector, plugin=detector.plugin.configured(given), given=given))
    needs = tuple(dict.fromkeys(part for candidate in candidates for part in candidate.plugin.needs))
    plugin = replace(tuned.plugin, needs=needs, fitted_on=detector.plugin.fitted_on)
    return replace(tuned, plugin=plugin, candidates=tuple(candidates))


def load_detector(name: str) -> DetectorPlugin:
    """Import a detector.

    Raises:
        UsageError: The name is unknown or ambiguous, or its target is not a detector.
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


def _input_detectors(name: str, specs: Sequence[str]) -> tuple[SelectedDetector, ...]:
    """Load the inputs of a meta classifier from names, globs and specs such as ``knn:k=10;normalize=false``.

    Detectors that need scores themselves are left out of what a glob matches.

    Args:
        name: Name of the meta classifier.
        specs: Its parameter ``inputs``. Parameters of an input are separated by ``;``, since ``,`` separates those of
            the meta classifier.

    Raises:
        UsageError: An input is unknown, or needs scores itself.
        MissingPrerequisiteError: An input cannot be loaded.
    """
    inputs: dict[str, SelectedDetector] = {}
    for spec in filter(None, specs):
        try:
            matching = select([spec.replace(";", ",")])
        except MissingPrerequisiteError as error:
            raise MissingPrerequisiteError(f"its input {spec} cannot be loaded: {error}") from error
        for selected in matching:
            if isinstance(selected, BrokenDetector):
                raise MissingPrerequisiteError(f"its input {selected.name} cannot be loaded: {selected.failure.error}")
            if "scores" not in selected.plugin.needs:
                inputs.setdefault(selected.key, selected)
            elif not any(character in spec for character in "*?["):
                raise UsageError(
                    f"the input {selected.name!r} of {name!r} works on scores itself; name its inputs instead."
                )
    if not inputs:
        raise UsageError(f"{name!r} has no inputs; name some detectors, such as inputs=entropy+energy.")
    return tuple(inputs.values())
