"""The papers say what the code does: every endpoint, error code and file that they name is there."""

import inspect
import re
from pathlib import Path

import pytest

from gateway import errors
from gateway.core.endpoints import ENDPOINTS, Endpoint
from gateway.errors import GatewayError

TOP = Path(__file__).resolve().parents[2]
README = (TOP / "README.md").read_text(encoding="utf-8")


def codes() -> set[str]:
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, GatewayError)]
    return {kind.code for kind in classes if kind.code is not None}


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_the_readme_names_every_endpoint(endpoint: Endpoint) -> None:
    assert f"`{endpoint.method} {endpoint.path}`" in README


@pytest.mark.parametrize("code", sorted(codes()))
def test_every_error_code_is_explained(code: str) -> None:
    assert f"`{code}`" in (TOP / "docs/errors.md").read_text(encoding="utf-8")


def test_the_tree_of_errors_names_every_class() -> None:
    names = {name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, GatewayError)}
    assert names == {name for name in names if re.search(rf"\b{name}\b", errors.__doc__ or "")}


PAPERS = [
    *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/config/README.md"),
    *(str(paper.relative_to(TOP)) for paper in sorted((TOP / "docs").glob("*.md"))),
]


def anchors(paper: Path) -> set[str]:
    """What a `#` can lead to in a paper, as GitHub names its headings."""
    text = re.sub(r"^```.*?^```$", "", paper.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("paper", PAPERS)
def test_every_link_between_papers_leads_somewhere(paper: str) -> None:
    text = (TOP / paper).read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        found = (TOP / paper).parent / target if target else TOP / paper
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


def test_the_readme_leads_to_every_guide() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)", README))
    assert linked == {paper for paper in PAPERS if paper.startswith("docs/")}


@pytest.mark.parametrize(("paper", "lines"), [("ARCHITECTURE.md", 150), ("CONTRIBUTING.md", 60), ("README.md", 260)])
def test_papers_stay_short_enough_to_be_read(paper: str, lines: int) -> None:
    assert len((TOP / paper).read_text(encoding="utf-8").splitlines()) <= lines


def test_every_file_that_the_architecture_names_is_there() -> None:
    text = (TOP / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:\w+/)*\w+\.py)`", text):
        assert any((TOP / folder / name).exists() for folder in ("", "gateway")), name
