"""IMP605 where squares are fewer than unknowns, and only where that is certain."""

from __future__ import annotations

import pytest

from implicitdsl.driver import check_source
from implicitdsl.ground.source import Source

HEAD = "layer A(m, n):\n  given a in R^n, b in R^m, c in R^n, k in positive\n  param A in R^(m, n), C in R^(3, 4)\n  "


def codes(text: str) -> list[str]:
    return [d.code for d in check_source(Source("a.imp", f"{HEAD}{text}\n")) if d.code != "IMP103"]


@pytest.mark.parametrize(
    "text",
    [
        "argmin_{z in R^n} (a^T z - 1)^2",
        "argmin_{z in R^n, t in R} 0.5 k (a^T z - t)^2 + b^T b",
        "argmin_{z in R^4} ||C z - 1||^2",
        "argmin_{z in R^4} sum((C z)^2) + 3",
        "argmin_{z in R^n} sum((z[1:] - z[:n-1])^2)",
    ],
)
def test_too_few_squares(text: str) -> None:
    assert codes(text) == ["IMP605"]


@pytest.mark.parametrize(
    "text",
    [
        "argmin_{z in R^n} ||A z - b||^2",
        "argmin_{z in R^n} ||A z - b||^2 + (a^T z)^2",
        "argmin_{z in R^n} (a^T z - 1)^2 + 1e-2 ||z||^2",
        "argmin_{z in R^n} (a^T z - 1)^2 + (c^T z)^2",
        "argmin_{z in R^n} (a^T z - 1)^2 subject to A z = b",
        "argmin_{z in nonneg^n} (a^T z - 1)^2",
        "argmin_{z in R^n} (a^T z - 1)^2 + logsumexp(z)",
        "argmin_{z in R^4} ||C z - 1||^2 + sum(exp(z))",
        "argmin_{t in R} (k t - 1)^2",
    ],
)
def test_none_where_it_is_not_certain(text: str) -> None:
    assert codes(text) == []
