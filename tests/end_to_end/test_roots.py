"""Every equilibrium spec against its reference: value, gradients, torch.func, precision, copies and modes."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian, jacfwd, jacrev, jvp, vmap

import implicitdsl as imp

from .cases import CASES, Case

pytestmark = pytest.mark.filterwarnings("error::implicitdsl.ConvergenceWarning")


def build(case: Case, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, list[Tensor]]:
    """The layer with materialised parameters, and a batch of inputs that have a solution."""
    torch.manual_seed(1)
    layer = imp.compile(case.text, layer=case.layer, **case.sizes, **case.functions())
    inputs = case.inside([torch.randn(4, *shape, dtype=torch.float64) for shape in case.inputs])
    layer = layer.to(torch.float64)
    with torch.no_grad():
        layer(*inputs)  # a bare spec finds its dimensions here
        for parameter in layer.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    return layer.to(dtype), [x.to(dtype) for x in inputs]


def tensors(output: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (output,) if isinstance(output, Tensor) else tuple(output)


def weighted(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """A scalar in which every entry of the output has its own weight."""
    return sum(
        (torch.sin(torch.arange(1, y.numel() + 1, dtype=y.dtype)).reshape(y.shape) * y).sum() for y in tensors(output)
    )


def flat(case: Case) -> tuple[nn.Module, list[Tensor], dict[str, Tensor], callable]:
    layer, inputs = build(case)
    parameters = {name: p.detach().clone() for name, p in layer.named_parameters()}

    def call(parameters: dict[str, Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
        return tensors(functional_call(layer, parameters, inputs))

    return layer, inputs, parameters, call


def named(case: Case) -> str:
    return case.name.replace(" ", "_")


every = pytest.mark.parametrize("case", CASES, ids=named)
PARAMETRIC = [c for c in CASES if c.functions is not dict or "param " in c.text or "given" not in c.text]
parametric = pytest.mark.parametrize("case", PARAMETRIC, ids=named)


@every
def test_value_and_gradient_equal_the_reference(case: Case) -> None:
    layer, inputs = build(case)
    inputs = [x.requires_grad_() for x in inputs]
    leaves = [*inputs, *layer.parameters()]
    ours, theirs = layer(*inputs), case.reference(layer, *inputs)
    for a, b in zip(tensors(ours), tensors(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    expected = torch.autograd.grad(weighted(theirs), leaves, allow_unused=True, materialize_grads=True)
    found = torch.autograd.grad(weighted(ours), leaves, allow_unused=True, materialize_grads=True)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@every
def test_first_and_second_derivatives_equal_finite_differences(case: Case) -> None:
    _, inputs, parameters, call = flat(case)
    names = list(parameters)
    leaves = [x[:2].clone().requires_grad_() for x in inputs] + [p.requires_grad_() for p in parameters.values()]

    def function(*leaves: Tensor) -> tuple[Tensor, ...]:
        count = len(inputs)
        return call(dict(zip(names, leaves[count:], strict=True)), *leaves[:count])

    assert torch.autograd.gradcheck(function, leaves, atol=1e-6, rtol=1e-5)
    assert torch.autograd.gradgradcheck(function, leaves, atol=1e-5, rtol=1e-4)


@every
def test_jvp_equals_the_reference(case: Case) -> None:
    layer, inputs = build(case)
    torch.manual_seed(2)
    tangents = tuple(torch.randn_like(x) for x in inputs)
    _, ours = jvp(lambda *x: tensors(layer(*x)), tuple(inputs), tangents)
    _, theirs = jvp(lambda *x: tensors(case.reference(layer, *x)), tuple(inputs), tangents)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@every
@pytest.mark.parametrize("transform", [jacfwd, jacrev, hessian], ids=lambda t: t.__name__)
def test_vmap_of_derivatives_equals_a_loop(case: Case, transform: callable) -> None:
    layer, inputs = build(case)
    derivative = transform(lambda *x: weighted(layer(*x)), argnums=tuple(range(len(inputs))))
    mapped = vmap(derivative)(*inputs)
    looped = [derivative(*(x[i] for x in inputs)) for i in range(4)]
    leaves, _ = torch.utils._pytree.tree_flatten(mapped)
    expected = [torch.utils._pytree.tree_flatten(d)[0] for d in looped]
    for k, leaf in enumerate(leaves):
        torch.testing.assert_close(leaf, torch.stack([e[k] for e in expected]), rtol=1e-8, atol=1e-8)


@parametric
def test_vmap_over_parameters_equals_a_loop(case: Case) -> None:
    _, inputs, parameters, call = flat(case)
    assert parameters
    many = {name: torch.stack([p, 0.9 * p, 0.8 * p]) for name, p in parameters.items()}
    mapped = vmap(lambda p: call(p, *inputs))(many)
    for i in range(3):
        for a, b in zip(mapped, call({name: p[i] for name, p in many.items()}, *inputs), strict=True):
            torch.testing.assert_close(a[i], b, rtol=0, atol=1e-9)


@every
def test_float32_agrees_with_float64(case: Case) -> None:
    double, inputs = build(case)
    single, _ = build(case, torch.float32)
    found = single(*[x.float() for x in inputs])
    for a, b in zip(tensors(found), tensors(double(*inputs)), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=2e-5, atol=2e-5)


@every
def test_copies_and_pickles_give_the_same(case: Case) -> None:
    layer, inputs = build(case)
    expected = tensors(layer(*inputs))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert list(twin.state_dict()) == list(layer.state_dict())
        for a, b in zip(tensors(twin(*inputs)), expected, strict=True):
            assert torch.equal(a, b)


@every
def test_train_and_eval_have_the_same_gradient(case: Case) -> None:
    layer, inputs = build(case)
    inputs = [x.requires_grad_() for x in inputs]
    gradients = [torch.autograd.grad(weighted(layer.train(mode)(*inputs)), inputs) for mode in (True, False)]
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


@every
def test_any_leading_batch_dimensions(case: Case) -> None:
    layer, inputs = build(case)
    expected = tensors(layer(*inputs))
    folded = tensors(layer(*[x.reshape(2, 2, *x.shape[1:]) for x in inputs]))
    single = tensors(layer(*[x[1] for x in inputs]))
    for a, b, c in zip(expected, folded, single, strict=True):
        torch.testing.assert_close(b.reshape(a.shape), a, rtol=0, atol=1e-10)
        torch.testing.assert_close(c, a[1], rtol=0, atol=1e-10)


@every
def test_small_losses_keep_their_relative_gradient(case: Case) -> None:
    layer, inputs = build(case)
    inputs = [x.requires_grad_() for x in inputs]
    full = torch.autograd.grad(weighted(layer(*inputs)), inputs)
    tiny = torch.autograd.grad(1e-8 * weighted(layer(*inputs)), inputs)
    for a, b in zip(full, tiny, strict=True):
        torch.testing.assert_close(1e8 * b, a, rtol=1e-9, atol=1e-9)


@every
@pytest.mark.slow
def test_compiles_without_graph_breaks(case: Case) -> None:
    layer, inputs = build(case)
    inputs = [x.requires_grad_() for x in inputs]
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        ours = compiled(*inputs)
        found = torch.autograd.grad(weighted(ours), inputs)
    expected = layer(*inputs)
    for a, b in zip(tensors(ours), tensors(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    for a, b in zip(found, torch.autograd.grad(weighted(expected), inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@every
@pytest.mark.slow
def test_inference_compiles_without_graph_breaks(case: Case) -> None:
    layer, inputs = build(case)
    expected = tensors(layer(*inputs))
    torch.compiler.reset()
    compiled = torch.compile(layer.requires_grad_(False), fullgraph=True, backend="eager")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        ours = compiled(*inputs)
    for a, b in zip(tensors(ours), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
