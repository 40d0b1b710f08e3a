"""What to say where the parser stops, from the token before, the token found, and what could have stood there."""

from __future__ import annotations

from collections.abc import Iterator

from implicitdsl.ground.diagnostics import Applicability, Diagnostic, Edit, Fix
from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Source, Span

from .relations import two_equal_signs
from .sections import keyword_as_name
from .tokens import INFIX, RELATIONS, SEPARATORS, Token

_OPERAND = frozenset(("NAME", "NUMBER", "LPAR"))
_ONLY_A_SET = frozenset(("NAME", "LPAR", "LSQB", "FOR"))
_SECTION_WORDS = ("given", "param", "const", "where", "find", "using", "return", "import", "layer", "let", "fn")
_SYNONYMS = {
    "input": "given", "inputs": "given", "parameter": "param", "parameters": "param", "params": "param",
    "learn": "param", "constant": "const", "def": "fn", "function": "fn", "func": "fn", "solve": "find",
    "minimize": "argmin_", "minimise": "argmin_", "argmin": "argmin_", "maximize": "argmax_", "argmax": "argmax_",
    "output": "return", "outputs": "return", "define": "where", "with": "using", "use": "import", "module": "layer",
}  # fmt: skip
# Human words for what the parser could take, most telling first.
_EXPECTED = (
    (("STRING",), "a text in double quotes"), (("EQ", "LE"), "a relation sign such as `=` or `<=`"),
    (("EQ",), "`=`"), (("IN",), "`in`"), (("SUCH_THAT",), "`such that`"), (("ARROW",), "`->`"), (("FROM",), "`from`"),
    (("COLON",), "`:`"), (("RPAR",), "`)`"), (("RSQB",), "`]`"), (("RBRACE",), "`}`"), (("BAR_END",), "`|`"),
    (("DBAR_END",), "`||`"), (("COMMA",), "`,`"), (("$END",), "the end of the statement"), (("PLUS",), "an operator"),
)  # fmt: skip


@dataclass(slots=True)
class Context:
    """A statement's tokens, the index where the parser stopped, and the types of token it could have taken there.

    `head` tokens stand before the item in question.
    """

    source: Source
    tokens: list[Token]
    index: int
    accepts: frozenset[str]
    head: int

    @property
    def kind(self) -> str:
        return self.tokens[0].type

    @property
    def before(self) -> Token:
        return self.tokens[max(self.index, 1) - 1]

    @property
    def found(self) -> Token | None:
        """The token in question; None at the end of the statement."""
        return self.tokens[self.index] if self.index < len(self.tokens) else None

    @property
    def at_end(self) -> bool:
        return self.found is None or self.found.type == "NEWLINE"

    @property
    def span(self) -> Span:
        """Where to point: the token in question, or the place behind the one before."""
        return Span(self.before.end, self.before.end) if self.found is None or self.at_end else self.found.span

    @property
    def item(self) -> Token:
        """The first token of the item in question."""
        return self.tokens[min(self.head, len(self.tokens) - 1)]


def explain(c: Context) -> Diagnostic:
    """The diagnostic for a statement that stops at `c.index`."""
    for rule in _RULES:
        said = rule(c)
        if said is not None:
            return said
    if c.accepts >= _OPERAND and "EQ" not in c.accepts:
        return _operand(c)
    if c.accepts <= _ONLY_A_SET and "NAME" in c.accepts:
        wanted = "a name" if len(c.accepts) == 1 else "a set such as `R^n`"
        help_text = "write `R^n`, `R^(m, n)`, `(a, b)`, `[a, b]^n` or a named set" if len(c.accepts) > 1 else None
        return _say(c, f"expected {wanted} after {_after(c)}, found {_what(c)}", help_text)
    return _say(c, f"{_what(c)} cannot stand after {_after(c)}", _expected(c.accepts))


# -- special cases, most telling first -------------------------------------------------------------------------------


def _two_equal(c: Context) -> Diagnostic | None:
    if c.found is None or c.found.type != "EQ":
        return None
    earlier = any(t.type == "EQ" for t in c.tokens[c.head : c.index])
    return two_equal_signs(c.found.span, c.source) if earlier and c.kind in ("WHERE", "RETURN", "LET") else None


def _keyword(c: Context) -> Diagnostic | None:
    if c.found is None or c.found.type not in ("IN", "FOR", "UNTIL") or not c.found.text.isalpha():
        return None
    return keyword_as_name(c.found, c.source) if "NAME" in c.accepts and c.accepts.isdisjoint(("PLUS",)) else None


