"""Rules of the house that no linter checks: what the tree, the lock and the environment may hold."""

import ast
import re
import subprocess
import sysconfig
import tomllib
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

TOP = Path(__file__).resolve().parents[2]
GATEWAY = TOP / "gateway"

# Where a broad `except` may stand, and why. A folder ends with a slash.
MAY_CATCH_ALL = {
    "pipeline/__init__.py": "settles whatever came, and raises it again",
    "pipeline/settlement.py": "one thing that fails keeps no other from being settled",
    "attempts.py": "a fault of ours while an answer is read becomes the attempt's, and is logged",
    "cache/": "a caller has its answer, whatever becomes of the copy that is kept of it",
    "web.py": "each server raises classes of its own where a body breaks off",
    "tracing/": "an observer that fails must not fail the call",
    "ledger/": "nor may its books, which then lack that call; it is logged",
    "metrics.py": "neither must this one; the first failure of each kind is logged",
    "api/": "the edge's last resort: a fault of ours becomes a 500 in the caller's dialect",
    "app.py": "the same for what no blueprint caught",
    "upstream/litellm.py": "litellm raises any class, and it is translated here",
    "upstream/answer.py": "so do its streams",
    "offload.py": "a native thread may raise nothing: what came is raised where the work was asked for",
    "storage/turns.py": "whoever does the work raises for all for whom it was done",
    "watcher.py": "were its thread to end, no call would ever be stopped again",
    "limits/leases.py": "were its thread to end, no lease would ever be renewed again",
    "routes/follower.py": "were its thread to end, no change of the file would ever be seen again",
    "cli/doctor.py": "a check that fails is what the operator wants to be told; the others go on",
    "upstream/door.py": "any failure of the transport becomes the call's fault, and is raised as httpx's own",
    "worker.py": "gunicorn's worker: what an app raises ends its request, not the worker",
}

# A `.pth` file runs code at every start of the interpreter: the stealer in litellm 1.82.8 came as one. So
# each must be known, and be installed by the package that it is known to belong to.
PTH_ALLOWED = {
    # uv's editable install of this project: one line, the folder of the tree.
    "_editable_impl_llm_gateway.pth": "llm-gateway",
    # coverage starts in child processes, only where COVERAGE_PROCESS_START or _CONFIG is set.
    "a1_coverage.pth": "coverage",
    # setuptools puts its own distutils in place of the one that Python dropped.
    "distutils-precedence.pth": "setuptools",
    # Written by the tool virtualenv itself (no package of the environment): patches distutils' configuration.
    "_virtualenv.pth": None,
}


def project() -> dict[str, Any]:
    return tomllib.loads((TOP / "pyproject.toml").read_text())


def lock() -> dict[str, Any]:
    return tomllib.loads((TOP / "uv.lock").read_text())


def modules() -> list[Path]:
    return sorted(GATEWAY.rglob("*.py"))


