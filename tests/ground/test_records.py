"""A record is a dataclass: whatever one can see of the two is the same."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from implicitdsl.ground import records


def _pair(decorate: Any, **options: bool) -> tuple[type, type]:
    @decorate(**options)
    class Point:
        """A point."""

        x: int
        y: list[int] = dataclasses.field(default_factory=list)
        note: str = dataclasses.field(default="", repr=False, compare=False)

    @decorate(**options)
    class Named(Point):
        """A point with a name."""

        name: str = "p"

        def __post_init__(self) -> None:
            assert self.x >= 0

    return Point, Named


OPTIONS = [{}, {"frozen": True}, {"frozen": True, "slots": True}, {"slots": True}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_record_shows_compares_and_hashes_like_a_dataclass(options: dict[str, bool]) -> None:
    for ours, theirs in zip(_pair(records.dataclass, **options), _pair(dataclasses.dataclass, **options), strict=True):
        a, b = ours(1, [2], "n"), theirs(1, [2], "n")
        assert repr(a).replace("records", "") == repr(b).replace("records", "")
        assert (a == ours(1, [2], "other"), a == ours(2, [2]), a == b) == (True, False, False)
        assert (b == theirs(1, [2], "other"), b == theirs(2, [2])) == (True, False)
        assert ours(0).y == []
        assert ours(0).y is not ours(0).y
        assert ours.__match_args__ == theirs.__match_args__
        assert dataclasses.astuple(a) == dataclasses.astuple(b)
        assert dataclasses.replace(a, x=7).x == 7
        assert copy.deepcopy(a) == a
        assert (ours.__hash__ is None) == (theirs.__hash__ is None)


def test_frozen_records_hash_by_value_and_refuse_assignment() -> None:
    point, named = _pair(records.dataclass, frozen=True, slots=True)
    assert hash(point(1, (2,))) == hash(point(1, (2,), "other")) == hash((1, (2,)))
    assert hash(named(1, (), name="q")) != hash(named(1, (), name="p"))
    for change in (lambda p: setattr(p, "x", 2), lambda p: delattr(p, "x")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            change(point(1))


def test_wrong_arguments_are_type_errors_at_the_first_and_at_later_calls() -> None:
    point, named = _pair(records.dataclass, frozen=True)
    for _ in range(2):
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
            point()
        with pytest.raises(TypeError, match="unexpected keyword"):
            named(1, z=2)
    with pytest.raises(AssertionError):
        named(-1)


@records.dataclass(frozen=True, slots=True)
class Pickled:
    """At module level, as pickle wants it."""

    x: int
    y: str = "y"


def test_a_frozen_record_with_slots_survives_pickle() -> None:
    assert pickle.loads(pickle.dumps(Pickled(3))) == Pickled(3)
    assert not hasattr(Pickled(3), "__dict__")


def test_a_method_of_the_class_is_kept() -> None:
    @records.dataclass(frozen=True)
    class Loud:
        """With a representation and an equality of its own."""

        x: int

        def __repr__(self) -> str:
            return "LOUD"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Loud)

        def __hash__(self) -> int:
            return 7

    assert (repr(Loud(1)), Loud(1) == Loud(2), hash(Loud(1))) == ("LOUD", True, 7)
