"""Labels of constraints: unique, known to `dual`, and of relations that have a multiplier."""

from __future__ import annotations

import pytest
import torch

import implicitdsl as imp

HEAD = """layer A(m):
  given x in R^m
  find v in R^m such that eq: v = 0.5 tanh(v) + x
  argmin_{z in R^m} 1/2 ||z - v||^2
    subject to """


def errors(text: str) -> list[tuple[str, str]]:
    return [(d.code, text[d.span.start : d.span.end]) for d in imp.check(text) if d.is_error]


@pytest.mark.parametrize(
    "tail, expected",
    [
        ("cap: z <= 1\n  return z, dual(cup)", [("IMP101", "cup")]),
        ("cap: z <= 1, cap: z >= -1\n  return z, dual(cap)", [("IMP102", "cap")]),
        ("eq: z <= 1\n  return z, dual(eq)", [("IMP102", "eq")]),
        ("cap: z <= 1\n  return z, dual(eq)", [("IMP113", "eq")]),
        ("cap: z in simplex(m)\n  return z, dual(cap)", [("IMP113", "cap")]),
        ("cap: z in [0, 1]^m\n  return z, dual(cap)", [("IMP113", "cap")]),
        ("cap: z <= 1\n  return z, 2 dual(cap)", [("IMP113", "dual(cap)")]),
        ("z = 1 = x\n  return z", [("IMP015", "=")]),
    ],
    ids=["unknown", "twice", "two-blocks", "root", "set", "interval", "product", "chain"],
)
def test_a_label_that_names_no_multiplier(tail: str, expected: list[tuple[str, str]]) -> None:
    assert errors(HEAD + tail + "\n") == expected


def test_the_nearest_label_is_offered() -> None:
    (found,) = (d for d in imp.check(f"{HEAD}capacity: z <= 1\n  return z, dual(capacty)\n") if d.is_error)
    assert found.help is not None
    assert found.help.startswith("did you mean `capacity`")


def test_the_multiplier_of_a_chain_is_that_of_its_upper_side_minus_that_of_its_lower() -> None:
    text = "argmin_{z in R^3} 1/2 ||z - x||^2 subject to c: 0 <= z <= 1\nreturn z, dual(c)"
    out = imp.compile(text)(torch.tensor([2.0, -1.0, 0.5]))
    torch.testing.assert_close(out.z, torch.tensor([1.0, 0.0, 0.5]))
    torch.testing.assert_close(out.dual_c, torch.tensor([1.0, -1.0, 0.0]))
