"""Small files as OpenOOD writes them."""

import pickle

import numpy as np


def scores(seed=0, n=60, val=False):
    """Scores in OpenOOD's layout: unknown samples have smaller conf, and a fifth of the predictions is wrong.

    The labels are the same for all seeds, as the samples are.
    """
    rng = np.random.default_rng(seed)

    def of(size, shift, label=None):
        gt = np.random.default_rng(99).integers(0, 5, size) if label is None else np.full(size, label)
        pred = np.where(rng.random(size) < 0.2, (gt + 1) % 5, gt) if label is None else rng.integers(0, 5, size)
        conf = (rng.normal(shift, 1, size) + (pred == gt)).astype(np.float32)
        return [pred, conf, gt]

    return {
        "id": {"train": None, "val": of(n, 1.0) if val else None, "test": of(n, 1.0)},
        "csid": {"cifar10c": None},
        "ood": {"val": None, "near": {"cifar100": of(n, 0.5, -1)}, "far": {"svhn": of(2 * n, 0.0, -1)}},
        "id_preds": None,
        "id_labels": None,
    }


def write(file, content, protocol=pickle.HIGHEST_PROTOCOL):
    file.write_bytes(pickle.dumps(content, protocol))
    return file
