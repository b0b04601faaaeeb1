"""The guard between what is fitted on and what is tested on, whatever a protocol asks for."""

import numpy as np

from oodbench.datasets.splits import SuiteData
from oodbench.errors import LeakError
from oodbench.protocols.case import Case


def refuse_leaks(drawn: SuiteData, case: Case) -> None:
    """Stop if a detector or the classifier would be fitted on a sample that it is tested on.

    Raises:
        LeakError: Names the splits and the number of samples.
    """
    fitted = [drawn.train, drawn.meta, *(drawn.exposed[name] for name in case.exposed)]
    tested = [drawn.test, *(drawn.unknown[name] for name in case.tested)]
    for one in fitted:
        for other in tested:
            shared = len(np.intersect1d(one.digests, other.digests))
            if shared:
                raise LeakError(
                    f"{shared} samples of {other.dataset} ({other.part}) would be tested on and are also in "
                    f"{one.dataset} ({one.part}), which is fitted on."
                )
