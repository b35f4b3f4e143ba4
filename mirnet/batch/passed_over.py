"""Files that a batch skips, counted by reason."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Mapping
from typing import Literal

from mirnet.errors import UsageError
from mirnet.junk import is_junk
from mirnet.params import EnhanceParams
from mirnet.storage.store import LINK, OWN, SPECIAL, ObjectInfo

Reason = Literal[
    "own", "junk", "link", "special", "suffix", "include", "exclude", "too-small", "too-young"
]
# a file that is dated further ahead is not young: a camera's clock was wrong
_AHEAD_S = 86_400.0
_PROBLEMS: tuple[Reason, ...] = (LINK, SPECIAL, OWN)
# what it is, and what a person may do
REASONS: dict[Reason, str] = {
    "own": "records or outputs of MIRNet",
    "junk": "left by an operating system or a file server",
    "link": "a link; enhance.follow_links follows it",
    "special": "a pipe, socket or device",
    "suffix": "the name does not end in one of enhance.suffixes",
    "include": "not matched by enhance.include",
    "exclude": "matched by enhance.exclude",
    "too-small": "smaller than enhance.min_bytes",
    "too-young": "younger than enhance.min_age_s",
}


def why_passed_over(info: ObjectInfo, params: EnhanceParams, *, named: bool) -> Reason | None:
    """Why this object is left alone; none where it is to be enhanced.

    Args:
        named: a person named this one object, whatever its name looks like.
    """
    if not named and is_junk(info.key.split("/")):
        return "junk"
    for problem in _PROBLEMS:
        if info.problem == problem:
            return problem
    return _filtered(info, params, named=named)


def has_suffix(key: str, params: EnhanceParams) -> bool:
    """Whether a name is one of an image."""
    return not params.suffixes or key.lower().endswith(tuple(map(str.lower, params.suffixes)))


def _filtered(info: ObjectInfo, params: EnhanceParams, *, named: bool) -> Reason | None:
    key = info.key
    if not named and not has_suffix(key, params):  # its bytes decide what it is
        return "suffix"
    if params.include and not any(fnmatch.fnmatchcase(key, glob) for glob in params.include):
        return "include"
    if any(fnmatch.fnmatchcase(key, glob) for glob in params.exclude):
        return "exclude"
    if info.size < params.min_bytes:
        return "too-small"
    if params.min_age_s and -_AHEAD_S < time.time() - info.modified < params.min_age_s:
        return "too-young"
    return None


def may_come(passed_over: Mapping[str, int]) -> bool:
    """Whether the next run may find images where this one found only what it passed over."""
    return "too-young" in passed_over or set(passed_over) <= {"own", "junk"}


def nothing_to_enhance(
    place: str, passed_over: Mapping[str, int], params: EnhanceParams, *, named: bool
) -> UsageError:
    """One line that says why there is nothing to do at a place, and what would help."""
    if not passed_over:
        return UsageError(f"{place}: nothing lies there; is the place right?")
    if named:
        (reason,) = passed_over
        return UsageError(f"{place}: passed over: {_explained(reason, params)}")
    payload = "; ".join(
        f"{count} {reason} ({_explained(reason, params)})"
        for reason, count in sorted(passed_over.items(), key=lambda each: -each[1])
    )
    return UsageError(f"{place}: nothing to enhance; passed over: {payload}")


def _explained(reason: str, params: EnhanceParams) -> str:
    text = next(text for known, text in REASONS.items() if known == reason)
    values = {
        "suffix": ", ".join(params.suffixes),
        "include": ", ".join(params.include),
        "exclude": ", ".join(params.exclude),
        "too-small": f"{params.min_bytes}",
        "too-young": f"{params.min_age_s:g}",
    }
    return f"{text}: {values[reason]}" if reason in values else text
