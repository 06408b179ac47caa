"""Each block of code in the guides is run by a test, or it is said here why it cannot be.

Who writes one more has the count here fail, and says who runs it.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]

_DRAWN = "it is drawn, not run"
_NO_NODE = "there is no Node here; docs/clients.md says which releases it was run with"
_NO_ACCOUNT = "it needs an account at Modal"
_NO_CLIENT = "its client is not installed here; docs/clients.md says which releases it was run with"

#: By paper and language: how many blocks there are, and the test that runs them, or why none does.
SNIPPETS: dict[str, dict[str, tuple[int, str]]] = {
    "README.md": {
        "sh": (6, "tests/served/test_readme.py"),
        "python": (3, "tests/served/test_readme.py"),
        "ini": (1, "tests/served/test_readme.py"),
    },
    "CONTRIBUTING.md": {"sh": (1, ".ci/run")},
    "docs/caching.md": {"sh": (2, "tests/served/test_caching.py")},
    "docs/clients.md": {
        "sh": (3, "tests/served/test_clients_guide.py"),
        # those of the SDKs; tests/served/test_frameworks.py asks by frameworks, and some of them are not installed here
        "python": (10, "tests/served/test_clients_guide.py"),
        "js": (3, _NO_NODE),
        "toml": (1, _NO_CLIENT),
        "yaml": (2, _NO_CLIENT),
        "json": (1, _NO_CLIENT),
        "ini": (1, _NO_CLIENT),
    },
    "docs/dashboard.md": {"ini": (1, "an account's; tests/served/test_sign_in.py signs in by the same ones")},
    "docs/deploy.md": {
        "sh": (3, "it installs and starts containers; tests/house/test_deploy.py reads what it names"),
        "ini": (1, "tests/house/test_deploy.py"),
        "nginx": (1, "nginx is not installed everywhere"),
    },
    "docs/errors.md": {"json": (2, "tests/served/test_guides.py")},
    "docs/keys.md": {
        "ini": (1, "tests/served/test_keys_guide.py"),
        "sh": (8, "tests/served/test_keys_guide.py"),
        "": (2, _DRAWN),
    },
    "docs/limits.md": {
        "sh": (2, "tests/served/test_limits_guide.py"),
        "json": (1, "tests/served/test_limits_guide.py"),
        "python": (1, "tests/served/test_limits_guide.py"),
    },
    "docs/metrics.md": {"yaml": (1, "tests/house/test_deploy.py")},
    "docs/modal.md": {"sh": (1, _NO_ACCOUNT)},
    "docs/opentelemetry.md": {"sh": (1, "its words start every gateway of the tests, one with the variable")},
    "docs/operations.md": {
        "text": (2, "what the commands print, which tests/cli reads"),
        "sh": (2, "tests/served/test_guides.py"),
    },
    "docs/performance.md": {"sh": (5, "minutes each; tests/bench tries what they are made of")},
    "docs/prices.md": {"json": (1, "tests/served/test_guides.py")},
    "docs/relay.md": {"ini": (1, "tests/served/test_guides.py")},
    "docs/routes.md": {"yaml": (2, "tests/routes/test_routes.py")},
    "docs/routing.md": {"sh": (1, "tests/served/test_guides.py")},
    "docs/tracing.md": {"": (3, _DRAWN), "python": (1, "tests/served/test_readme.py"), "js": (1, _NO_NODE)},
    "docs/usage.md": {"sh": (1, "tests/served/test_guides.py")},
}


def papers() -> list[str]:
    found = [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted((TOP / "docs").glob("*.md"))]
    return [str(paper.relative_to(TOP)) for paper in found]


@pytest.mark.parametrize("paper", papers())
def test_every_block_of_a_guide_is_accounted_for(paper: str) -> None:
    text = (TOP / paper).read_text(encoding="utf-8")
    counted = Counter(re.findall(r"^```(\w*)\n.*?^```$", text, re.MULTILINE | re.DOTALL))
    assert {language: count for language, (count, _) in SNIPPETS.get(paper, {}).items()} == counted


def test_the_tests_that_are_named_know_the_guide() -> None:
    for paper, languages in SNIPPETS.items():
        for _, runs in languages.values():
            if runs.startswith("tests/"):
                assert paper in (TOP / runs).read_text(encoding="utf-8"), (paper, runs)
