"""The contract of oodbench, and GradOrth by one backward pass a sample and an explicit projection in float64."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from oodbench_gradorth import GradOrth
from torch import Tensor, nn
from torch.nn import functional as F

import oodbench
from oodbench.errors import UsageError
from oodbench.evidence import Evidence
from oodbench.testing import parametrize_with_checks

N, D, C = 40, 12, 5
LABELS = torch.zeros(N, dtype=torch.int64)


@parametrize_with_checks([GradOrth])
def test_conformance(plugin: object, check: Callable[[object], None]) -> None:
    """One test for each thing that the contract asks for."""
    check(plugin)


def layer_and_evidence(seed: int) -> tuple[nn.Linear, Evidence]:
    """A last layer, and evidence of features whose singular values differ much."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        last = nn.Linear(D, C).double()
        features = torch.randn(N, D).double() @ torch.diag(2.0 ** -torch.arange(D)).double() + 0.1
    with torch.no_grad():
        return last, Evidence(logits=last(features), features=features)


def projected_norm(last: nn.Linear, feature: Tensor, projection: Tensor) -> float:
    """The definition: the gradient by autograd, times the projection, as a matrix."""
    last.zero_grad()
    logits = last(feature[None])
    F.cross_entropy(logits, torch.full_like(logits, 1 / C)).backward()
    assert last.weight.grad is not None
    return float(torch.linalg.matrix_norm(last.weight.grad @ projection))


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.97, 0.9999, 1.0])
def test_it_is_the_norm_of_the_projected_gradient(energy: float) -> None:
    """Fitted on other samples than are scored."""
    last, known = layer_and_evidence(seed=0)
    _, tested = layer_and_evidence(seed=1)
    with torch.no_grad():
        tested = Evidence(logits=last(tested.features), features=tested.features)

    columns, singular, _ = np.linalg.svd(known.features.numpy().T)
    shares = np.cumsum(singular**2) / np.sum(singular**2)
    rank = next((k for k, share in enumerate(shares, start=1) if share >= energy - 1e-12), D)
    projection = torch.from_numpy(columns[:, :rank] @ columns[:, :rank].T)

    detector = GradOrth(energy=energy)
    detector.fit(known, LABELS)
    expected = torch.tensor([-projected_norm(last, feature, projection) for feature in tested.features])
    torch.testing.assert_close(detector.score(tested), expected.double(), rtol=1e-6, atol=1e-12)
    assert detector.learnt == {"rank": rank}


def test_nothing_is_left_of_features_beside_the_subspace() -> None:
    """Known data lie on one axis, so the score of a sample on another one is 0, and on the axis it is below."""
    axis, beside = torch.eye(3)[:1], torch.eye(3)[1:2]
    logits = torch.tensor([[4.0, 0.0]])
    detector = GradOrth(energy=0.97)
    detector.fit(Evidence(logits=logits, features=axis), LABELS[:1])
    assert detector.score(Evidence(logits=logits, features=beside)).item() == 0
    p = logits.double().softmax(dim=1)
    on_axis = detector.score(Evidence(logits=logits, features=3 * axis)).item()
    assert on_axis == pytest.approx(-3 * float((p - 0.5).norm()))


def test_fitting_again_forgets() -> None:
    """The same scores as of a detector that was fitted once."""
    _, first = layer_and_evidence(seed=0)
    _, second = layer_and_evidence(seed=1)
    twice, once = GradOrth(), GradOrth()
    twice.fit(first, LABELS)
    twice.fit(second, LABELS)
    once.fit(second, LABELS)
    assert torch.equal(twice.score(first), once.score(first))


def test_what_it_cannot_work_on_is_told() -> None:
    """A share that is none is refused, and features without a direction are skipped."""
    for energy in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="above 0 and up to 1"):
            GradOrth(energy=energy)
    nothing = Evidence(logits=torch.zeros(2, C), features=torch.zeros(2, D))
    with pytest.raises(oodbench.CellSkippedError, match="all of them are 0"):
        GradOrth().fit(nothing, LABELS[:2])
