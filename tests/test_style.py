"""The style budget: small files, short functions, flat code, every public name documented."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import skgnnx

PACKAGE = Path(__file__).parent.parent / "skgnnx"
FILES = sorted(PACKAGE.rglob("*.py"))
USUAL_FILE, LONGEST_FILE, LONGEST_FUNCTION, DEEPEST, SHORTEST_DOCSTRING = 250, 320, 40, 3, 60
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match, ast.AsyncFor, ast.AsyncWith)
NOT_CODE = {getattr(tokenize, name) for name in ("COMMENT", "NL", "NEWLINE", "INDENT", "DEDENT", "ENDMARKER")}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(source: str, tree: ast.Module) -> set[int]:
    """Lines that are neither blank, nor a comment, nor a docstring."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS)) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def nesting(node: ast.AST, depth: int = 0) -> int:
    """How many blocks lie inside one another; `elif` goes no deeper."""
    deepest = depth
    for child in ast.iter_child_nodes(node):
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deeper = isinstance(child, BLOCKS) and not is_elif
        deepest = max(deepest, nesting(child, depth + deeper))
    return deepest


def function_complaints(node: ast.AST, code: set[int]) -> list[str]:
    found = []
    length = len(code & set(range(node.lineno, node.end_lineno + 1)))
    if length > LONGEST_FUNCTION:
        found.append(f"line {node.lineno}: {node.name} has {length} code lines")
    if nesting(node) > DEEPEST:
        found.append(f"line {node.lineno}: {node.name} nests {nesting(node)} deep")
    return found


def complaints(source: str) -> list[str]:
    tree = ast.parse(source)
    code = code_lines(source, tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            found += function_complaints(node, code)
        if isinstance(node, ast.Assert):
            found.append(f"line {node.lineno}: assert")
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"line {node.lineno}: bare except")
    for node in tree.body:
        is_public = isinstance(node, (ast.ClassDef, *FUNCTIONS)) and not node.name.startswith("_")
        if is_public and len(ast.get_docstring(node) or "") < SHORTEST_DOCSTRING:
            found.append(f"line {node.lineno}: {node.name} is public and its docstring says next to nothing")
    for match in re.finditer(r"\b(TODO|FIXME|XXX|HACK)\b", source):
        found.append(f"line {source.count(chr(10), 0, match.start()) + 1}: {match.group()}")
    if source.count("\n") > LONGEST_FILE:
        found.append(f"{source.count(chr(10))} lines")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_file_keeps_to_the_budget(path):
    found = complaints(path.read_text())
    if re.search(r"utils|helpers|misc", path.stem):
        found.append("the name says nothing")
    if found:
        pytest.fail("\n".join(found))


def test_files_are_usually_small():
    long = [path.name for path in FILES if path.read_text().count("\n") > USUAL_FILE]
    assert len(long) <= len(FILES) / 10, long


def test_public_names_exist_and_are_documented():
    for name in skgnnx.__all__:
        value = getattr(skgnnx, name)
        if not name.startswith("__"):
            assert len(value.__doc__ or "") >= SHORTEST_DOCSTRING, name


def test_version_is_the_packaged_one():
    text = (PACKAGE.parent / "pyproject.toml").read_text()
    assert f'version = "{skgnnx.__version__}"' in text


DOCSTRING = '"""' + "x" * SHORTEST_DOCSTRING + '"""'


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("def f():\n" + "    a = 1\n" * 40, "41"),
        (
            "def _f():\n if a:\n  for b in c:\n   while d:\n    if e:\n     g()",
            "nests 4",
        ),
        ("def _f(a):\n    assert a", "assert"),
        ("def f(a):\n    return a", "next to nothing"),
        ("try:\n    a()\nexcept:\n    pass", "bare"),
        ("# TO" + "DO later", "TODO"),
        ("\n" * 321, "321 lines"),
    ],
)
def test_budget_can_be_overrun(source, complaint):
    assert any(complaint in line for line in complaints(source))


def test_elif_docstrings_and_comments_cost_nothing():
    lines = ["def f():", "    " + DOCSTRING, "    if a:", "        b()"]
    lines += [f"    elif a{i}:\n        # why\n        b()\n" for i in range(18)]
    assert complaints("\n".join(lines)) == []
