"""What a layer holds: sets, constants, functions, dimensions found late, copies, state dicts, transforms."""

from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import torch
from models import DENSE, DEQ, NOWHERE, TWO, Picard, layer, model, symbol
from symbols import U, W, bias, m, n, tanh, x, z
from torch import Tensor, nn

import implicitdsl as imp
from implicitdsl.ground.errors import ShapeError, SpecError
from implicitdsl.ir import build as b
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.model import Init, Opaque, SetInfo
from implicitdsl.ir.nodes import Role, num, sym
from implicitdsl.lowering.bound import signature

SIZES = {"n": 4, "m": 3}


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


# -- parameters --------------------------------------------------------------------------------------------------------


def test_initial_values() -> None:
    torch.manual_seed(0)
    net = layer(DENSE, sizes={"n": 40, "m": 30})
    assert isinstance(net.U, nn.Parameter)
    assert net.U.abs().max() <= 1 / math.sqrt(30)
    assert net.U.detach().std() == pytest.approx(1 / math.sqrt(90), rel=0.1)  # as torch.nn.Linear's weight
    assert not net.b.any()
    assert torch.linalg.matrix_norm(net.W, 2) <= 0.9 * (1 + 1e-6)
    assert [name for name, _ in net.named_parameters()] == ["U", "W", "b"]


def test_a_value_on_its_set_and_the_raw_parameter() -> None:
    net = layer(DENSE, sizes=SIZES)
    raw = net.get_parameter("W")
    assert isinstance(raw, nn.Parameter)
    with torch.no_grad():
        raw.mul_(100)
    assert torch.linalg.matrix_norm(net.W, 2) <= 0.9 * (1 + 1e-6)
    (net.W.sum()).backward()
    assert raw.grad is not None
    assert net.get_parameter("U") is net.U


def test_assignment_checks_membership_and_inverts() -> None:
    net = layer(DENSE, sizes=SIZES)
    raw = net.get_parameter("W")
    good = 0.5 * torch.eye(4)
    net.W = good
    assert net.get_parameter("W") is raw
    torch.testing.assert_close(net.W, good)
    net.b = 2.0
    assert net.b.tolist() == [2.0] * 4
    with pytest.raises(SpecError, match=r"IMP107.*`param W in SpectralBall\(n, 0.9\)`"):
        net.W = 2 * torch.eye(4)
    with pytest.raises(ShapeError, match=r"`param U in R\^\(n, m\)`: expected \(\.\.\., 4, 3\), got \(\.\.\., 4, 4\)"):
        net.U = torch.eye(4)


def test_an_assigned_parameter_is_the_raw_one() -> None:
    net = layer(DENSE, sizes=SIZES)
    raw = nn.Parameter(torch.randn(net.get_parameter("W").shape, generator=torch.Generator().manual_seed(0)))
    net.W = raw
    assert net.get_parameter("W") is raw
    assert torch.linalg.matrix_norm(net.W, 2) <= 0.9 * (1 + 1e-6)
    with pytest.raises(ShapeError, match=r"`param U in R\^\(n, m\)`"):
        net.U = nn.Parameter(torch.ones(4, 4))


def init(kind: str, *args: float, literal: object = None, of: tuple[Dim, ...] = (n, n), name: str = "R") -> Tensor:
    p = sym("p", Role.PARAM, of)
    one = model(
        params=[symbol(p, SetInfo(name, (), of, "S"), Init(kind, args, literal))],  # pyright: ignore[reportArgumentType]
        outputs=[("p", p)],
        dims=["n"],
    )
    return layer(one, sizes={"n": 3}).p.detach()


