"""Realistic single changes to Python source, found in its syntax tree.

Left alone: docstrings, annotations, messages (what is raised, printed or formatted), what only types see, and changes
that could hardly pass any test, such as ``-`` between texts or paths.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from mutation.changes import Span

_COMPARISONS = {
    ast.Lt: ("<", "<=", "boundary"), ast.LtE: ("<=", "<", "boundary"), ast.Gt: (">", ">=", "boundary"),
    ast.GtE: (">=", ">", "boundary"), ast.Eq: ("==", "!=", "equality"), ast.NotEq: ("!=", "==", "equality"),
    ast.Is: ("is", "is not", "equality"), ast.IsNot: ("is not", "is", "equality"),
    ast.In: ("in", "not in", "equality"), ast.NotIn: ("not in", "in", "equality"),
}  # fmt: skip
_ARITHMETIC = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"), ast.Pow: ("**", "*"), ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<"),
}  # fmt: skip
_FUNCTIONS = {
    "min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor", "argmin": "argmax",
    "argmax": "argmin", "minimum": "maximum", "maximum": "minimum", "zeros": "ones", "ones": "zeros",
    "zeros_like": "ones_like", "ones_like": "zeros_like",
}  # fmt: skip
_UNORDERED = {
    "isinstance", "issubclass", "getattr", "hasattr", "setattr", "zip", "range", "print", "field", *_FUNCTIONS,
}  # fmt: skip
_SPOKEN = {"print", "debug", "info", "warning", "warn", "log", "tell", "say"}
# Keywords whose value changes what a person sees, not what is computed.
_LOOKS = {"indent", "stacklevel", "help", "title", "label", "fontsize", "figsize", "dpi", "color", "alpha", "linewidth"}
_PATHS = re.compile(r"(?:path|folder|root|directory|parent|home|place)s?$", re.IGNORECASE)
_EFFECTS = (ast.Call, ast.Await)
_JOINED = (ast.JoinedStr, ast.List, ast.ListComp, ast.Tuple)


class _Finder:
    """Walks a tree once; ``found`` are the changes."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.found: list[Span] = []
        self.late: list[tuple[int, int]] = []

    def place(self, node: Any) -> tuple[int, int]:
        """Of an expression or a statement, which have places as the parser made them; ``ast.AST`` alone has none."""
        return (
            self.starts[node.lineno - 1] + node.col_offset,
            self.starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def text(self, node: ast.AST) -> str:
        start, end = self.place(node)
        return self.source[start:end].decode()

    def replace(self, node: ast.AST, text: str, kind: str) -> None:
        self.found.append(Span(*self.place(node), text, kind))

    def between(self, left: ast.AST, right: ast.AST, old: str, new: str, kind: str) -> None:
        """Changes the operator between two expressions; brackets and comments may stand beside it."""
        start, end = self.place(left)[1], self.place(right)[0]
        pattern = r"\s+".join(re.escape(word) for word in old.split())
        match = re.search(rf"(?<!\w){pattern}(?!\w)" if old.isalpha() else pattern, self.source[start:end].decode())
        if match:
            self.found.append(Span(start + match.start(), start + match.end(), new, kind))

    def visit(self, node: ast.AST) -> None:
        if _is_message(node):
            if isinstance(node, ast.Raise):
                self.replace(node, "pass", "dropped raise")
            return
        method = getattr(self, f"at_{type(node).__name__}", None)
        if method is not None:
            method(node)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            self.late.append((self.place(node.body[0])[0], self.place(node)[1]))
        for child in _changeable(node):
            self.visit(child)

    def at_Compare(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        for left, operator, right in zip(sides, node.ops, node.comparators):
            old, new, kind = _COMPARISONS[type(operator)]
            self.between(left, right, old, new, kind)

    def at_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in _ARITHMETIC and not self.is_text(node):
            self.between(node.left, node.right, *_ARITHMETIC[type(node.op)], "arithmetic")

    def is_text(self, node: ast.BinOp) -> bool:
        """Whether an operator joins texts, lists or paths, as far as can be seen."""
        sides = [node.left, node.right]
        if any(isinstance(side, _JOINED) or _is_string(side) for side in sides):
            return True
        if any(isinstance(side, ast.BinOp) and self.is_text(side) for side in sides):
            return True
        return isinstance(node.op, ast.Div) and bool(_PATHS.search(self.text(node.left).rstrip(")(")))

    def at_AugAssign(self, node: ast.AugAssign) -> None:
        texts = isinstance(node.value, _JOINED) or _is_string(node.value)
        if type(node.op) in _ARITHMETIC and not texts:
            old, new = _ARITHMETIC[type(node.op)]
            self.between(node.target, node.value, f"{old}=", f"{new}=", "arithmetic")
        self.replace(node, "pass", "dropped statement")

    def at_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:]):
            self.between(left, right, old, new, "boolean")

    def at_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self.replace(node, f"({self.text(node.operand)})", "removed not")
        elif isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
            self.replace(node, f"({self.text(node.operand)})", "removed minus")

    def at_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self.replace(node, str(not value), "constant")
        elif isinstance(value, int):
            text = self.text(node)
            self.replace(node, oct(value + 1) if text.startswith("0o") else str(value + 1), "constant")
        elif isinstance(value, float):
            self.replace(node, repr(value / 10) if value else "1.0", "constant")

    def negated(self, test: ast.expr) -> None:
        if not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)) and not isinstance(test, ast.Compare):
            self.replace(test, f"(not ({self.text(test)}))", "negated condition")

    def at_If(self, node: ast.If) -> None:
        self.negated(node.test)

    def at_While(self, node: ast.While) -> None:
        self.negated(node.test)

    def at_IfExp(self, node: ast.IfExp) -> None:
        self.negated(node.test)

    def at_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self.replace(test, "True", "dropped filter")

    def at_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, _EFFECTS) and "super()" not in self.text(node):
            self.replace(node, "pass", "dropped statement")

    def at_Assign(self, node: ast.Assign) -> None:
        if all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets):
            self.replace(node, "pass", "dropped statement")

    def at_Continue(self, node: ast.Continue) -> None:
        self.replace(node, "pass", "dropped statement")

    def at_Call(self, node: ast.Call) -> None:
        name = _name(node.func)
        if name in _FUNCTIONS and not (name in ("min", "max") and len(node.args) + len(node.keywords) == 0):
            end = self.place(node.func)[1]
            self.found.append(Span(end - len(name), end, _FUNCTIONS[name], "function"))
        if name == "range" and len(node.args) == 1:
            self.replace(node.args[0], f"({self.text(node.args[0])}) - 1", "range")
            self.replace(node.args[0], f"({self.text(node.args[0])}) + 1", "range")
        simple = (ast.Name, ast.Attribute, ast.Constant)
        if name not in _UNORDERED and name.islower() and len(node.args) >= 2:
            first, second = node.args[:2]
            # One constant and one name are hardly of one type.
            like = isinstance(first, ast.Constant) == isinstance(second, ast.Constant)
            if (
                like
                and isinstance(first, simple)
                and isinstance(second, simple)
                and self.text(first) != self.text(second)
            ):
                start, end = self.place(first)[0], self.place(second)[1]
                middle = self.source[self.place(first)[1] : self.place(second)[0]].decode()
                swapped = f"{self.text(second)}{middle}{self.text(first)}"
                self.found.append(Span(start, end, swapped, "swapped arguments"))

    def at_Slice(self, node: ast.Slice) -> None:
        for bound in (node.lower, node.upper):
            # Constants are changed as such.
            if bound is not None and not isinstance(bound, ast.Constant):
                self.replace(bound, f"({self.text(bound)}) + 1", "slice")

    def at_FunctionDef(self, node: ast.FunctionDef) -> None:
        optional = node.returns is not None and "None" in self.text(node.returns) and "|" in self.text(node.returns)
        for inner in ast.walk(node):
            if optional and isinstance(inner, ast.Return) and inner.value is not None and not _is_none(inner.value):
                self.replace(inner.value, "None", "returned value")

    def at_Return(self, node: ast.Return) -> None:
        if isinstance(node.value, (ast.Compare, ast.BoolOp)):
            self.replace(node.value, "True", "returned value")
            self.replace(node.value, "False", "returned value")


