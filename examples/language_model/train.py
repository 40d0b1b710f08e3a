"""A deep equilibrium language model on the characters of Python's own documentation.

    python examples/language_model/train.py            # 500 steps, about a minute on two cores
    python examples/language_model/train.py --fast     # 40 steps

The state z, one vector a character, is the fixed point of a transformer cell: causal attention and a two-layer network,
whose input is an embedding of the last four characters, computed once a call because it does not contain z. The text is
that of `help(topic)`, which ships with CPython. The script trains the layer beside the same cell unrolled to LAYERS
steps, prints bits per character on training and validation text beside those of a unigram and a bigram model, shows how
the residual falls from iteration to iteration, and lets the model write.

On this budget two layers do as well; the equilibrium's backward pass keeps one evaluation of the cell, however many
iterations its solver takes.

Sources: Bai, Kolter & Koltun, "Deep equilibrium models" (2019), the weight-tied transformer at its fixed point beside a
short unrolled one; Henry et al., "Query-key normalization for transformers" (2020), bounded attention scores, which
keep the cell near a contraction while it trains.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

import implicitdsl as imp

LENGTH, WIDTH, HEADS, REACH, LAYERS, BATCH = 32, 64, 4, 4, 2, 16
RATE, GAIN, SHARPNESS = 1e-2, 0.4, 4.0
BEGINNING = "The following is an expression: "  # of LENGTH characters
HERE = Path(__file__).parent


class Embed(nn.Module):
    """A causal convolution over the last REACH characters, and a vector for each place."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(REACH, characters, WIDTH) / REACH**0.5)
        self.place = nn.Parameter(0.1 * torch.randn(LENGTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        shifted = (F.pad(x @ row, (0, 0, k, 0))[:, :LENGTH] for k, row in enumerate(self.table))
        return sum(shifted, self.place)


class Cell(nn.Module):
    """e + attention(z) + network(…): queries and keys are unit vectors, so that scores stay bounded."""

    def __init__(self) -> None:
        super().__init__()
        self.queries_keys = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.values = nn.Linear(WIDTH, WIDTH, bias=False)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.network = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)

    def forward(self, z: Tensor, e: Tensor) -> Tensor:
        h = self.norm(z)
        q, k = F.normalize(self.queries_keys(h).unflatten(-1, (2, HEADS, -1)), dim=-1).permute(2, 0, 3, 1, 4)
        v = self.values(h).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        seen = F.scaled_dot_product_attention(SHARPNESS * q, k, v, is_causal=True, scale=1.0)
        y = e + GAIN * self.mix(seen.transpose(1, 2).flatten(2))
        return y + GAIN * self.network(self.norm(y + 0.5 * z))


class Unrolled(nn.Module):
    """The same cell applied LAYERS times from zero, as a weight-tied transformer of that depth."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.C = nn.Linear(WIDTH, characters, bias=False)
        self.embed, self.cell = Embed(characters), Cell()

    def forward(self, x: Tensor) -> Tensor:
        e = self.embed(x)
        z = torch.zeros_like(e)
        for _ in range(LAYERS):
            z = self.cell(z, e)
        return self.C(z)


class Text:
    """Documentation topics in random order, nine tenths of the characters to train on, the rest to validate."""

    def __init__(self) -> None:
        parts = sorted(set(topics.values()))
        order = torch.randperm(len(parts), generator=torch.Generator().manual_seed(0))
        text = "\n".join(parts[k] for k in order)
        self.characters = sorted(set(text))
        place = {c: k for k, c in enumerate(self.characters)}
        ids = torch.tensor([place[c] for c in text])
        self.train, self.valid = ids.tensor_split([len(ids) * 9 // 10])

    def windows(self, ids: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """LENGTH characters from each start, one-hot, and the characters that follow them."""
        rows = ids[starts[:, None] + torch.arange(LENGTH + 1)]
        return F.one_hot(rows[:, :-1], len(self.characters)).float(), rows[:, 1:]

    def spread(self, ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """`count` windows at equal distances."""
        return self.windows(ids, torch.linspace(0, len(ids) - LENGTH - 2, count).long())

    def decoded(self, ids: Tensor) -> str:
        return "".join(self.characters[k] for k in ids.tolist())

    def baselines(self) -> tuple[float, float]:
        """Bits per validation character of the unigram and bigram models, counts smoothed by 0.1."""
        n = len(self.characters)
        single = torch.bincount(self.train, minlength=n).double() + 0.1
        pairs = torch.bincount(self.train[:-1] * n + self.train[1:], minlength=n * n).view(n, n).double() + 0.1
        unigram = -(single / single.sum()).log2()[self.valid].mean()
        bigram = -(pairs / pairs.sum(1, keepdim=True)).log2()[self.valid[:-1], self.valid[1:]].mean()
        return unigram.item(), bigram.item()


def bits(net: Callable[[Tensor], Tensor], windows: tuple[Tensor, Tensor]) -> float:
    """Bits per character."""
    with torch.no_grad():
        return F.cross_entropy(net(windows[0]).flatten(0, 1), windows[1].flatten()).item() / math.log(2)


def train(name: str, net: nn.Module, text: Text, steps: int) -> list[float]:
    """Fit by AdamW under a one-cycle schedule; bits per character of every step."""
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    history: list[float] = []
    for _ in (bar := tqdm(range(steps), desc=name, unit="step")):
        x, y = text.windows(text.train, torch.randint(len(text.train) - LENGTH - 1, (BATCH,)))
        loss = F.cross_entropy(net(x).flatten(0, 1), y.flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        history.append(loss.item() / math.log(2))
        bar.set_postfix(bits=f"{sum(history[-20:]) / len(history[-20:]):.2f}", refresh=False)
    return history


def residuals(embed: nn.Module, cell: nn.Module, x: Tensor, steps: int = 30) -> list[float]:
    """Worst ‖cell(z, e) - z‖ / ‖z‖ in the batch along the plain iteration from zero."""
    with torch.no_grad():
        e = embed(x)
        z, found = torch.zeros_like(e), []
        for _ in range(steps):
            z, before = cell(z, e), z
            found.append(((z - before).flatten(1).norm(dim=1) / z.flatten(1).norm(dim=1)).max().item())
    return found


def write(net: nn.Module, text: Text, count: int, temperature: float = 0.7) -> str:
    """`count` characters that the model adds to BEGINNING."""
    ids = torch.tensor([text.characters.index(c) for c in BEGINNING])
    with torch.no_grad():
        for _ in range(count):
            x = F.one_hot(ids[-LENGTH:], len(text.characters)).float()
            chances = F.softmax(net(x)[-1] / temperature, dim=-1)
            ids = torch.cat((ids, torch.multinomial(chances, 1)))
    return text.decoded(ids[LENGTH:])


def draw(
    path: Path, curves: dict[str, list[float]], lines: dict[str, float], traces: dict[str, list[float]], count: int
) -> None:
    """Bits per character by step beside the baselines, and the residual by iteration before and after training."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    window = max(len(next(iter(curves.values()))) // 30, 1)
    for name, history in curves.items():
        smooth = torch.tensor(history).unfold(0, window, 1).mean(1)
        left.plot(torch.arange(window, len(history) + 1), smooth, label=name)
    for (name, value), style in zip(lines.items(), ("--", ":"), strict=True):
        left.axhline(value, color="grey", linestyle=style, label=name)
    left.set(xlabel="training step", ylabel="bits per character", title="the documentation of Python")
    left.legend()
    for name, trace in traces.items():
        right.semilogy(range(1, len(trace) + 1), trace, marker=".", label=name)
    right.axvline(count, color="grey", linestyle="--", label=f"the layer's solver: {count} iterations")
    right.set(xlabel="iteration", ylabel="worst relative residual", title="plain iteration z ← cell(z, embed(x))")
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train both models; returns bits per character, and how many validation samples were solved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="40 steps only")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/language_model.png"))
    options = parser.parse_args(arguments)
    steps, count = (40, 24) if options.fast else (options.steps, 240)

    torch.set_num_threads(1)  # the products are too small to share
    text, started = Text(), time.perf_counter()
    samples = {"train": text.spread(text.train, 4 * count), "valid": text.spread(text.valid, 4 * count)}
    torch.manual_seed(options.seed)
    size = len(text.characters)
    embed, cell = Embed(size), Cell()
    with warnings.catch_warnings():  # that a bound cell contracts cannot be proved; the reports say what was solved
        warnings.simplefilter("ignore", imp.SpecWarning)
        deq = imp.compile(HERE / "language_model.imp", t=LENGTH, d=WIDTH, v=size, embed=embed, cell=cell)
    traces = {"before training": residuals(embed, cell, samples["valid"][0][:BATCH])}
    curves = {"deep equilibrium": train("deep equilibrium", deq, text, steps)}
    torch.manual_seed(options.seed)
    tied = Unrolled(size)
    curves[f"{LAYERS} tied layers"] = train(f"{LAYERS} tied layers", tied, text, steps)
    traces["after training"] = residuals(embed, cell, samples["valid"][0][:BATCH])

    unigram, bigram = text.baselines()
    report = deq.solve(samples["valid"][0]).report
    result = {"unigram": unigram, "bigram": bigram, "converged": report.converged.float().mean().item()}
    print(f"{'bits per character':18s} train  validation")
    print(f"{'unigram':18s}        {unigram:.2f}\n{'bigram':18s}        {bigram:.2f}")
    for key, name, net in (("deq", "deep equilibrium", deq), ("tied", f"{LAYERS} tied layers", tied)):
        result |= {f"{key}_{part}": bits(net, windows) for part, windows in samples.items()}
        print(f"{name:18s} {result[f'{key}_train']:.2f}   {result[f'{key}_valid']:.2f}")
    iterations = int(report.iterations.max())
    solved = f"{report.converged.sum()} of {len(report.converged)} validation samples"
    print(f"{solved} solved, in at most {iterations} iterations")
    sample = write(deq, text, count)
    print(f"--- the model goes on\n{BEGINNING}{sample}\n---")
    draw(options.out, curves, {"unigram": unigram, "bigram": bigram}, traces, iterations)
    print(f"{time.perf_counter() - started:.1f} s, picture in {options.out}")
    return result


if __name__ == "__main__":
    main()
