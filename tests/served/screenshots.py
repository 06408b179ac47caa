"""Takes the pictures of `docs/dashboard.md`: `uv run python -m tests.served.screenshots docs/images`.

A gateway is started on a ledger of made-up calls, of a few models, keys and kinds of errors.
"""

from __future__ import annotations

import io
import json
import math
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Page

from gateway.storage.database import Database
from gateway.storage.migrate import upgrade
from gateway.storage.usage import UsageRows
from tests.served.browser import browser
from tests.served.process import TOKEN, Served

ADMIN_TOKEN = "admin-token-of-the-pictures"
MOST_BYTES = 150_000
_MODELS = (
    ("gpt-4o-mini", "openai", 0.45),
    ("claude-sonnet-4-5", "anthropic", 0.3),
    ("llama-3.3-70b-versatile", "groq", 0.25),
)
#: One of the deployments is at a port where nobody listens. It has a price: what has none is refused under a budget.
_ROUTES = """\
model_list:
  - {model_name: fast, litellm_params: {model: openai/gpt-4o-mini, api_key: k}}
  - {model_name: careful, litellm_params: {model: anthropic/claude-sonnet-4-5, api_key: k}}
  - model_name: spare
    litellm_params:
      model: groq/llama-3.3-70b-versatile
      api_base: "http://127.0.0.1:9/v1"
      api_key: k
      input_cost_per_token: 0.00000059
      output_cost_per_token: 0.00000079
router_settings: {num_retries: 0, allowed_fails: 1, cooldown_time: 600}
"""
_CODES = ("rate_limit_exceeded", "upstream_timeout", "upstream_unavailable")
_CALLERS = ("key_web0000000000", "key_batch00000000", "tok_1f2e3d4c")


def made_up(count: int, days: float, now_s: float) -> list[dict[str, Any]]:
    """Rows of the ledger, busier by day than by night; the same at each time."""
    dice = random.Random(11)
    found: list[dict[str, Any]] = []
    while len(found) < count:
        ago_s = dice.random() * days * 86_400
        if dice.random() > 0.55 + 0.45 * math.sin((now_s - ago_s) / 86_400 * 2 * math.pi):
            continue
        model, provider, _ = dice.choices(_MODELS, [one[2] for one in _MODELS])[0]
        code = dice.choice(_CODES) if dice.random() < 0.03 else None
        took_s, started_s = dice.lognormvariate(0.2, 0.6), now_s - ago_s
        asked, said = dice.randrange(80, 3_000), dice.randrange(20, 700)
        found.append(
            {
                "request_id": f"req_{len(found):032x}",
                "started": started_s,
                "ended": started_s + took_s,
                "state": "ended",
                "operation": "chat",
                "caller": dice.choice(_CALLERS),
                "caller_kind": "key",
                "tenant": "a",
                "model": model,
                "planned": json.dumps([f"{provider}/{model}"]),
                "attempts": 1,
                "provider": provider,
                "deployment": f"{provider}/{model}",
                "served_model": model,
                "status": {None: 200, "rate_limit_exceeded": 429}.get(code, 504),
                "error_code": code,
                "stream": dice.random() < 0.6,
                "caller_gone": False,
                "estimated": False,
                "time_to_first_token_s": None if code else took_s * 0.25,
                "prompt_tokens": asked,
                "completion_tokens": said,
                "cached_tokens": asked // 3,
                "cache_write_tokens": 0,
                "reasoning_tokens": 0,
                "total_tokens": asked + said,
                "cost_nano": asked * 150 + said * 600,
                "tags": json.dumps(["team-a"] if dice.random() < 0.5 else []),
                "price": None,
            }
        )
    return found


