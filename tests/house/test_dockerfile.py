"""What can be known of the container's image without an engine to build it."""

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.markers import Marker
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

TOP = Path(__file__).resolve().parents[2]
DOCKERFILE = TOP / "deploy" / "Dockerfile"


class Step(NamedTuple):
    """One instruction of the file, in the stage (counted from 0) that it stands in."""

    stage: int
    name: str
    value: str


def steps() -> list[Step]:
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    found: list[Step] = []
    stage = -1
    for line in filter(str.strip, lines):
        name, _, value = line.partition(" ")
        stage += name == "FROM"
        found.append(Step(stage, name, value.strip()))
    return found


def last(name: str) -> str:
    """Give what an instruction says in the stage that becomes the image."""
    final = steps()[-1].stage
    [value] = [step.value for step in steps() if (step.stage, step.name) == (final, name)]
    return value


def copied() -> list[str]:
    """Every path of the tree that is copied into a stage."""
    copies = [shlex.split(step.value) for step in steps() if step.name in {"COPY", "ADD"}]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]


def reaches_the_engine(path: str) -> bool:
    """Whether `.dockerignore` lets a path of the tree through: the last rule that fits decides."""
    kept = True
    for rule in filter(None, (TOP / ".dockerignore").read_text().splitlines()):
        if rule.startswith("#"):
            continue
        pattern = rule.removeprefix("!")
        parents = [path, *map(str, Path(path).parents)]
        if any(fnmatch(part, pattern) or fnmatch(f"/{part}", pattern[2:]) for part in parents if part != "."):
            kept = rule.startswith("!")
    return kept


def test_every_copied_path_is_in_the_tree_and_reaches_the_engine() -> None:
    assert copied()
    for source in copied():
        assert (TOP / source).exists(), source
        assert reaches_the_engine(source), source


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".env.example",
        ".git/config",
        ".gateway/tokens",
        ".venv/bin/python",
        "tests/conftest.py",
        "gateway/__pycache__/app.pyc",
    ],
)
def test_no_secret_and_no_ballast_reaches_the_engine(path: str) -> None:
    assert not reaches_the_engine(path)


def test_what_the_package_is_made_of_reaches_the_engine() -> None:
    assert reaches_the_engine("gateway/upstream/litellm.py")


def test_the_container_runs_the_command_of_the_readme() -> None:
    assert json.loads(last("CMD")) == ["gunicorn", "-b", "0.0.0.0:8000", "wsgi:app"]
    assert "gunicorn wsgi:app" in (TOP / "README.md").read_text()
    assert last("EXPOSE") == "8000"
    # Without this file beside wsgi.py, the bare command would start a server with other limits.
    assert "gunicorn.conf.py" in copied()


def test_the_container_does_not_run_as_root() -> None:
    user, _, group = last("USER").partition(":")
    # Numbers: Kubernetes' runAsNonRoot cannot judge a name.
    assert int(user) > 0
    assert int(group) > 0
    final = [step for step in steps() if step.stage == steps()[-1].stage]
    names = [step.name for step in final]
    assert "RUN" not in names[names.index("USER") :], "what is made after it would belong to the user"
    made = next(step.value for step in final if step.name == "RUN")
    assert f"--uid {user}" in made
    assert f"--gid {group}" in made


def test_the_data_folder_is_a_volume_of_that_user() -> None:
    folder = last("VOLUME")
    assert f"GATEWAY_DATA_DIR={folder}" in shlex.split(last("ENV"))
    made = next(step.value for step in steps() if step.name == "RUN" and "useradd" in step.value)
    assert re.search(rf"install --directory --owner=gateway \S+ --mode=0700 {folder}\b", made)


def test_every_base_image_is_pinned_to_a_minor_version_that_the_project_supports() -> None:
    bases = [step.value.split()[0] for step in steps() if step.name == "FROM"]
    assert len(set(bases)) == 1, "the environment is made for the interpreter that it is copied to"
    assert re.fullmatch(r"python:3\.\d+-slim", bases[0])


def test_the_health_check_asks_the_port_that_the_container_serves() -> None:
    options, _, command = last("HEALTHCHECK").partition(" CMD ")
    assert "--start-period=" in options
    program = json.loads(command)
    compile(program[2], "HEALTHCHECK", "exec")
    assert program[:2] == ["python", "-c"]
    assert "http://127.0.0.1:8000/health/readiness" in program[2]


def test_the_image_is_made_of_locked_files_only() -> None:
    syncs = [line for step in steps() if step.name == "RUN" for line in re.findall(r"uv sync.*", step.value)]
    assert len(syncs) == 2
    for sync in syncs:
        assert {"--frozen", "--no-dev"} <= set(sync.split())
    assert "--no-editable" in syncs[-1], "the tree that it was made from is not in the image"


def installed(environment: dict[str, str]) -> list[dict[str, Any]]:
    """Walk the lock as `uv sync --no-dev` does on a machine that answers `environment` to the markers."""
    packages = tomllib.loads((TOP / "uv.lock").read_text())["package"]
    [project] = [package for package in packages if package["source"] == {"editable": "."}]
    found: dict[str, dict[str, Any]] = {}
    wanted = list(project["dependencies"])
    while wanted:
        want = wanted.pop()
        if "marker" in want and not Marker(want["marker"]).evaluate(environment):
            continue
        name = want["name"]
        # A name is locked at two versions where the interpreters need different ones.
        locked = [p for p in packages if p["name"] == name]
        [package] = [p for p in locked if want.get("version", p["version"]) == p["version"]]
        parts = {"": package.get("dependencies", []), **package.get("optional-dependencies", {})}
        for extra in ["", *want.get("extra", [])]:
            if f"{name}[{extra}]" not in found:
                found[f"{name}[{extra}]"] = package
                wanted += parts[extra]
    return list(found.values())


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_package_of_the_image_has_a_wheel_for_it(machine: str) -> None:
    # The slim image has no compiler.
    base = re.search(r"python:3\.(\d+)", DOCKERFILE.read_text())
    assert base
    minor = int(base[1])
    platforms = [f"manylinux_2_{glibc}_{machine}" for glibc in range(17, 37)] + [f"manylinux2014_{machine}"]
    fits = {
        *cpython_tags((3, minor), platforms=platforms),
        *compatible_tags((3, minor), f"cp3{minor}", platforms=platforms),
    }
    packages = installed(
        {
            "python_version": f"3.{minor}",
            "python_full_version": f"3.{minor}.0",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "platform_machine": machine,
            "platform_system": "Linux",
            "sys_platform": "linux",
            "os_name": "posix",
        }
    )
    assert {"flask", "gevent", "litellm"} <= {package["name"] for package in packages}
    lacking = [
        package["name"]
        for package in packages
        if not any(
            parse_wheel_filename(wheel["url"].rsplit("/", 1)[1])[3] & fits for wheel in package.get("wheels", [])
        )
    ]
    assert lacking == []
