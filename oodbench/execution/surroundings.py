"""What has to be the same wherever cells of one run are computed."""

from oodbench.detectors.selection import Chosen
from oodbench.evidence.store import engine
from oodbench.plan import Benchmark
from oodbench.records.provenance import versions


def surroundings(benchmark: Benchmark) -> dict[str, str]:
    """Versions of packages and detectors and hashes of all samples, each by what a user would call it."""
    drawn = benchmark.drawn
    splits = [drawn.train, drawn.meta, drawn.test, *drawn.exposed.values(), *drawn.unknown.values()]
    return {
        **{f"the version of {package}": version for package, version in versions().items()},
        "the gradient engine": engine(),
        "the classifier's code": benchmark.plan.blueprint.code,
        **{f"the hash of {split.dataset} ({split.part})": split.sha256[:16] for split in splits},
        **{
            f"the version of the detector {one.name}": one.version
            for one in benchmark.plan.detectors
            if isinstance(one, Chosen)
        },
    }
