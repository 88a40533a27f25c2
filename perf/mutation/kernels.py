"""Realistic single changes to the C kernels, token by token."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from mutation.changes import Span

_TOKEN = re.compile(
    rb"(?P<skip>/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|^[ \t]*\#[ \t]*(?:include|if|else|elif|endif|"
    rb"pragma|error|undef)[^\n]*|__attribute__\(\(.*?\)\)|_Static_assert\(.*?;)"
    rb"|(?P<define>^[ \t]*\#[ \t]*define[ \t]+\w+(?:\([^)]*\))?)"
    rb"|(?P<number>(?:0x[0-9a-fA-F]+|\d+\.\d*(?:[eE][-+]?\d+)?|\.\d+|\d+)[uUlLfF]*)"
    rb"|(?P<word>[A-Za-z_]\w*)"
    rb"|(?P<operator>->|\+\+|--|<<=|>>=|<=|>=|==|!=|&&|\|\||\+=|-=|\*=|/=|<<|>>|[-+*/%<>=!&|^~?:,;.(){}\[\]])"
    rb"|(?P<end>\\\n)",
    re.DOTALL | re.MULTILINE,
)
_OPERATORS = {
    b"<": ("<=", "boundary"), b"<=": ("<", "boundary"), b">": (">=", "boundary"), b">=": (">", "boundary"),
    b"==": ("!=", "equality"), b"!=": ("==", "equality"), b"&&": ("||", "boolean"), b"||": ("&&", "boolean"),
    b"+=": ("-=", "arithmetic"), b"-=": ("+=", "arithmetic"), b"+": ("-", "arithmetic"), b"-": ("+", "arithmetic"),
    b"*": ("/", "arithmetic"), b"/": ("*", "arithmetic"), b"%": ("/", "arithmetic"), b"<<": (">>", "arithmetic"),
    b">>": ("<<", "arithmetic"),
}  # fmt: skip
_UNARY = {b"+", b"-", b"*"}
# Words before which ``*`` and ``-`` have no left side.
_TYPES = re.compile(rb"(?:u?int\d*_t|int|char|float|double|void|const|return|size_t|ELEMENT|floats|masks)$")
_WORDS = {b"min": b"max", b"max": b"min", b"fminf": b"fmaxf", b"fmaxf": b"fminf"}


def spans(source: bytes) -> list[Span]:
    """The changes to a C file or header; some may not compile."""
    found: list[Span] = []
    before = b""
    for match in _TOKEN.finditer(source):
        token, start, end = match.group(), match.start(), match.end()
        if match["skip"] or match["define"] or match["end"]:
            before = before if match["end"] or match["skip"] else b""
            continue
        if match["number"]:
            number = re.match(rb"[\d.xXa-fA-F]+?(?=[uUlLfF]*$)", token)
            changed = None if number is None else _next(number.group())
            if changed is not None and number is not None:
                found.append(Span(start, end, changed + token[number.end() :].decode(), "constant"))
        elif match["operator"] and token in _OPERATORS:
            binary = bool(re.match(rb"[\w)\]]", before[-1:])) and not _TYPES.match(before)
            if binary or token not in _UNARY:
                found.append(Span(start, end, *_OPERATORS[token]))
        elif token in _WORDS:
            found.append(Span(start, end, _WORDS[token].decode(), "function"))
        before = token
    return found


def _next(number: bytes) -> str | None:
    text = number.decode()
    if text.startswith("0x"):
        return hex(int(text, 16) + 1)
    if text.isdigit():
        return str(int(text) + 1)
    try:
        value = float(text)
    except ValueError:
        return None
    return repr(value / 10) if value else "1.0"


def compiles(source: Path) -> bool:
    """Whether a C file, with the headers beside it, compiles; warnings do not count."""
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        return False
    command = [compiler, "-std=gnu11", "-march=native", "-fsyntax-only", "-w", str(source)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def sources(folder: Path) -> list[Path]:
    """C files and headers below a folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix in (".c", ".h"))
