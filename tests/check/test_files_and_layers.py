"""Layers of this file and of others: imported once, in no circle, instantiated before they are called."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import implicitdsl as imp

INNER = "layer {0}(n):\n  given x in R^n\n  return 2 x\n"
OUTER = 'import {1} from "{1}.imp"\nlayer {0}(n):\n  given x in R^n\n  let s = {1}(n)\n  return s(x)\n'


def codes(path: Path) -> list[tuple[str, int, int]]:
    return [(d.code, d.line, d.column) for d in imp.check(path) if d.is_error]


def test_a_circle_of_files_is_named_in_each_of_them(tmp_path: Path) -> None:
    names = ["A", "B", "C"]
    for name, other in zip(names, [*names[1:], "A"], strict=True):
        (tmp_path / f"{name}.imp").write_text(OUTER.format(name, other))
    for name in names:
        assert codes(tmp_path / f"{name}.imp") == [("IMP105", 1, 15)]
    (found,) = (d for d in imp.check(tmp_path / "A.imp") if d.is_error)
    assert found.message == "files import each other: A.imp → B.imp → C.imp → A.imp"
    (tmp_path / "D.imp").write_text(OUTER.format("D", "A"))
    assert codes(tmp_path / "D.imp") == [("IMP006", 1, 15)]


def test_a_layer_has_one_definition(tmp_path: Path) -> None:
    for name in ("A", "B"):
        (tmp_path / f"{name}.imp").write_text(INNER.format("A"))
    main = tmp_path / "main.imp"
    main.write_text('import A from "A.imp"\nimport A from "B.imp"\n' + INNER.format("M"))
    assert codes(main) == [("IMP102", 2, 8)]
    main.write_text('import A from "A.imp"\n' + INNER.format("A"))
    assert codes(main) == [("IMP102", 2, 7)]


def test_a_layer_is_called_by_its_instance() -> None:
    text = INNER.format("A") + INNER.format("B").replace("2 x", "A(x)")
    (found,) = (d for d in imp.check(text) if d.is_error)
    assert found.code == "IMP113"
    assert found.help is not None
    assert "let" in found.help


NESTED = """layer Inner(n):
  given x in R^n
  const c in R
  fn f: R^n -> R^n
  return c f(x)
layer Middle(n):
  given x in R^n
  let inner = Inner(n)
  return inner(x) + x
layer Outer(n):
  given x in R^n
  let left = Middle(n), right = Inner(n)
  return left(x) + right(x)
"""


def test_functions_and_constants_of_sub_layers_are_bound_by_their_path() -> None:
    net = torch.nn.Linear(3, 3)
    bind = {"left.inner.f": net, "left.inner.c": 2.0, "right.f": torch.tanh, "right.c": 3.0}
    layer = imp.compile(NESTED, layer="Outer", bind=bind)
    x = torch.randn(4, 3)
    torch.testing.assert_close(layer(x), 2 * net(x) + x + 3 * x.tanh())
    assert {id(p) for p in net.parameters()} == {id(p) for p in layer.parameters()}


@pytest.mark.parametrize(
    "bind, message",
    [
        ({}, r'`c` of the sub-layer `left\.inner` has no value: pass bind=\{"left\.inner\.c": …\}'),
        ({"left.inner.c": 1.0}, r"`f` of the sub-layer `left\.inner` has no value"),
        ({"left.inner.g": 1.0}, "layer `Inner` has no dimension, constant or function `g`"),
        ({"wrong.f": torch.tanh}, r"layer `Outer` has no dimension, constant or function `wrong\.f`"),
    ],
    ids=["const", "function", "unknown", "no-layer"],
)
def test_what_a_sub_layer_lacks_is_named_by_its_path(bind: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        imp.compile(NESTED, layer="Outer", bind=bind)
