import numpy as np
from torch import nn

import oodbench
from oodbench.protocols.case import Case


def maps(channels, size, classes):
    return nn.Conv2d(channels, classes, 3)


def crash(channels, size, classes):
    raise ValueError("no luck")


card = oodbench.Card("x", "x", "x", "x", "x")


@oodbench.dataset("floats", card=card)
def floats(request):
    return oodbench.Pool(np.zeros((9, 8, 8)), np.zeros(9, dtype=np.int64))


@oodbench.dataset("short", card=card)
def short(request):
    return oodbench.Pool(np.zeros((9, 8, 8), dtype=np.uint8), np.zeros(5, dtype=np.int64))


@oodbench.dataset("raises", card=card)
def raises(request):
    raise ValueError("no luck")


def undecorated(logits):
    return logits[:, 0]


def martians(unknown):
    return [Case((), ("martians",))]


def raising(unknown):
    raise ValueError("no luck")
