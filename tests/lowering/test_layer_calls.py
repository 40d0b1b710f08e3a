"""Calling a layer: arguments, batches, outputs, reports, starts, errors that name the declaration."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from models import DENSE, DEQ, TWO, Picard, layer, model, symbol
from symbols import X, s, tanh, x
from torch import Tensor

from implicitdsl.ground.errors import ConvergenceError, ShapeError
from implicitdsl.ir import build as b
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.model import SetInfo
from implicitdsl.ir.nodes import Role, num, sym
from implicitdsl.lowering.report import Solution

y = sym("y", Role.GIVEN, (Dim.of("n"),))
PAIR = model(
    givens=[symbol(X), symbol(y), symbol(s)],
    outputs=[("w", b.mul(s, tanh(b.matmul(X, y)))), ("c", b.total(y))],
    dims=["N", "n"],
)


def reference(X: Tensor, y: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return s[..., None] * torch.tanh((X @ y[..., None])[..., 0]), y.sum(-1)


def some(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@pytest.mark.parametrize(
    "leads",
    [
        ((), (), ()),
        ((5,), (5,), (5,)),
        ((5,), (), ()),
        ((), (5,), ()),
        ((2, 5), (5,), ()),
        ((2, 1), (5,), (2, 5)),
        ((1,), (5,), ()),
        ((0,), (0,), ()),
        ((2, 3, 4), (3, 1), (2, 1, 4)),
    ],
)
def test_leading_dimensions_broadcast_as_in_torch(leads: tuple[tuple[int, ...], ...]) -> None:
    Xv, yv, sv = some(*leads[0], 3, 4), some(*leads[1], 4), some(*leads[2])
    w, c = layer(PAIR)(Xv, yv, sv)
    lead = torch.broadcast_shapes(*leads)
    expected = reference(*(t.expand((*lead, *t.shape[len(ld) :])) for t, ld in zip((Xv, yv, sv), leads, strict=True)))
    torch.testing.assert_close(w, expected[0])
    torch.testing.assert_close(c, expected[1])


def test_a_shared_input_gets_the_sum_of_its_gradients() -> None:
    Xv, sv = some(2, 5, 3, 4), torch.tensor(0.3, dtype=torch.float64)
    yv = some(4).requires_grad_()
    rows = yv.detach().expand(2, 5, 4).clone().requires_grad_()
    (shared,) = torch.autograd.grad(layer(PAIR)(Xv, yv, sv).w.square().sum(), yv)
    (each,) = torch.autograd.grad(layer(PAIR)(Xv, rows, sv).w.square().sum(), rows)
    torch.testing.assert_close(shared, each.sum((0, 1)))


def test_keywords_and_numbers() -> None:
    net = layer(PAIR)
    Xv, yv = some(5, 3, 4), some(4)
    torch.testing.assert_close(net(Xv, s=0.5, y=yv).w, net(Xv, yv, torch.tensor(0.5, dtype=torch.float64)).w)


@pytest.mark.parametrize(
    "args, kwargs, message",
    [
        ((1, 2, 3, 4), {}, r"Net takes 3 inputs \(X, y, s\), got 4"),
        ((some(3, 4),), {"s": 1.0}, r"Net lacks `y in R\^n`"),
        ((some(3, 4), some(4)), {"S": 1.0}, "Net has no input `S`; did you mean `s`"),
        ((some(3, 4), some(4)), {"y": some(4), "s": 1.0}, "Net got `y` twice"),
        ((some(3, 4), [1.0], 1.0), {}, r"`y in R\^n` must be a tensor, got list"),
    ],
)
def test_wrong_arguments(args: tuple[object, ...], kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        layer(PAIR)(*args, **kwargs)


@pytest.mark.parametrize(
    "args, message",
    [
        (
            (some(3, 4), some(5), 1.0),
            r"`y in R\^n`: expected \(\.\.\., 4\), got \(\.\.\., 5\); n = 4 comes from `X in R",
        ),
        ((some(4), some(4), 1.0), r"`X in R\^\(N, n\)`: expected 2 dimensions after the batch, got shape \(4,\)"),
        ((some(2, 3, 4), some(5, 4), 1.0), r"\(2,\) of `X in R\^\(N, n\)` and \(5,\) of `y in R\^n`"),
        ((some(3, 4), some(4).float(), 1.0), r"`X in R\^\(N, n\)` is torch.float64, `y in R\^n` is torch.float32"),
        ((some(3, 4), some(4).long(), 1.0), r"`y in R\^n`: expected a floating dtype, got torch.int64"),
    ],
)
def test_wrong_tensors(args: tuple[object, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        layer(PAIR)(*args)


def test_wrong_shape_once_sizes_are_known() -> None:
    net = layer(DENSE, sizes={"n": 4, "m": 32})
    with pytest.raises(
        ShapeError, match=r"`x in R\^m`: expected \(\.\.\., 32\), got \(\.\.\., 31\); m = 32 comes from comp"
    ):
        net(torch.randn(8, 31))


def test_dtype_of_parameters() -> None:
    net = layer(DENSE, sizes={"n": 4, "m": 3})
    message = r"`x in R\^m` is torch.float64, but `param U in R\^\(n, m\)` is torch.float32"
    with pytest.raises(ShapeError, match=message):
        net(some(3))
    assert net.double()(some(3)).dtype == torch.float64


def test_several_outputs_are_a_named_tuple_that_pickles() -> None:
    net = layer(TWO, sizes={"n": 4, "m": 3}).requires_grad_(False)
    out = net(torch.ones(5, 3))
    assert out._fields == ("y", "sum", "lambda_")
    assert out.sum.shape == (5,)
    assert out.lambda_.shape == (5, 4, 3)  # repeated: no batched input reaches it
    for twin in (pickle.loads(pickle.dumps(out)), copy.deepcopy(out)):
        assert type(twin) is type(out)
        assert torch.equal(twin.y, out.y)
    leaves, _ = torch.utils._pytree.tree_flatten(out)
    assert len(leaves) == 3


def test_explicit_report() -> None:
    solution = layer(DENSE, sizes={"n": 4, "m": 3}).solve(torch.ones(2, 5, 3))
    assert solution.value.shape == (2, 5, 4)
    assert solution.report.converged.shape == (2, 5)
    assert bool(solution.report.converged.all())
    assert repr(solution.report).startswith("Report(10 of 10 converged, explicit, 0 iterations")


def test_blocks_see_values_and_definitions_once_a_call() -> None:
    runner = Picard()
    net = layer(DEQ, sizes={"n": 4, "m": 3}, lower=runner)
    out = net(torch.ones(2, 5, 3))
    assert runner.calls == [{"batch": 10, "start": None, "values": ["U", "W", "b", "h", "x"]}]
    torch.testing.assert_close(out.energy, out.z.square().sum(-1))
    assert net(torch.ones(3)).z.shape == (4,)
    assert runner.calls[-1]["batch"] is None


def test_solve_reports_by_sample_and_starts_warm() -> None:
    runner = Picard()
    net = layer(DEQ, sizes={"n": 4, "m": 3}, lower=runner)
    inputs = torch.ones(2, 3, 3)
    solution = net.solve(inputs)
    assert solution.report.iterations.tolist() == [[60] * 3] * 2
    assert solution.report.solver == "picard"
    assert not solution.unknowns["z"].requires_grad
    net.solve(inputs, start=solution)
    torch.testing.assert_close(runner.calls[-1]["start"]["z"], solution.value.z.detach().reshape(6, 4))
    for start in (solution.value.z, (solution.value.z,), {"z": solution.value.z}):
        net.solve(inputs, start=start)
        assert runner.calls[-1]["start"]["z"].shape == (6, 4)
    net.solve(inputs, start=torch.zeros(4))
    assert runner.calls[-1]["start"]["z"].shape == (4,)
    with pytest.raises(ShapeError, match=r"`z in R\^n`"):
        net.solve(inputs, start=torch.zeros(5))
    with pytest.raises(TypeError, match="no unknown `w`"):
        net.solve(inputs, start={"w": torch.zeros(4)})
    assert "unknowns" not in repr(solution)


@pytest.mark.parametrize("name", ["start", "progress"])
def test_inputs_named_like_options_are_given_by_position(name: str) -> None:
    """By keyword they would be taken for the option of `solve`."""
    other = sym(name, Role.GIVEN)
    host: Any = layer(model(givens=[symbol(s), symbol(other)], outputs=[("w", b.mul(s, tanh(other)))], dims=[]))
    with pytest.raises(TypeError, match=f"`{name}` is an option here: pass the input by position"):
        host.solve(torch.tensor(2.0), **{name: torch.tensor(0.5)})
    assert host.solve(torch.tensor(2.0), torch.tensor(0.5)).value == 2 * torch.tensor(0.5).tanh()
    assert host(torch.tensor(2.0), **{name: torch.tensor(0.5)}) == 2 * torch.tensor(0.5).tanh()


def test_raise_carries_the_solution_in_the_callers_shape() -> None:
    net = layer(DEQ, sizes={"n": 4, "m": 3}, lower=Picard(policy="raise"))
    with torch.no_grad():
        net.b[0] = 20.0
    with pytest.raises(ConvergenceError) as error:
        net(torch.zeros(2, 3, 3))
    solution = error.value.solution
    assert isinstance(solution, Solution)
    assert solution.report.converged.shape == (2, 3)
    assert not bool(solution.report.converged.any())
    assert solution.value.z.shape == (2, 3, 4)
    assert "max_iter" in repr(solution.report)


def test_queries_are_answered_by_the_block() -> None:
    t = sym("t", Role.VARIABLE)
    u = sym("u", Role.UNKNOWN, (Dim.of("m"),))
    from models import NOWHERE

    from implicitdsl.ir.model import Block, Domain, Equation
    from implicitdsl.lowering.stages import queries

    one, two = b.at(u, [num(1.0)]), b.at(u, [num(2.0)])
    block = Block(
        "ode",
        (symbol(u),),
        (Equation(b.deriv(u, 1, "t"), "=", b.neg(u), NOWHERE), Equation(b.at(u, [num(0.0)]), "=", x, NOWHERE)),
        NOWHERE,
        domains=(Domain("t", t, num(0.0), num(2.0)),),
    )
    flow = model(
        givens=[symbol(x)], blocks=[block], outputs=[("u", two), ("mid", b.add(one, two)), ("t", t)], dims=["m"]
    )
    asked = queries(flow)[0]
    assert [(q.name, q.node) for q in asked] == [("~u_at_0", two), ("~u_at_1", one)]

    class Exponential:
        def solve(self, values, functions, batch, start, want_report):
            at = {q.name: torch.exp(torch.tensor(-float(q.node.args[1].number))) for q in asked}
            found = {name: values["x"] * a for name, a in at.items()}
            return {**found, "t": torch.tensor(2.0)}, None

    net = layer(flow, lower=lambda sizes: [Exponential()])
    out = net(torch.ones(3, 2))
    torch.testing.assert_close(out.u, torch.full((3, 2), 2.0).neg().exp())
    torch.testing.assert_close(out.mid, torch.full((3, 2), 1.0).neg().exp() + out.u)
    assert out.t.shape == (3,)


def test_debug_verifies_the_sets_of_inputs() -> None:
    kind = SetInfo("nonneg", (), (Dim.of("m"),), "nonneg^m")
    net = layer(model(givens=[symbol(x, kind)], outputs=[("y", tanh(x))], dims=["m"]), debug=True)
    net(torch.ones(4, 3))
    bad = torch.ones(4, 3)
    bad[2, 1] = -1
    with pytest.raises(ValueError, match=r"`x in nonneg\^m`: the input lies outside its set in sample 2"):
        net(bad)


def test_autocast_solves_in_the_precision_of_the_parameters() -> None:
    net = layer(DENSE, sizes={"n": 4, "m": 3})
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    expected = net(inputs.bfloat16().float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = net(inputs.bfloat16())
    assert torch.equal(found, expected)


def test_no_inputs() -> None:
    p = sym("p", Role.PARAM, (Dim.of("n"),))
    outputs = [("y", b.mul(num(2.0), p)), ("n", b.dimension(Dim.of("n")))]
    net = layer(model(params=[symbol(p)], outputs=outputs, dims=["n"]), sizes={"n": 3})
    net.p = 1.5
    assert net().y.tolist() == [3.0] * 3
    assert net().n.item() == 3
