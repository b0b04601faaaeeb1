import torch

import oodbench


@oodbench.detector("good-margin", needs="logits")
def margin(logits, *, power: float = 1.0):
    top = logits.topk(2, dim=1).values
    return (top[:, 1] - top[:, 0]) * power


@oodbench.detector("bad-nan", needs="logits")
def bad_nan(logits):
    return torch.full((len(logits),), float("nan"))


@oodbench.detector("bad-length", needs="logits")
def bad_length(logits):
    return logits[:-1, 0]


@oodbench.detector("bad-dtype", needs="logits")
def bad_dtype(logits):
    return logits.argmax(dim=1)


@oodbench.detector("bad-list", needs="logits")
def bad_list(logits):
    return logits[:, 0].tolist()


@oodbench.detector("bad-raise", needs=("logits", "features"))
def bad_raise(logits, features):
    raise ValueError("no luck")


@oodbench.detector("bad-lines", needs="logits")
def bad_lines(logits):
    raise ValueError("no luck\n  on two lines\n")


@oodbench.detector("bad-exit", needs="logits")
def bad_exit(logits):
    raise SystemExit(5)


@oodbench.detector("bad-manners", needs=("logits", "gradients"))
def bad_manners(logits, gradients):
    print("hello")
    logits.zero_()
    for column in gradients.values():
        column.numpy()[:] = 0
    return logits[:, 0].clone()


@oodbench.detector("good-class")
class Prototype:
    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def fit(self, evidence, labels):
        self.mean = evidence.features[labels >= 0].mean(dim=0)

    def score(self, evidence):
        return (evidence.features - self.mean).norm(dim=1) * self.scale