def _changeable(node: ast.AST) -> Iterator[ast.AST]:
    """The children of a node that may be changed."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "op", "ops", "ctx"):
            continue
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and name == "body":
            value = value[1:] if value and isinstance(value[0], ast.Expr) and _is_string(value[0].value) else value
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child


def _is_message(node: ast.AST) -> bool:
    """What people read, what only types see, and what is not code."""
    match node:
        case ast.Raise() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return True
        case ast.FunctionDef(name="__repr__" | "__str__"):
            return True
        case ast.Call(func=func):
            name = _name(func)
            return name in _SPOKEN or name in ("cast", "TypeVar") or name.endswith(("Error", "Warning"))
        case ast.keyword(arg=arg):
            return arg in _LOOKS
        case ast.If(test=test):
            return ast.unparse(test).startswith(("TYPE_CHECKING", "__name__", "sys.platform"))
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name in ("__all__", "__slots__", "__version__")
    return False


def _name(func: ast.expr) -> str:
    return func.id if isinstance(func, ast.Name) else func.attr if isinstance(func, ast.Attribute) else ""


def _is_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def spans(source: bytes) -> list[tuple[Span, bool]]:
    """The changes to a file's source, each with whether it is made when the file is imported."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return [
        (span, not any(start <= span.start < end for start, end in finder.late)) for span in dict.fromkeys(finder.found)
    ]


def is_change(source: bytes, changed: bytes) -> bool:
    """Whether the changed source can be parsed and means something else."""
    try:
        return ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False
