"""The lines of `docs/clients.md` whose clients are at hand here, as they stand there. Only the port is another."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.fakes.provider import FakeProvider, answer
from tests.served.process import TOP, Served

GUIDE = (TOP / "docs/clients.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL))
KEY = "sk-choose-a-long-random-one"
HERE = {
    "curl": ["sh", "-c"],
    "openai, Python": [sys.executable, "-c"],
    "anthropic, Python": [sys.executable, "-c"],
    "LiteLLM": [sys.executable, "-c"],
}
#: Blocks beyond the first of a section that run likewise, by how they begin.
MORE = {"openai, Python": "from openai import AzureOpenAI\n"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("clients"), settings | {"GATEWAY_AUTH_TOKEN": KEY}) as one:
        yield one


@pytest.mark.parametrize("client", HERE)
def test_a_client_is_pointed_at_the_gateway_as_the_guide_says(
    client: str, served: Served, provider: FakeProvider
) -> None:
    for named in ("gpt-4o-mini", "claude-sonnet-4-5"):
        provider.script(named, answer("well met"))
    first, *others = re.findall(r"^```\w+\n(.*?)^```$", SECTIONS[client], re.MULTILINE | re.DOTALL)
    beginning = MORE.get(client)
    for block in [first, *(other for other in others if beginning is not None and other.startswith(beginning))]:
        said = answered(client, block, served)
        assert "well met" in said
    assert beginning is None or any(other.startswith(beginning) for other in others)


def answered(client: str, block: str, served: Served) -> str:
    """What the lines print when they are run."""
    done = subprocess.run(
        [*HERE[client], block.replace("127.0.0.1:8000", f"127.0.0.1:{served.port}")],
        cwd=served.top,
        # LiteLLM would fetch its map of models from the net
        env={"PATH": os.environ["PATH"], "HOME": str(served.top), "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    return "".join(re.findall(r'"text":"([^"]*)"', done.stdout)) if client == "curl" else done.stdout


def test_each_client_has_its_lines_and_the_version_that_was_run() -> None:
    listed = re.findall(r"^\| \[(.+?)\]\(#(.+?)\) \| (.+?) \|$", SECTIONS["What was run"], re.MULTILINE)
    others = ("What an answer cost", "What was run")
    assert [name for name, _, _ in listed] == [name for name in SECTIONS if name not in others]
    for name, anchor, version in listed:
        assert anchor == re.sub(r"[^\w-]", "", name.lower().replace(" ", "-"))
        assert "```" in SECTIONS[name]
        assert re.search(r"\d+\.\d+", version) or version == "not run by us"