def test_written_initial_values() -> None:
    assert torch.equal(init("eye"), torch.eye(3))
    assert torch.equal(init("zeros"), torch.zeros(3, 3))
    assert torch.equal(init("literal", literal=0.5, of=(n,)), torch.full((3,), 0.5))
    assert torch.equal(init("literal", literal=(1.0, 2.0, 3.0), of=(n,)), torch.tensor([1.0, 2.0, 3.0]))
    torch.manual_seed(0)
    assert init("normal", 5.0, 0.1).mean() == pytest.approx(5.0, abs=0.2)
    assert init("uniform", 2.0, 3.0).min() >= 2
    torch.testing.assert_close(init("literal", literal=2.0, of=(), name="positive"), torch.tensor(2.0))
    with pytest.raises(SpecError, match="IMP107"):
        init("literal", literal=-1.0, of=(), name="positive")
    with pytest.raises(ShapeError, match=r"expected \(3\), got \(2,\)"):
        init("literal", literal=(1.0, 2.0), of=(n,))


# -- constants ---------------------------------------------------------------------------------------------------------

lam = sym("lam", Role.CONST)
SCALED = model(
    givens=[symbol(x)],
    consts=[symbol(lam, init=Init("literal", literal=0.1))],
    outputs=[("y", b.mul(lam, x))],
    dims=["m"],
)


def test_constants_are_buffers_that_follow_the_inputs() -> None:
    net = layer(SCALED)
    assert list(net.state_dict()) == ["lam"]
    assert not list(net.parameters())
    one = torch.ones(2, dtype=torch.float64)
    assert net(one).tolist() == [0.1, 0.1]  # not float32's 0.1
    assert net.double().lam.item() == 0.1
    assert layer(SCALED, bindings={"lam": 3})(one).tolist() == [3.0, 3.0]
    net.lam = 0.2
    assert net(one).tolist() == [0.2, 0.2]


def test_a_bound_tensor_keeps_its_dtype() -> None:
    net = layer(SCALED, bindings={"lam": torch.tensor(0.1)})
    with pytest.raises(ShapeError, match=r"`const lam in R` is torch\.float32"):
        net(torch.ones(2, dtype=torch.float64))
    net.load_state_dict({"lam": torch.tensor(0.7)})
    assert net(torch.ones(2)).tolist() == pytest.approx([0.7, 0.7])


def test_a_loaded_constant_is_no_longer_the_written_one() -> None:
    net = layer(SCALED)
    net.load_state_dict({"lam": torch.tensor(0.7)})
    assert net.double().lam.item() == pytest.approx(0.7, abs=1e-7)


def test_constants_without_value() -> None:
    with pytest.raises(TypeError, match="`const lam in R` has no value: pass lam=… to compile"):
        layer(model(givens=[symbol(x)], consts=[symbol(lam)], outputs=[("y", b.mul(lam, x))], dims=["m"]))


def test_a_constant_matrix_fixes_dimensions() -> None:
    C = sym("C", Role.CONST, (n, m))
    one = model(givens=[symbol(x)], consts=[symbol(C)], outputs=[("y", b.matmul(C, x))], dims=["n", "m"])
    net = layer(one, bindings={"C": torch.ones(5, 2)})
    assert net.sizes == {"n": 5, "m": 2}
    assert net(torch.ones(2)).tolist() == [2.0] * 5


# -- dimensions found at the first call --------------------------------------------------------------------------------

SQUARE = model(
    givens=[symbol(x)],
    params=[
        symbol(sym("A", Role.PARAM, (m, m + m)), None),
        symbol(sym("S", Role.PARAM, (m, m)), SetInfo("SpectralBall", (0.5,), (m, m), "SpectralBall(m, 0.5)")),
    ],
    outputs=[("y", b.matmul(x, b.matmul(sym("S", Role.PARAM, (m, m)), sym("A", Role.PARAM, (m, m + m)))))],
)


def test_lazy_layer_lives_before_its_first_call() -> None:
    net = layer(SQUARE)
    names = [name for name, _ in net.named_parameters()]
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    net = net.double()
    twin = copy.deepcopy(net)
    assert [name for name, _ in twin.named_parameters()] == names
    assert list(net.state_dict()) == names
    twin.load_state_dict(net.state_dict())
    out = net(inputs(7, 3).double())
    assert out.shape == (7, 6)
    assert net.extra_repr() == "m = 3"
    assert net.A.dtype == torch.float64
    out.sum().backward()
    before = net.A.detach().clone()
    optimiser.step()  # the optimiser holds the same parameters
    assert not torch.equal(net.A, before)
    with pytest.raises(ShapeError, match=r"`x in R\^m`: expected \(\.\.\., 3\), got \(\.\.\., 4\)"):
        net(inputs(7, 4).double())


