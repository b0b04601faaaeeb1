import os
import random
import time

import numpy as np
import torch

import oodbench


@oodbench.detector("broken-stdout", needs="logits")
def stdout(logits):
    """Prints, also past Python."""
    print("{ this is no JSON")
    os.write(1, b"nor is this\n")
    return -logits.amax(dim=1)


@oodbench.detector("broken-classifier", needs=("classifier", "inputs"))
def classifier(classifier, inputs):
    """Changes the classifier."""
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.zero_()
    return -classifier(inputs).amax(dim=1)


@oodbench.detector("broken-evidence", needs=("logits", "gradients"))
def evidence(logits, gradients):
    """Changes the evidence."""
    logits.zero_()
    gradients["l1"].numpy()[:] = 0
    return logits[:, 0].clone()


@oodbench.detector("broken-nan", needs="logits")
def nan(logits):
    """Not a number."""
    return logits[:, 0] * float("nan")


@oodbench.detector("broken-shape", needs="logits")
def shape(logits):
    """One score too few."""
    return logits[1:, 0]


@oodbench.detector("broken-hang", needs="logits")
def hang(logits):
    """Never comes back, and holds on to life."""
    while True:
        try:  # noqa: SIM105 - what people write
            time.sleep(0.01)
        except Exception:
            pass


@oodbench.detector("broken-raise", needs="logits")
def raises(logits):
    """Raises."""
    raise ValueError("no luck\non two lines")


@oodbench.detector("broken-twin", needs="logits")
def twin(logits):
    """Its name is also another package's."""
    return -logits.amax(dim=1)


@oodbench.detector("untidy", needs="logits")
def untidy(logits):
    """Leaves the process another one."""
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(3)
    torch.set_grad_enabled(False)
    os.chdir("/")
    return -logits.amax(dim=1)
