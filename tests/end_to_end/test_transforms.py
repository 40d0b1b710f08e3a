"""The corners of docs/transforms.md: older torch interfaces, wrappers, and what is refused, never silently wrong."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.autograd import functional
from torch.func import functional_call, grad, jacfwd, jacrev, linearize, stack_module_state, vmap

import implicitdsl as imp

TANH = """layer Tanh(n):
  given x in R^n
  param W in SpectralBall(n, 0.9)
  find z in R^n such that z = tanh(W z + x)
"""
N = 3
X = torch.linspace(-1, 1, 2 * N, dtype=torch.float64).reshape(2, N)


def build(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return imp.compile(TANH, n=N).double()


def unrolled(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    def call(x: Tensor) -> Tensor:
        z = torch.zeros_like(x)
        for _ in range(400):
            z = torch.tanh(z @ layer.W.mT + x)
        return z

    return call


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_batched_cotangents_of_autograd() -> None:
    layer, x = build(), X.clone().requires_grad_()
    z = layer(x)
    eye = torch.eye(2 * N, dtype=torch.float64).reshape(-1, 2, N)
    (found,) = torch.autograd.grad(z, x, eye, is_grads_batched=True, retain_graph=True)
    close(found, torch.stack([torch.autograd.grad(z, x, row, retain_graph=True)[0] for row in eye]))


def test_autograd_functional() -> None:
    layer = build()
    right = functional.jacobian(unrolled(layer), X)
    close(functional.jacobian(layer, X), right)
    close(functional.jacobian(layer, X, vectorize=True), right)
    close(
        functional.hessian(lambda x: layer(x).sin().sum(), X),
        functional.hessian(lambda x: unrolled(layer)(x).sin().sum(), X),
    )


def test_chunks_of_a_vmap() -> None:
    layer = build()
    close(vmap(jacrev(layer), chunk_size=1)(X), vmap(jacrev(unrolled(layer)))(X))


def test_an_ensemble_is_one_layer_over_stacked_parameters() -> None:
    layers = [build(seed) for seed in range(3)]
    parameters, buffers = stack_module_state(layers)
    found = vmap(lambda p, b: functional_call(layers[0], (p, b), (X,)))(parameters, buffers)
    close(found, torch.stack([layer(X) for layer in layers]))


def test_checkpointing_recomputes_the_solve() -> None:
    layer, x = build(), X.clone().requires_grad_()
    again = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    close(torch.autograd.grad(again.sum(), x)[0], torch.autograd.grad(layer(x).sum(), x)[0])


def test_inference_mode_and_averaged_models() -> None:
    layer = build()
    with torch.inference_mode():
        value = layer(X)
    close(value.clone(), layer(X))
    close(torch.optim.swa_utils.AveragedModel(layer)(X), layer(X))


def test_threads_share_a_layer() -> None:
    layer, found = build(), []
    threads = [threading.Thread(target=lambda: found.append(layer(X).detach())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for z in found:
        close(z, layer(X))


def test_distributed_data_parallel(tmp_path: Path) -> None:
    layer = build()
    layer(X).square().sum().backward()
    raw = layer.get_parameter("W")
    expected, raw.grad = raw.grad, None
    address = (tmp_path / "store").as_uri()
    torch.distributed.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    try:
        nn.parallel.DistributedDataParallel(layer)(X).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    close(raw.grad, expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_export() -> None:
    layer = build()
    close(torch.export.export(layer, (X,)).module()(X), layer(X))


# -- what torch 2.13 or we refuse: an error, never a wrong number ------------------------------------------------------


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    torch.compiler.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager")


@pytest.mark.filterwarnings("ignore")
def test_second_derivatives_of_compiled_code_are_refused() -> None:
    x = X.clone().requires_grad_()
    (first,) = torch.autograd.grad(compiled(build())(x).sin().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        torch.autograd.grad(first.sum(), x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "transform",
    [vmap, lambda f: vmap(jacrev(f)), lambda f: vmap(jacfwd(f)), lambda f: vmap(grad(lambda x: f(x).sum()))],
    ids=["vmap", "jacrev", "jacfwd", "grad"],
)
def test_torch_func_inside_compiled_code_is_refused(transform: Callable[..., Callable[..., Tensor]]) -> None:
    layer = build()
    with torch._C._PreserveDispatchKeyGuard():
        with pytest.raises(Exception, match=r"BatchedTensor|FakeTensor|Unsupported|exception"):
            compiled(transform(lambda x: layer(x)))(X)
        # frames that the failure leaves behind hold guards of torch's, which set the dispatcher's state when they are
        # collected: without autograd, whenever that is
        gc.collect()


@pytest.mark.filterwarnings("ignore")
def test_tracing_and_linearize_are_refused() -> None:
    layer = build()
    with pytest.raises(torch.jit.TracingCheckError):
        torch.jit.trace(layer, (X,))
    with pytest.raises(RuntimeError, match="data-dependent"):
        linearize(layer, X)
    with pytest.raises(RuntimeError, match="Batching rule"):
        functional.jacobian(layer, X, vectorize=True, strategy="forward-mode")
