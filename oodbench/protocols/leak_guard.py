"""The leak guard: no case may test on samples that are fitted on."""

import numpy as np

from oodbench.datasets.splits import SuiteSplits
from oodbench.errors import LeakError
from oodbench.protocols.case import Case


def refuse_leaks(splits: SuiteSplits, case: Case) -> None:
    """Stop if a detector or the classifier would be fitted on, or chosen by, a sample that it is tested on.

    Raises:
        LeakError: Two splits share samples; the message names them and the number of samples.
    """
    training = [] if splits.train is None else [splits.train]
    fitted = [*training, splits.meta, *(splits.exposed[name] for name in case.exposed), *splits.validation.values()]
    shifted = splits.covariate.values() if case.known == "with-covariate" else ()
    tested = [splits.test, *shifted, *(splits.unknown[name] for name in case.tested)]
    for fitted_split in fitted:
        for tested_split in tested:
            shared = len(np.intersect1d(fitted_split.digests, tested_split.digests))
            if shared:
                raise LeakError(
                    f"{shared} samples of {tested_split.dataset} ({tested_split.use}) would be tested on and are also "
                    f"in {fitted_split.dataset} ({fitted_split.use}), which is fitted on."
                )
