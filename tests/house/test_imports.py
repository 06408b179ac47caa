"""The import rules hold, and each of them would notice a breach."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
LINT_IMPORTS = (sys.executable, "-c", "from importlinter.cli import lint_imports_command as f; f()")


def lint_imports(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the `gateway` package below `folder`.

    In a process of its own: it reads the package that the working folder holds, which a process that has
    already imported `gateway` from elsewhere could not find.
    """
    return subprocess.run(
        [*LINT_IMPORTS, "--no-cache", "--no-logo", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_room_imports_only_what_it_may() -> None:
    lint = lint_imports(TOP)
    assert lint.returncode == 0, lint.stdout + lint.stderr


@pytest.fixture
def copy_of_the_tree(tmp_path: Path) -> Path:
    shutil.copy(TOP / "pyproject.toml", tmp_path)
    shutil.copytree(TOP / "gateway", tmp_path / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize(
    ("contract", "file", "breach"),
    [
        pytest.param("layers", "core/__init__.py", "import gateway.settings", id="an arrow that goes up"),
        pytest.param("layers", "auth/__init__.py", "import gateway.tracing", id="strangers that meet"),
        pytest.param("layers", "newroom.py", "", id="a room that has no place"),
        pytest.param("pure-core", "core/__init__.py", "import time", id="a clock in core"),
        pytest.param("pure-core", "errors.py", "from os import environ", id="the environment in errors"),
        pytest.param("flask", "pipeline/__init__.py", "from flask import request", id="flask behind the edge"),
        pytest.param("flask", "newroom.py", "import flask", id="flask in a room that no rule names"),
        pytest.param("litellm", "upstream/__init__.py", "import litellm", id="a second way to litellm"),
        pytest.param("litellm", "assembly/__init__.py", "from litellm.utils import x", id="a part of litellm"),
        pytest.param("gevent", "watcher.py", "from gevent import monkey", id="gevent anywhere"),
        pytest.param("braintrust", "upstream/litellm.py", "import braintrust", id="braintrust untraced"),
    ],
)
def test_a_breach_is_noticed(copy_of_the_tree: Path, contract: str, file: str, breach: str) -> None:
    with (copy_of_the_tree / "gateway" / file).open("a") as module:
        module.write(f"\n{breach}\n")
    lint = lint_imports(copy_of_the_tree, "--contract", contract)
    assert lint.returncode == 1, lint.stdout + lint.stderr
    assert "BROKEN" in lint.stdout or "undeclared" in lint.stdout, lint.stdout + lint.stderr