def test_lazy_layer_loads_a_state_dict() -> None:
    net = layer(SQUARE)
    net(inputs(7, 3))
    late = layer(SQUARE)
    late.load_state_dict(net.state_dict())
    assert late.sizes == {"m": 3}
    assert torch.equal(late(inputs(7, 3)), net(inputs(7, 3)))
    with pytest.raises(RuntimeError, match=r"param A in"):
        layer(SQUARE).load_state_dict({"A": torch.ones(3, 5), "S": torch.ones(3, 3)})


def test_lazy_layer_pickles_before_and_after() -> None:
    net = layer(SQUARE)
    again = pickle.loads(pickle.dumps(net))
    again.load_state_dict((first := again(inputs(7, 3)), again.state_dict())[1])
    assert torch.equal(pickle.loads(pickle.dumps(again))(inputs(7, 3)), first)


def test_assignment_fixes_dimensions() -> None:
    net = layer(SQUARE)
    net.A = torch.ones(3, 6)
    assert net.sizes == {"m": 3}
    assert torch.equal(net.A, torch.ones(3, 6))
    assert net(inputs(3)).shape == (6,)


def test_linear_dimensions_are_solved() -> None:
    odd = sym("v", Role.GIVEN, (n + n + Dim.of(1),))
    one = model(
        givens=[symbol(odd)],
        params=[symbol(bias)],
        outputs=[("y", b.add(bias, b.index(odd, [b.slice_item(Dim.of(0), n)])))],
        dims=["n"],
    )
    net = layer(one)
    assert net(torch.ones(2, 7)).shape == (2, 3)
    with pytest.raises(ShapeError, match=r"no n gives 2 n \+ 1 = 6"):
        layer(one)(torch.ones(6))


def test_a_dimension_no_input_fixes() -> None:
    with pytest.raises(ShapeError, match="no input has a shape that fixes `n`: pass n=… to compile"):
        layer(DENSE)(inputs(3))
    with pytest.raises(TypeError, match="Net has no dimension `k`"):
        layer(DENSE, sizes={"k": 2})


# -- functions ---------------------------------------------------------------------------------------------------------


def opaque(layer_model: object = None) -> Opaque:
    return Opaque("f", ((n,), ()), ((n,),), span=NOWHERE)


def with_function(f: object, **more: object) -> nn.Module:
    s = sym("s", Role.GIVEN)
    v = sym("v", Role.GIVEN, (n,))
    out = b.apply("f", (v, s), (n,))
    return layer(
        model(givens=[symbol(v), symbol(s)], opaques=[opaque()], outputs=[("y", out)], dims=["n"]),
        bindings={"f": f},
        **more,
    )


