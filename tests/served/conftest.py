"""What the tests of the served gateway share: one start of it, its providers, its Braintrust."""

import itertools
import re
import resource
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.fakes.braintrust_server import FakeBraintrust
from tests.fakes.provider import FakeProvider
from tests.served.browser import browser
from tests.served.caller import Caller
from tests.served.process import BRAINTRUST_KEY, ORIGIN, OTHER_TOKEN, PROVIDER_KEY, THREADS_CONF, TOKEN, Served

_numbers = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def _many_files() -> None:
    """Hundreds of streams at once mean as many sockets here, and in what is started from here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


@pytest.fixture(scope="session")
def provider() -> Iterator[FakeProvider]:
    """The provider behind `openai/…` and `anthropic/…`."""
    with FakeProvider() as fake:
        yield fake


@pytest.fixture(scope="session")
def trap() -> Iterator[FakeProvider]:
    """A server that nothing may ever call."""
    with FakeProvider() as fake:
        yield fake


@pytest.fixture(scope="session")
def braintrust() -> Iterator[FakeBraintrust]:
    with FakeBraintrust(BRAINTRUST_KEY) as fake:
        yield fake


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module", autouse=True)
def _forgetful(provider: FakeProvider, braintrust: FakeBraintrust) -> None:
    """Each file begins with empty fakes: what thousands of tests before it sent is only searched in vain."""
    provider.forget()
    braintrust.forget()


@pytest.fixture(scope="session")
def settings(provider: FakeProvider) -> dict[str, str]:
    """What every start has set: two who may call, one worker, two providers; traces go to the log."""
    return {
        "GATEWAY_AUTH_TOKEN": f"{TOKEN},{OTHER_TOKEN}",
        "GATEWAY_CORS_ORIGINS": ORIGIN,
        "WEB_CONCURRENCY": "1",
        "OPENAI_API_KEY": PROVIDER_KEY,
        "OPENAI_BASE_URL": provider.base_url,
        "ANTHROPIC_API_KEY": PROVIDER_KEY,
        "ANTHROPIC_BASE_URL": provider.anthropic_url,
    }


@pytest.fixture(scope="session")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str], braintrust: FakeBraintrust
) -> Iterator[Served]:
    """The gateway by the bare command, traced to Braintrust."""
    with Served(tmp_path_factory.mktemp("gateway"), settings | braintrust.environment()) as served:
        yield served


@pytest.fixture(scope="session")
def impatient(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str], provider: FakeProvider
) -> Iterator[Served]:
    """The gateway with short times, a small body limit, untidy settings, and no key for Anthropic."""
    own = {
        "GATEWAY_TIMEOUT_S": "2",
        "GATEWAY_KEEPALIVE_S": "0.3",
        "GATEWAY_MAX_BODY_MB": "2",
        "GATEWAY_AUTH_TOKEN": f"{TOKEN},, second-token , ",
        "OPENAI_BASE_URL": f"{provider.base_url}/",
        "ANTHROPIC_API_KEY": "",
    }
    with Served(tmp_path_factory.mktemp("impatient"), settings | own) as served:
        yield served


@pytest.fixture(scope="session")
def threaded(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> Iterator[Served]:
    """The gateway in gunicorn's worker of plain threads, without gevent."""
    folder = tmp_path_factory.mktemp("threaded")
    conf = folder / "threads.conf.py"
    conf.write_text(THREADS_CONF)
    with Served(folder / "home", settings, ["-c", str(conf)]) as served:
        assert "Using worker: gthread" in served.log
        yield served


@pytest.fixture(scope="session")
def caller(gateway: Served) -> Iterator[Caller]:
    with Caller(gateway.url, TOKEN) as one:
        yield one


@pytest.fixture(scope="session")
def hurried(impatient: Served) -> Iterator[Caller]:
    """A caller of the impatient gateway."""
    with Caller(impatient.url, TOKEN) as one:
        yield one


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    """A model's name at the provider that no other test uses."""
    return f"{re.sub('[^a-z0-9]+', '-', request.node.name.lower())[:60].strip('-')}-{next(_numbers)}"
