"""What is bound at compile: a wrong value is an error that names its declaration."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import implicitdsl as imp

SPEC = """layer L(n):
  given x in R^n
  const c in R = 0.5
  fn f: R^n -> R^n
  find z in R^n such that z = 0.1 c f(z) + x
"""


@pytest.mark.parametrize(
    "bindings, message",
    [
        ({"f": 3}, "`fn f` takes a module or a function, not 3"),
        ({"f": torch.nn.Tanh}, r"`fn f` takes a module, not its class: pass f=Tanh\(…\)"),
        ({"f": torch.sin, "c": "a"}, "`const c in R` takes numbers or a tensor, not 'a'"),
        ({"f": torch.sin, "c": [1.0, "a"]}, "`const c in R` takes numbers or a tensor"),
        ({"f": torch.sin, "n": "a"}, "dimension `n` of layer `L` is a whole number, not 'a'"),
        ({"f": torch.sin, "g": torch.sin}, "layer `L` has no dimension, constant or function `g`"),
    ],
    ids=["number", "class", "text", "list", "dimension", "unknown"],
)
def test_a_wrong_binding_is_named(bindings: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        imp.compile(SPEC, **bindings)


@pytest.mark.parametrize(
    "path, reason",
    [
        ("torch.nn:Linear", "in_features"),
        ("torch.nn:Lineear", "has no attribute 'Lineear'"),
        ("torch.nm:Linear", "No module named 'torch.nm'"),
    ],
)
def test_a_path_that_gives_no_function_is_named(path: str, reason: str) -> None:
    with pytest.raises(TypeError, match=f'`fn f: … as "{path}"` cannot be made: .*{reason}.*; or pass f=… to compile'):
        imp.compile(SPEC.replace("R^n -> R^n", f'R^n -> R^n as "{path}"'))


def test_a_path_to_a_class_without_arguments_is_an_instance() -> None:
    layer = imp.compile(SPEC.replace("R^n -> R^n", 'R^n -> R^n as "torch.nn:Tanh"'))
    z = layer(torch.ones(2, 3))
    torch.testing.assert_close(z, 0.05 * z.tanh() + 1)
