"""Values of parameters that OpenOOD v1.5 tries for its post-processors, where ours can be given them.

Percentages are shares here, as the detectors take them. From the configurations of its repository (commit 3c35632).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

_PRUNED = [0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
_STEPS = {"temperature": [1.0, 10.0, 100.0, 1000.0], "eps": [0.0014, 0.0028]}
_LEVELS = (60.0, 65.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0, 99.0)
PERCENTILES: Mapping[str, Sequence[Any]] = {"percentile": list(combinations(_LEVELS, 2))}

OPENOOD: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "adascale-a": PERCENTILES,
    "adascale-l": PERCENTILES,
    "ash": {"percentile": _PRUNED},
    "gen": {"gamma": [0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0], "M": [10, 50, 100, 200, 500, 1000]},
    "iodin": _STEPS,
    "knn": {"k": [50, 100, 200, 500, 1000]},
    "nci": {"alpha": [0.0001, 0.001, 0.01, 0.1]},
    "odin": _STEPS,
    "react": {"percentile": [0.85, 0.9, 0.95, 0.99]},
    "relation": {"pow": [1.0, 2.0, 4.0, 6.0, 8.0]},
    "scale": {"percentile": _PRUNED},
    "vim": {"d": [256, 1000]},
    "vra": {"upper_percentile": [0.85, 0.9, 0.95, 0.99], "lower_percentile": [0.01, 0.05, 0.1, 0.15]},
}
