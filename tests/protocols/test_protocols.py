"""Protocols are functions of names."""

import pytest

from oodbench.protocols.builtin import known, known_unknowns, leave_one_out, unknown_unknowns
from oodbench.protocols.case import Case

NAMES = ("letters", "photos", "noise")


def test_known_is_fitted_and_tested_on_known_samples_only():
    assert known(NAMES) == [Case((), ())]


def test_unknown_unknowns_see_nothing_before_the_test():
    assert unknown_unknowns(NAMES) == [Case((), NAMES)]


def test_known_unknowns_are_the_full_matrix_of_exposed_and_tested_sets():
    cases = known_unknowns(NAMES)
    assert [case.exposed for case in cases] == [("letters",), ("photos",), ("noise",), NAMES]
    assert all(case.tested == NAMES for case in cases)
    assert known_unknowns(["noise"]) == [Case(("noise",), ("noise",))]


def test_leave_one_out_is_tested_on_the_one_left_out():
    cases = leave_one_out(NAMES)
    assert [case.tested for case in cases] == [("letters",), ("photos",), ("noise",)]
    assert all(set(case.exposed) == set(NAMES) - set(case.tested) for case in cases)


@pytest.mark.parametrize("protocol", [known, unknown_unknowns, leave_one_out])
def test_a_protocol_without_known_unknowns_exposes_nothing_that_it_tests(protocol):
    assert all(not set(case.exposed) & set(case.tested) for case in protocol(NAMES))