def tree() -> list[Path]:
    """Every file that is in the repository, or would be after `git add`."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TOP,
        capture_output=True,
        check=True,
    )
    files = [TOP / name for name in listing.stdout.decode().split("\0") if name]
    return [file for file in files if file.is_file()]


def broad_catches(source: str) -> Iterator[int]:
    """Give the line of each place that catches every Exception or more."""

    def is_broad(expression: ast.expr | None) -> bool:
        match expression:
            case None:
                return True
            case ast.Tuple(elts=elements):
                return any(map(is_broad, elements))
            case ast.Name(id=name) | ast.Attribute(attr=name):
                return name in {"Exception", "BaseException"}
        return False

    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ExceptHandler(type=caught) if is_broad(caught):
                yield node.lineno
            case ast.Call(func=ast.Name(id="suppress") | ast.Attribute(attr="suppress"), args=caught):
                if any(map(is_broad, caught)):
                    yield node.lineno


def may_catch_all(name: str) -> bool:
    return any(name.startswith(place) if place.endswith("/") else name == place for place in MAY_CATCH_ALL)


def test_nothing_is_left_for_later_in_the_package() -> None:
    later = re.compile(r"\b(?:TODO|FIXME|XXX|NotImplementedError)\b")
    found = [
        f"{module.relative_to(TOP)}:{number}: {line.strip()}"
        for module in modules()
        for number, line in enumerate(module.read_text().splitlines(), 1)
        if later.search(line)
    ]
    assert found == []


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    machine_path = re.compile(r"(?<![\w.~-])(?:/(?:root|work)/|/(?:home|Users)/\w|[A-Z]:\\+Users\b)")
    found = []
    for file in tree():
        try:
            lines = file.read_text().splitlines()
        except UnicodeDecodeError:
            continue  # no text
        name = file.relative_to(TOP)
        found += [f"{name}:{n}: {line}" for n, line in enumerate(lines, 1) if machine_path.search(line)]
    assert found == []


def test_only_few_places_catch_every_exception() -> None:
    found = [
        f"{module.relative_to(TOP)}:{line}"
        for module in modules()
        if not may_catch_all(module.relative_to(GATEWAY).as_posix())
        for line in broad_catches(module.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "try: f()\nexcept: pass",
        "try: f()\nexcept Exception: pass",
        "try: f()\nexcept (OSError, BaseException) as error: pass",
        "try: f()\nexcept builtins.Exception: pass",
        "try: f()\nexcept* Exception: pass",
        "with contextlib.suppress(Exception): f()",
    ],
)
def test_a_broad_catch_is_noticed_in_every_form(source: str) -> None:
    assert len(list(broad_catches(source))) == 1


def test_the_places_that_may_catch_all_exist() -> None:
    assert [place for place in MAY_CATCH_ALL if not (GATEWAY / place).exists()] == []


def test_the_lock_was_made_under_the_date_that_the_project_names() -> None:
    date = project()["tool"]["uv"]["exclude-newer"]
    assert datetime.fromisoformat(date).tzinfo is not None, "a moment, not a span like '1 week'"
    assert lock()["options"] == {"exclude-newer": date}, "no package has an exception of its own either"


def test_every_locked_file_is_older_than_that_date_and_has_a_hash() -> None:
    limit = datetime.fromisoformat(project()["tool"]["uv"]["exclude-newer"])
    seen = 0
    for package in lock()["package"]:
        if package["source"] == {"editable": "."}:
            assert package["name"] == "llm-gateway"
            continue
        files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
        assert "registry" in package["source"], package["name"]
        assert files, package["name"]
        for file in files:
            assert re.fullmatch(r"sha256:[0-9a-f]{64}", file["hash"]), file["url"]
            assert datetime.fromisoformat(file["upload-time"]) < limit, file["url"]
            seen += 1
    assert seen > 0


def test_the_lock_holds_no_litellm_that_is_known_to_be_bad() -> None:
    versions = [Version(package["version"]) for package in lock()["package"] if package["name"] == "litellm"]
    assert len(versions) == 1
    # These two stole credentials; what is older has known holes.
    assert versions[0] not in {Version("1.82.7"), Version("1.82.8")}
    assert versions[0] >= Version("1.84")


def test_no_unknown_file_runs_code_when_the_interpreter_starts() -> None:
    owners = {
        Path(str(file.locate())).name: distribution.name
        for distribution in distributions()
        for file in distribution.files or []
        if file.suffix == ".pth"
    }
    places = {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
    found = {file.name: owners.get(file.name) for place in places for file in place.glob("*.pth")}
    assert {name: owner for name, owner in found.items() if PTH_ALLOWED.get(name, "?") != owner} == {}


def test_the_editable_install_only_names_a_folder() -> None:
    places = {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
    for file in [file for place in places for file in place.glob("_editable_impl_*.pth")]:
        assert Path(file.read_text().strip()) == TOP
