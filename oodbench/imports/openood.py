"""Reads the scores that OpenOOD v1.5 writes with ``--save-score``."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

import numpy as np
from numpy.typing import NDArray

from oodbench.errors import UsageError, listed, printable
from oodbench.files.bounded_io import UnreadableError
from oodbench.imports.pickles import PickledArray, Unread, read_pickle
from oodbench.imports.scores import ImportedScores, ScoredSet, imported_scores, scored_set
from oodbench.suites.schema import Group

CONVENTION = "larger = more known in the file, sign turned"
# Parts of the file that are not read, but are always there.
WRITTEN = ("id", "ood", "csid", "id_preds", "id_labels", "csid_preds", "csid_labels")
GROUPS: tuple[Group, ...] = tuple(group for group in get_args(Group) if group in ("near", "far"))


def read_openood(content: bytes, file: Path, known: str) -> ImportedScores:
    """The scores of a pickle ``{id: {val, test}, ood: {near: {NAME}, far: {NAME}}}`` of ``[pred, conf, gt]``.

    ``conf`` is larger for samples that are more known, so its sign is turned. Where ``id`` has ``val``, the threshold
    is chosen on it. Sets for covariate shift (``csid``), validation unknowns and anything else are left out.

    Args:
        content: The pickle, of which nothing is executed.
        file: Its path, for messages.
        known: Name of the known set, which the file does not have.

    Raises:
        UsageError: It holds something else.
    """
    try:
        scores = read_pickle(content)
    except UnreadableError as cause:
        raise UsageError(f"{file} {cause}.") from cause
    ids, oods = _part(scores, "id", str(file)), _part(scores, "ood", str(file))
    if ids.get("test") is None:
        raise UsageError(f"{file} has no scores of the known test set; expected [pred, conf, gt] as id/test.")
    test = _known_set(ids["test"], f"{file}: id/test", known)
    meta = None if ids.get("val") is None else _known_set(ids["val"], f"{file}: id/val", known)
    unknown, missing, labelled = [], [], []
    for group in GROUPS:
        for key, found in ({} if oods.get(group) is None else _part(oods, group, f"{file}: ood")).items():
            name = _name(key, f"{file}: ood/{group}")
            place = f"ood/{group}/{name}"
            if found is None:
                missing.append(place)
            else:
                unknown.append(_unknown_set(found, f"{file}: {place}", name, group))
                if (_triple(found, place)[2].astype(np.float64) >= 0).any():
                    labelled.append(place)
    hint = "id/test has labels"
    return replace(
        imported_scores(file, [test], unknown, hint),
        meta=meta,
        convention=CONVENTION,
        left_out=_left_out(cast(Mapping[object, object], scores), ids, oods, missing, labelled),
    )


def _part(whole: object, name: str, where: str) -> Mapping[object, object]:
    part = whole.get(name) if isinstance(whole, dict) else None
    if not isinstance(part, dict):
        raise UsageError(
            f"{where} has no dict {name!r}; expected {{id: {{test}}, ood: {{near, far}}}} of [pred, conf, gt], as "
            "OpenOOD's --save-score writes it."
        )
    return part


def _name(key: object, where: str) -> str:
    """The name of a set.

    Raises:
        UsageError: It is no text.
    """
    if not isinstance(key, str):
        raise UsageError(f"{where} has a set whose name is a {type(key).__name__}; expected a text.")
    return key


def _left_out(
    scores: Mapping[object, object],
    ids: Mapping[object, object],
    oods: Mapping[object, object],
    missing: list[str],
    labelled: list[str],
) -> list[str]:
    """What is not imported, a sentence each."""
    shifted = scores.get("csid")
    sets = [_shown(name) for name, found in shifted.items() if found is not None] if isinstance(shifted, dict) else []
    said = [f"sets of covariate shift are not imported: {listed(sets)}"] if sets else []
    said += ["the validation unknowns ood/val are not imported"] if oods.get("val") is not None else []
    others = [f"id/{_shown(key)}" for key, found in ids.items() if key not in ("test", "val") and found is not None]
    others += [f"ood/{_shown(key)}" for key, found in oods.items() if key not in (*GROUPS, "val") and found is not None]
    others += [_shown(key) for key, found in scores.items() if key not in WRITTEN and found is not None]
    others += ["csid"] if shifted is not None and not isinstance(shifted, dict) else []
    said += [f"labels from 0 on in {listed(labelled)} are not taken: its samples are unknown"] if labelled else []
    said += [f"parts that OpenOOD does not write are not imported: {listed(others)}"] if others else []
    return said + ([f"there are no scores of {listed(missing)}"] if missing else [])


def _shown(key: object) -> str:
    return printable(key[:100]) if isinstance(key, str) else f"a {type(key).__name__}"


def _known_set(found: object, where: str, name: str) -> ScoredSet:
    predictions, confidence, labels = _triple(found, where)
    return scored_set(where, name, "-", _turned(confidence, where), labels, predictions)


def _unknown_set(found: object, where: str, name: str, group: Group) -> ScoredSet:
    predictions, confidence, labels = _triple(found, where)
    if labels.shape != confidence.shape:
        raise UsageError(f"{where} has {confidence.size:,} scores and {labels.size:,} labels; expected one for each.")
    return scored_set(where, name, group, _turned(confidence, where), None, predictions)


def _turned(confidence: NDArray[np.generic], where: str) -> NDArray[np.floating]:
    if confidence.dtype.kind != "f":
        raise UsageError(f"{where} has conf of {confidence.dtype}; expected floats.")
    return -cast(NDArray[np.floating], confidence)


def _triple(found: object, where: str) -> list[NDArray[np.generic]]:
    if not isinstance(found, list | tuple) or len(found) != 3:
        raise UsageError(f"{where} has something else than [pred, conf, gt]; expected three arrays.")
    return [_values(one, f"{where}: {name}") for one, name in zip(found, ("pred", "conf", "gt"), strict=True)]


def _values(found: object, where: str) -> NDArray[np.generic]:
    if isinstance(found, PickledArray) and found.values is not None:
        if len(found.shape) != 1:
            raise UsageError(f"{where} has the shape {found.shape}; expected (n,).")
        return found.values
    what = found.what if isinstance(found, Unread) else f"a {type(found).__name__}"
    raise UsageError(f"{where} is {what}, which is not read; expected a numpy array.")