def prefilled(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Make the database of a start in `folder` that has these rows."""
    place = folder / "data" / "gateway.db"
    place.parent.mkdir(mode=0o700, parents=True)
    upgrade(place)
    usage = UsageRows(Database(place))
    for at in range(0, len(rows), 1_000):
        usage.keep(rows[at : at + 1_000])
    usage.release()


def admin(url: str) -> httpx.Client:
    """Whoever manages the gateway, on one connection."""
    return httpx.Client(base_url=f"{url}/admin/v1/", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=30)


def manage(boss: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Make something over the admin API."""
    answer = boss.post(path, json=body)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def people_the(url: str) -> None:
    """Make keys, a project, rules and some calls with content."""
    with admin(url) as boss:
        project = manage(boss, "projects", {"name": "shop"})
        for name in ("web shop", "nightly batch", "support bot"):
            manage(boss, "keys", {"name": name, "project": project["id"]})
        manage(boss, "budgets", {"name": "all calls", "measure": "usd", "most": "25", "period": "month", "soft": 0.8})
        manage(boss, "limits", {"name": "demo", "measure": "requests", "most": 600, "period": "minute"})
    body = {"model": "demo/echo", "messages": [{"role": "user", "content": "What is a gateway good for?"}]}
    headers = {"Authorization": f"Bearer {TOKEN}", "x-gateway-tags": "docs"}
    for _ in range(3):
        httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=30).raise_for_status()
    for _ in range(2):  # which opens a breaker
        failed = httpx.post(f"{url}/v1/chat/completions", json={**body, "model": "spare"}, headers=headers, timeout=30)
        assert failed.status_code == 502, failed.text


def keep(page: Page, place: Path) -> None:
    """Keep a picture of a page, with few colours so that it is small."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(96)
    picture.save(place, optimize=True)
    assert place.stat().st_size < MOST_BYTES, place


def main(folder: Path) -> None:
    """Take all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "GATEWAY_AUTH_TOKEN": TOKEN,
        "GATEWAY_ADMIN_TOKEN": ADMIN_TOKEN,
        "GATEWAY_DEMO": "on",
        "GATEWAY_CONFIG_YAML": _ROUTES,
        "GATEWAY_RELAY": "all",
        "WEB_CONCURRENCY": "1",
    }
    with tempfile.TemporaryDirectory() as scratch, browser() as chromium:
        prefilled(Path(scratch), made_up(18_000, 14.0, time.time()))
        with Served(Path(scratch), settings) as site:
            people_the(site.url)
            for scheme in ("light", "dark"):
                context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
                page = context.new_page()
                page.goto(f"{site.url}/ui/sign-in#key={ADMIN_TOKEN}&calls={TOKEN}")
                page.wait_for_url(f"{site.url}/ui/")
                for name, path in (
                    ("overview", "?span=7d"),
                    ("requests", "requests?live=off"),
                    ("errors", "errors?span=7d"),
                    ("models", "models?span=7d"),
                    ("keys", "keys"),
                    ("limits", "limits"),
                    ("playground", "playground"),
                ):
                    page.goto(f"{site.url}/ui/{path}")
                    page.wait_for_load_state("networkidle")
                    if name == "models":
                        assert page.locator(".badge.bad", has_text="open").count() == 1
                    if scheme == "light" or name == "overview":
                        keep(page, folder / (f"{name}.png" if scheme == "light" else f"{name}-dark.png"))
                page.goto(f"{site.url}/ui/requests?text=good&model=demo%2Fecho&live=off")
                page.click("tbody tr:first-child a")
                page.wait_for_load_state("networkidle")
                if scheme == "light":
                    keep(page, folder / "request.png")
            phone = chromium.new_context(viewport={"width": 375, "height": 800}).new_page()
            phone.goto(f"{site.url}/ui/sign-in#key={ADMIN_TOKEN}&calls={TOKEN}")
            phone.wait_for_url(f"{site.url}/ui/")
            phone.goto(f"{site.url}/ui/?span=7d")
            phone.wait_for_load_state("networkidle")
            keep(phone, folder / "phone.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
