"""Training."""

import torch
from torch import nn

from oodbench.classifiers.training import batch_sizes, train
from oodbench.machine.progress import silent
from oodbench.suites.schema import Training


def test_no_batch_has_a_single_sample_where_that_can_be_helped():
    assert batch_sizes(100, 32) == [32, 32, 32, 4]
    assert batch_sizes(97, 32) == [32, 32, 33]
    assert batch_sizes(96, 32) == [32, 32, 32]
    assert batch_sizes(1, 32) == [1]
    assert batch_sizes(3, 1) == [1, 1, 1]


def test_a_network_with_batchnorm_is_trained_on_any_number_of_samples():
    images = torch.randn(33, 1, 8, 8)

    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))

    settings = Training(epochs=2, batch_size=16)
    network = train(build, images.__getitem__, torch.arange(33) % 2, settings, 0, silent)
    assert network(images).isfinite().all()