class Cell(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.linear = nn.Linear(4, width)

    def forward(self, v: Tensor, s: Tensor) -> Tensor:
        return self.linear(v) * s[:, None]


def plain(v: Tensor, s: Tensor) -> Tensor:
    assert v.dim() == 2
    assert s.dim() == 1
    return v * s[:, None]


def test_modules_are_registered_under_their_name() -> None:
    net = with_function(Cell())
    assert [name for name, _ in net.named_parameters()] == ["f.linear.weight", "f.linear.bias"]
    assert net(inputs(2, 3, 4), 2.0).shape == (2, 3, 4)
    net(inputs(4), 2.0).sum().backward()
    assert net.f.linear.weight.grad is not None
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin.f.linear.weight.zero_()
        twin.f.linear.bias.zero_()
    assert not twin(inputs(4), 2.0).any()
    assert net(inputs(4), 2.0).any()


def test_plain_functions() -> None:
    net = with_function(plain)
    torch.testing.assert_close(net(inputs(2, 3, 4), 2.0), 2 * inputs(2, 3, 4))
    assert torch.equal(pickle.loads(pickle.dumps(net))(inputs(4), 2.0), net(inputs(4), 2.0))


def test_another_shape_than_declared() -> None:
    assert signature(opaque()) == "f: (R^n, R) -> R^n"
    message = r"n=4 given, but f returned \(…, 32\) for inputs \(…, 4\), \(…\); declared f: \(R\^n, R\) -> R\^n"
    with pytest.raises(SpecError, match=message) as error:
        with_function(Cell(32))(inputs(4), 2.0)
    assert [d.code for d in error.value.diagnostics] == ["IMP209"]
    with pytest.raises(SpecError, match="IMP209"):
        with_function(lambda v, s: (v, v))(inputs(4), 2.0)


def test_an_explicit_layer_differentiates_whatever_a_function_uses() -> None:
    weight = torch.ones(4, requires_grad=True)
    (found,) = torch.autograd.grad(with_function(lambda v, s: v * weight)(inputs(4), 2.0).sum(), weight)
    assert torch.equal(found, inputs(4))


def test_an_unbound_function() -> None:
    with pytest.raises(TypeError, match="`fn f` is not bound: pass f=… to compile"):
        layer(model(opaques=[opaque()], outputs=[]))
    with pytest.raises(TypeError, match=r"pass atan=torch\.atan to compile"):
        imp.compile("given a in R\nfind z in R such that atan(z) = a")


def test_a_sub_layer_gets_its_dimensions_from_ours() -> None:
    inner = layer(DENSE)
    v = sym("v", Role.GIVEN, (n,))
    enc = Opaque("enc", ((n,),), ((n + Dim.of(1),),), layer=DENSE, sizes=(("n", n + Dim.of(1)), ("m", n)), span=NOWHERE)
    net = layer(
        model(givens=[symbol(v)], opaques=[enc], outputs=[("y", b.apply("enc", (v,), (n + Dim.of(1),)))], dims=["n"]),
        bindings={"enc": inner},
    )
    assert net(inputs(5, 3)).shape == (5, 4)
    assert inner.sizes == {"n": 4, "m": 3}
    assert [name for name, _ in net.named_parameters()] == ["enc.U", "enc.W", "enc.b"]
    torch.testing.assert_close(net(inputs(5, 3)), inner(inputs(5, 3)))


# -- nn.Module citizenship ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [DENSE, DEQ, TWO], ids=["explicit", "block", "tuple"])
def test_copies_and_pickles_give_the_same(which: object) -> None:
    net = layer(which, sizes=SIZES, lower=Picard() if which is DEQ else lambda sizes: ())  # pyright: ignore[reportArgumentType]
    expected = torch.utils._pytree.tree_leaves(net(inputs(5, 3)))
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), torch.load(buffer, weights_only=False)):
        assert list(twin.state_dict()) == list(net.state_dict())
        for a, c in zip(torch.utils._pytree.tree_leaves(twin(inputs(5, 3))), expected, strict=True):
            assert torch.equal(a, c)
        with torch.no_grad():
            twin.get_parameter("U").zero_()
    assert net.U.any()


def test_state_dict_round_trip() -> None:
    first, second = layer(DENSE, sizes=SIZES), layer(DENSE, sizes=SIZES)
    assert not torch.equal(first(inputs(5, 3)), second(inputs(5, 3)))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(inputs(5, 3)), second(inputs(5, 3)))


def test_functional_call_and_vmap_over_parameters() -> None:
    net = layer(DENSE, sizes=SIZES)
    raw = {name: p.detach() for name, p in net.named_parameters()}
    many = {name: torch.stack([p, 2 * p]) for name, p in raw.items()}
    v = inputs(5, 3)
    mapped = torch.func.vmap(lambda p: torch.func.functional_call(net, p, (v,)))(many)
    for k in range(2):
        one = torch.func.functional_call(net, {name: p[k] for name, p in many.items()}, (v,))
        torch.testing.assert_close(mapped[k], one)