def _section_meant(c: Context) -> Diagnostic | None:
    """`parma W in R` where a line begins: a section whose word is misspelt."""
    item = c.item
    line_start = not c.source.text[c.source.text.rfind("\n", 0, item.start) + 1 : item.start].strip()
    following = c.tokens[c.head + 1].type if c.head + 1 < len(c.tokens) else None
    if c.head == 0 or item.type != "NAME" or not line_start or following not in ("NAME", "BAR", "DBAR", "LBRACE"):
        return None
    meant = section_word(item.text)
    if meant is None:
        return None
    fix = Fix(f"did you mean `{meant}`?", (Edit(item.span, meant),), Applicability.UNSAFE)
    return Diagnostic("IMP004", f"`{item.text}` is not a section", item.span, c.source, fixes=(fix,))


def _constraint_without_subject_to(c: Context) -> Diagnostic | None:
    if c.kind not in ("ARGMIN", "ARGMAX") or any(t.type == "SUBJECT_TO" for t in c.tokens):
        return None
    if c.found is None or not (c.found.type in RELATIONS or c.found.type in SEPARATORS or c.found.type == "IN"):
        return None
    if "PLUS" not in c.accepts:  # inside the objective's brackets, or before it
        return None
    fixes: tuple[Fix, ...] = ()
    if c.found.type in SEPARATORS:
        edit = Edit(c.found.span, " subject to" if c.found.type != "NEWLINE" else "\n  subject to ")
        fixes = (Fix("write `subject to` before the constraints", (edit,), Applicability.UNSAFE),)
    message = "constraints follow the objective after `subject to`"
    return Diagnostic("IMP004", message, c.span, c.source, fixes=fixes, help="write `objective subject to constraints`")


def _value_of_input(c: Context) -> Diagnostic | None:
    if c.kind != "GIVEN" or c.found is None or c.found.type != "EQ":
        return None
    help_text = "declare it under `const`, whose values can be bound, or under `param`"
    return Diagnostic("IMP004", "an input has no initial value", c.span, c.source, help=help_text)


def _colon_for_in(c: Context) -> Diagnostic | None:
    if c.found is None or c.found.type != "COLON" or "IN" not in c.accepts or c.kind not in ("GIVEN", "PARAM", "CONST"):
        return None
    fix = Fix("write `in`", (Edit(c.found.span, " in"),), Applicability.SAFE)
    return Diagnostic("IMP004", "a declaration is written with `in`", c.span, c.source, fixes=(fix,))


def _line_begins_with_operator(c: Context) -> Diagnostic | None:
    """The item's first token is an operator, or its only sign is a minus in front: meant to continue the line above."""
    item = c.item
    line_start = not c.source.text[c.source.text.rfind("\n", 0, item.start) + 1 : item.start].strip()
    if not line_start or not (item.type in INFIX or (item.type == "MINUS" and c.at_end)):
        return None
    message = f"a line that begins with `{item.text}` does not continue the one above"
    help_text = f"end the line above with `{item.text}`, or put the expression in brackets"
    return Diagnostic("IMP001", message, item.span, c.source, help=help_text)


def _relation_without_sign(c: Context) -> Diagnostic | None:
    if not (c.at_end or (c.found is not None and c.found.type in SEPARATORS)):
        return None
    if not ({"EQ", "LE", "IN", "PLUS"} <= c.accepts and c.kind in ("FIND", "ARGMIN", "ARGMAX", "BARE")):
        return None
    span = Span(c.item.start, c.before.end)
    return Diagnostic("IMP004", "this relation has no `=`, `<=` or `>=`", span, c.source,
                      help="an equation states both sides, `e = 0`; `||` and `|` come in pairs")  # fmt: skip


def _braces(c: Context) -> Diagnostic | None:
    if c.found is None or c.found.type != "LBRACE":
        return None
    return _say(c, "`{` is only for the unknowns of `argmin_{…}`", "group with `(…)`; a vector is `[a, b]`")


def _rows(c: Context) -> Diagnostic | None:
    if c.found is None or c.found.type != "SEMICOLON" or "RSQB" not in c.accepts:
        return None
    return _say(c, "`;` cannot stand in brackets", "the rows of a matrix are vectors: `[[a, b], [c, d]]`")


