"""Document → text, Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

from .document import Document, Formula, Formulas, Item, Points, Prose, Section, Table, Term
from .notation import Notation, write
from .symbols import GREEK
from .unicode import TEXT

# -- text --------------------------------------------------------------------------------------------------------------


def text(document: Document) -> str:
    """Plain text of at most a few columns' indentation."""
    parts = [f"{document.title}\n{'=' * len(document.title)}"]
    for section in document.sections:
        parts.append(f"{section.title}\n{'-' * len(section.title)}")
        parts += [_text_item(item) for item in section.items]
    return "\n\n".join(parts) + "\n"


def _text_item(item: Item) -> str:
    match item:
        case Prose(sentence):
            return "  " + sentence
        case Formulas(lead, lines):
            head = [f"  {lead}:"] if lead else []
            return "\n".join([*head, *("    " + _line(f, TEXT) + _remark(f) for f in lines)])
        case Table(heading, rows):
            widths = [max(len(row[i]) for row in (heading, *rows)) for i in range(len(heading))]
            padded = (zip(row, widths, strict=True) for row in (heading, *rows))
            return "\n".join(("  " + "  ".join(cell.ljust(w) for cell, w in row)).rstrip() for row in padded)
        case Points(lead, entries):
            lines = [f"  {lead}:"]
            for entry in entries:
                lines += [f"    {entry.head}", *(f"      {line}" for line in entry.lines)]
            return "\n".join(lines)


def _remark(f: Formula) -> str:
    gap = " " if f.remark.startswith("=") else "    "
    return gap + f.remark if f.remark else ""


def _term(term: Term, notation: Notation) -> str:
    return term if isinstance(term, str) else write(term, notation)


def _line(f: Formula, notation: Notation) -> str:
    relation = {"<=": "≤", ">=": "≥", "<<": "⪯", ">>": "⪰"}.get(f.relation, f.relation)
    return " ".join(part for part in (_term(f.left, notation), relation, _term(f.right, notation)) if part)


# -- Markdown ----------------------------------------------------------------------------------------------------------


def markdown(document: Document, math: Notation) -> str:
    """Markdown with formulas in `$$` blocks."""
    parts = [f"# {document.title}"]
    for section in document.sections:
        parts.append(f"## {section.title}")
        parts += [_markdown_item(item, math) for item in section.items]
    return "\n\n".join(parts) + "\n"


def _markdown_item(item: Item, math: Notation) -> str:
    match item:
        case Prose(sentence):
            return sentence
        case Formulas(lead, lines):
            head = [f"**{lead}**"] if lead else []
            return "\n\n".join([*head, *(f"$$\n{tex_line(f, math)}\n$$" for f in lines)])
        case Table(heading, rows):
            ruled = (heading, ("---",) * len(heading), *rows)
            return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in ruled)
        case Points(lead, entries):
            lines = [f"**{lead}**", ""]
            for entry in entries:
                lines += [f"- {entry.head}", *(f"  - {line}" for line in entry.lines)]
            return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


# -- LaTeX -------------------------------------------------------------------------------------------------------------

_HEAD = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage{amsmath, amssymb}
\begin{document}"""

_RELATIONS = {
    "= ∫": r"= \int",
    "<=": r"\le",
    ">=": r"\ge",
    "<<": r"\preceq",
    ">>": r"\succeq",
    "argmin": r"\arg\min",
    "argmax": r"\arg\max",
}

_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{c: "\\" + c for c in "&%$#_{}"},
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "‖": r"$\Vert$",
    "|": r"$\vert$",
    "<": r"$<$",
    ">": r"$>$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "⪰": r"$\succeq$",
    "−": r"$-$",
    "→": r"$\to$",
    "←": r"$\leftarrow$",
    "×": r"$\times$",
    "∞": r"$\infty$",
    "√": r"$\surd$",
    "ᵀ": r"$^\top$",
    "ₐ": r"$_a$",
    "…": r"\ldots{}",
    "–": "--",
    "∂": r"$\partial$",
    "∘": r"$\circ$",
    "Σ": r"$\Sigma$",
    "·": r"$\cdot$",
    **{c: rf"$\{name}$" for c, name in GREEK.items()},
    **{c: f"$_{i}$" for i, c in enumerate("₀₁₂₃₄₅₆₇₈₉")},
    **{c: f"$^{i}$" for i, c in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
}


def latex(documents: Sequence[Document], math: Notation) -> str:
    """A LaTeX document that compiles by itself."""
    parts = [_HEAD]
    for document in documents:
        parts.append(rf"\section*{{{escape(document.title)}}}")
        parts += [_latex_section(section, math) for section in document.sections]
    return "\n\n".join([*parts, r"\end{document}"]) + "\n"


def _latex_section(section: Section, math: Notation) -> str:
    return "\n\n".join([rf"\subsection*{{{escape(section.title)}}}", *(_latex_item(i, math) for i in section.items)])


def _latex_item(item: Item, math: Notation) -> str:
    match item:
        case Prose(sentence):
            return escape(sentence)
        case Formulas(lead, lines):
            rows = " \\\\\n".join("  & " + tex_line(f, math) for f in lines)
            head = escape(lead) + (":" if lead else "")
            return f"{head}\n\\begin{{align*}}\n{rows}\n\\end{{align*}}".strip()
        case Table(heading, rows):
            body = " \\\\\n".join(" & ".join(map(escape, row)) for row in (heading, *rows))
            columns = "l" * len(heading)
            return f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}"
        case Points(lead, entries):
            points = [p for entry in entries for p in (rf"\item {escape(entry.head)}", *_nested(entry.lines))]
            return "\n".join([escape(lead) + ":", r"\begin{itemize}", *points, r"\end{itemize}"])


def _nested(lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    return [r"\begin{itemize}", *(rf"\item {escape(line)}" for line in lines), r"\end{itemize}"]


def escape(text: str) -> str:
    """Prose as LaTeX, the signs of proofs included."""
    return "".join(_ESCAPES.get(c, c) for c in text)


def tex_line(f: Formula, math: Notation) -> str:
    """A formula in mathematics mode."""
    sides = [_tex_name(side) if isinstance(side, str) else write(side, math) for side in (f.left, f.right)]
    relation = _RELATIONS.get(f.relation, f.relation)
    remark = f.remark if f.remark.startswith("=") or not f.remark else rf"\qquad \text{{{escape(f.remark)}}}"
    return " ".join(part for part in (sides[0], relation, sides[1], remark) if part)


_SUBSCRIPTS = str.maketrans({c: f"_{{{i}}}" for i, c in enumerate("₀₁₂₃₄₅₆₇₈₉")})


def _tex_name(name: str) -> str:
    """A name that stands for itself: `argmin`, `F(z)`, an output."""
    if not name or name in _RELATIONS:
        return _RELATIONS.get(name, "")
    name = name.translate(_SUBSCRIPTS)
    return rf"\mathrm{{{name}}}".replace("_", r"\_") if name.isidentifier() and len(name) > 1 else name
