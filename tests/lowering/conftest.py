"""Symbols and functions that several files use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from implicitdsl.ir.function import Function

sys.path.insert(0, str(Path(__file__).parent))


def _no_jvp(*_: object) -> object:
    raise AssertionError("code generation never differentiates")


def _function(name: str, torch: str, arity: int = 1, elementwise: bool = True) -> Function:
    return Function(name, (arity, arity), torch, _no_jvp, elementwise=elementwise)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="session")
def functions() -> dict[str, Function]:
    found = [
        _function("tanh", "torch.tanh({0})"),
        _function("sigmoid", "torch.sigmoid({0})"),
        _function("cube", "{0} ** 3"),
        _function("max", "ops.maximum({0}, {1})", 2),
        _function("clamp", "ops.clamp({0}, {1}, {2})", 3),
        _function("scale_rows", "scale_rows", 2, elementwise=False),
        _function("scale_columns", "scale_columns", 2, elementwise=False),
        _function("logsumexp", "logsumexp", elementwise=False),
        _function("softmax", "softmax", elementwise=False),
        _function("det", "det", elementwise=False),
        _function("inv", "inv", elementwise=False),
        _function("norm", "norm", elementwise=False),
    ]
    return {f.name: f for f in found}