def _underscored(c: Context) -> Diagnostic | None:
    if c.found is None or c.found.type != "NORM_KIND":
        return None
    return _say(c, f"`{c.found.text}` is no name: names begin with a letter", "a `_1` follows only a norm, `||x||_1`")


_RULES = (
    _two_equal, _keyword, _section_meant, _constraint_without_subject_to, _value_of_input, _colon_for_in,
    _line_begins_with_operator, _relation_without_sign, _braces, _rows, _underscored,
)  # fmt: skip


# -- IMP002 ----------------------------------------------------------------------------------------------------------


def such_that_places(tokens: list[Token], index: int) -> Iterator[int]:
    """Where `such that` may have been meant in a `find` without it: before the token where the parser stopped, before
    the separator of the item it stopped in, before that item."""
    index = min(index, len(tokens) - 1)
    yield index
    for i in range(index - 1, 0, -1):
        if tokens[i].type in SEPARATORS:
            yield i
            return


def lacks_such_that(tokens: list[Token], index: int) -> bool:
    """Whether a `find` that stops at `index` stops for want of `such that`."""
    return index >= len(tokens) or tokens[index].type in RELATIONS or tokens[index].type == "NEWLINE"


def no_such_that(source: Source, tokens: list[Token], at: int | None) -> Diagnostic:
    """IMP002; `at` is the index of the token before which it belongs, if that is known."""
    fixes: tuple[Fix, ...] = ()
    span = tokens[0].span
    if at is not None:
        where = tokens[at - 1].end
        follows = tokens[at]
        edit = Edit(Span(where, follows.end if follows.type in ("COMMA", "SEMICOLON") else where), " such that")
        fixes = (Fix("write `such that` before the first equation", (edit,), Applicability.SAFE),)
    elif len(tokens) > 2 and tokens[1].type == "NAME" and tokens[2].type in RELATIONS:
        name = tokens[1].text
        edit = Edit(Span(tokens[1].start, tokens[1].start), f"{name} such that ")
        fixes = (Fix(f"name the unknown: `find {name} such that {name} = …`", (edit,), Applicability.SAFE),)
    help_text = None if fixes else "write `find z in R^n such that` and the equations that determine z"
    return Diagnostic("IMP002", "`find` lacks `such that`", span, source, fixes=fixes, help=help_text)


def too_deep(source: Source, tokens: list[Token]) -> Diagnostic:
    """An expression that the passes over the tree could not walk."""
    span = Span(tokens[0].start, tokens[-1].end)
    help_text = "name parts of it with `where`"
    return Diagnostic("IMP004", "an expression here is nested too deeply", span, source, help=help_text)


# -- words -----------------------------------------------------------------------------------------------------------


def section_word(text: str) -> str | None:
    """The section keyword that a word stands for, by synonym or by a slip of the pen."""
    meant = _SYNONYMS.get(text.lower())
    if meant is None and len(text) > 2:
        from difflib import get_close_matches  # only where a spec is wrong

        close = get_close_matches(text.lower(), _SECTION_WORDS, 1, 0.7)
        meant = close[0] if close else None
    return meant if meant != text else None


def _operand(c: Context) -> Diagnostic:
    help_text = None
    if c.before.type in INFIX or c.before.type == "MINUS":
        help_text = f"add what follows `{c.before.text}`, or remove it"
    message = f"expected an operand after {_after(c)}, found {_what(c)}"
    return Diagnostic("IMP001", message, c.span, c.source, help=help_text)


def _say(c: Context, message: str, help_text: str | None) -> Diagnostic:
    return Diagnostic("IMP004", message, c.span, c.source, help=help_text)


def _what(c: Context) -> str:
    if c.found is None:
        return "the end of the statement"
    return "the end of the line" if c.at_end else f"`{c.found.text}`"


def _after(c: Context) -> str:
    if c.before.type == "BARE":
        return "the beginning of the line"
    return "the end of the line" if c.before.type == "NEWLINE" else f"`{c.before.text}`"


def _expected(accepts: frozenset[str]) -> str:
    """At most three things that could stand there, in words."""
    words: list[str] = []
    if accepts >= _OPERAND:
        words.append("an expression")
    elif "NAME" in accepts:
        words.append("a name")
    for types, word in _EXPECTED:
        if accepts.issuperset(types) and not (word == "`=`" and any("sign" in w for w in words)):
            words.append(word)
    *others, last = words[:3] or ["nothing more"]
    return "expected " + (", ".join(others) + " or " if others else "") + last
