"""Imports point down: entry points > services > transport, chain, allocator > the pure core."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "tensorage"

#: What a dataset's owner signs and when it holds: rules without I/O, unlike the rest of its package.
DATASET_CORE = (
    "anchor",
    "chunks",
    "entry",
    "errors",
    "legacy",
    "log",
    "manifest",
    "memory",
    "names",
    "strict",
    "wire",
)

#: From the bottom up; a module may import from its own layer and those before it.
LAYERS = [
    {
        "encoding",
        "errors",
        "merkle",
        "argon2d",
        "seal",
        "hashchain",
        "commitment",
        "challenge",
        "receipts",
        "shard",
        "ticket",
        "displaced",
        "keyauth",
        "coding",
        "yuma",
    },
    {f"dataset.{module}" for module in DATASET_CORE},
    {"config", "direct", "lazy", "simulate", "sqlite"},
    {"chain"},
    {"transport", "allocator", "registration"},
    {"service"},
    {"validator", "miner", "gateway", "client"},
    {"dataset"},
    {"allocate", "conformance"},
    {"demo"},
    {"cli", "__main__"},
]
CORE = LAYERS[0] | LAYERS[1]
IMPURE = {
    "asyncio",
    "anyio",
    "httpx",
    "sqlite3",
    "aiosqlite",
    "bittensor",
    "time",
    "random",
    "secrets",
    "socket",
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    """The module or subpackage of tensorage that a file belongs to."""
    return named([piece.removesuffix(".py") for piece in path.relative_to(PACKAGE).parts])


def named(pieces: list[str]) -> str:
    """The part that a dotted name below tensorage belongs to."""
    if pieces[0] == "dataset" and len(pieces) > 1 and pieces[1] in DATASET_CORE:
        return f"dataset.{pieces[1]}"
    return pieces[0]


def imported(path: Path) -> set[str]:
    """The absolute dotted names that a file imports, wherever in it the import stands."""
    package = ["tensorage", *path.relative_to(PACKAGE).parts[:-1]]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def layer(name: str) -> int:
    for number, parts in enumerate(LAYERS):
        if name in parts:
            return number
    raise AssertionError(f"tensorage.{name} is in no layer; give it one in this test")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_nothing_from_above(path):
    if part(path) == "__init__":
        return
    for name in imported(path):
        parts = name.split(".")
        if (
            parts[0] == "tensorage"
            and len(parts) > 1
            and (PACKAGE / parts[1]).with_suffix(".py").exists() | (PACKAGE / parts[1]).is_dir()
        ):
            assert layer(named(parts[1:])) <= layer(part(path)), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", [p for p in MODULES if part(p) in CORE], ids=lambda path: path.name)
def test_the_core_is_pure(path):
    assert not {name.split(".")[0] for name in imported(path)} & IMPURE


@pytest.mark.parametrize(
    "path", [p for p in MODULES if part(p) != "chain"], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_only_the_chain_package_imports_the_sdk(path):
    assert "bittensor" not in {name.split(".")[0] for name in imported(path)}


def test_nothing_unpickles_evaluates_or_runs_a_shell():
    for path in [
        *MODULES,
        *(PACKAGE.parent / "neurons").glob("*.py"),
        *(PACKAGE.parent / "scripts").glob("*.py"),
    ]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert "pickle" not in {alias.name for alias in node.names}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, path
            if isinstance(node, ast.keyword) and node.arg == "shell":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, path


def test_every_module_says_what_it_is_for():
    for path in MODULES:
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_the_oldest_supported_python_is_the_one_that_is_checked():
    text = (PACKAGE.parent / "pyproject.toml").read_text()
    assert 'requires-python = ">=3.10"' in text and 'target-version = "py310"' in text
    assert sys.version_info >= (3, 10)