def test_transforms_and_gradcheck() -> None:
    net = layer(DENSE, sizes=SIZES).double()
    v = inputs(5, 3).double()
    jacobian = torch.func.vmap(torch.func.jacfwd(net))(v)
    looped = torch.stack([torch.func.jacrev(net)(row) for row in v])
    torch.testing.assert_close(jacobian, looped)
    assert torch.autograd.gradcheck(net, [v.requires_grad_()])
    assert torch.autograd.gradgradcheck(net, [v])


@pytest.mark.parametrize("which", [DENSE, DEQ, TWO], ids=["explicit", "block", "tuple"])
def test_compiles_without_graph_breaks(which: object) -> None:
    net = layer(which, sizes=SIZES, lower=Picard() if which is DEQ else lambda sizes: ())  # pyright: ignore[reportArgumentType]
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    v = inputs(5, 3).requires_grad_()
    found, expected = (torch.utils._pytree.tree_leaves(f(v)) for f in (compiled, net))
    for a, c in zip(found, expected, strict=True):
        torch.testing.assert_close(a, c)
    raw = list(net.parameters())
    (ours, theirs) = (torch.autograd.grad(sum(y.sum() for y in ys), [v, *raw]) for ys in (found, expected))
    for a, c in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, c)


def test_compiled_module_function() -> None:
    net = with_function(Cell(), sizes={"n": 4})
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(inputs(5, 4), torch.ones(5)), net(inputs(5, 4), torch.ones(5)))


def test_training_mode_changes_nothing() -> None:
    net = layer(DENSE, sizes=SIZES)
    assert torch.equal(net.train()(inputs(5, 3)), net.eval()(inputs(5, 3)))


def test_repr_is_the_completed_spec() -> None:
    net = layer(
        DENSE, sizes=SIZES, text="layer Net(n, m):\n  given x in R^m\n", explain=lambda form, sizes: f"as {form}"
    )
    assert repr(net) == "layer Net(n, m):\n  given x in R^m\n# n = 4, m = 3"
    assert net._repr_markdown_() == "as markdown"
    assert net._repr_latex_() == "as latex"


def test_source_is_shown_in_tracebacks() -> None:
    import linecache

    net = layer(DENSE, sizes=SIZES)
    name = net._program["outputs"].__code__.co_filename
    assert name.startswith("<implicitdsl Net")
    linecache.checkcache()
    assert "torch.tanh" in "".join(linecache.getlines(name))
    assert net._stages.text == "".join(linecache.getlines(name))


def test_second_block_may_use_definitions_of_the_first() -> None:
    from implicitdsl.ir.model import Block, Equation

    w = sym("w", Role.UNKNOWN, (n,))
    e = sym("e", Role.DEFINITION)
    h = sym("h", Role.DEFINITION, (n,))
    first, *_ = DEQ.blocks
    second = Block("root", (symbol(w),), (Equation(w, "=", b.mul(e, z), NOWHERE),), NOWHERE)
    two = model(
        givens=DEQ.givens,
        params=DEQ.params,
        definitions=[*DEQ.definitions, (e, b.add(b.matmul(z, z), num(1.0)))],
        blocks=[first, second],
        outputs=[("w", w), ("h", h), ("y", tanh(b.matmul(W, b.matmul(U, x))))],
        dims=["n", "m"],
    )

    class Product:
        def solve(self, values, functions, batch, start, want_report):  # a double of the protocol
            return {"w": values["e"][..., None] * values["z"]}, Picard().solve(
                values, functions, batch, None, want_report
            )[1]

    net = layer(two, sizes=SIZES, lower=lambda sizes: [Picard(), Product()])
    solution = net.solve(inputs(5, 3))
    zv = solution.unknowns["z"]
    torch.testing.assert_close(solution.value.w, (zv.square().sum(-1, keepdim=True) + 1) * zv)
    assert len(solution.report.blocks) == 2
    assert solution.report.iterations.tolist() == [120] * 5
