"""The gateways that are compared, each as its makers say that it is run. Installs those that are packages.

    uv run python bench/peers.py            # into .bench/; takes some minutes, and npm for Portkey

nginx is the system's: `apt-get install nginx`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.processes import TOP, Provider, free_port

PEERS = TOP / ".bench"
KEY = "sk-bench-caller"
MODEL = "bench-model"
_CHAT = "/v1/chat/completions"

#: The newest that the project's own date allows and whose parts are all there; 1.82.7 and 1.82.8 stole credentials.
LITELLM = "litellm[proxy]>=1.84"
TENSORZERO = "tensorzero==2026.6.0"
PORTKEY = "1.15.2"
#: What Portkey was released with; newer ones of the same major version do not serve it.
_PORTKEY_NEEDS = {"@hono/node-server": "1.13.5", "hono": "4.9.7"}

_BEARER = {"Authorization": f"Bearer {KEY}"}


@dataclass(frozen=True)
class Contender:
    """One gateway, ready to be started in a folder of its own.

    Attributes:
        label: how it is called in a table.
        absent: why it cannot be run here, in a sentence; None where it can.
        command: empty for the provider itself, asked without any gateway.
        port: None where it chooses its own, and writes the address to `url` in its folder.
        files: what must stand in its folder, by name.
        links: what of the project must stand there, too.
        model: its name for the model.
        traced: whether each call is traced to the provider's Braintrust.
    """

    name: str
    label: str
    command: Sequence[str] = ()
    absent: str | None = None
    port: int | None = None
    path: str = _CHAT
    headers: Mapping[str, str] = field(default_factory=lambda: _BEARER)
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    links: Sequence[str] = ()
    model: str = MODEL
    traced: bool = False

    def lay_out(self, folder: Path) -> None:
        """Make its folder, which must not be there yet."""
        folder.mkdir(parents=True)
        for name, content in self.files.items():
            (folder / name).write_text(content, encoding="utf-8")
        for name in self.links:
            (folder / name).symlink_to(TOP / name)


def gateway(
    provider: Provider, lane: str = "default", app: str = "wsgi:app", deployments: int = 0, **more: str
) -> Contender:
    """This gateway, started by its bare command with one worker.

    Args:
        provider: who is asked, and gets the traces.
        lane: `default`, by way of LiteLLM, or `relay`.
        app: what gunicorn serves.
        deployments: of the model, by a routes file; without one it is called by its own name.
        more: further variables.
    """
    port = free_port()
    environment = {
        "GATEWAY_AUTH_TOKEN": KEY,
        "GATEWAY_DATA_DIR": "data",
        "WEB_CONCURRENCY": "1",
        "LOG_LEVEL": "warning",
        **({"GATEWAY_RELAY": "all"} if lane == "relay" else {}),
        **provider.environment(),
        **({"GATEWAY_CONFIG": "gateway.yaml"} if deployments else {}),
        **more,
    }
    label = "this gateway" if lane == "default" else "this gateway, `GATEWAY_RELAY=all`"
    return Contender(
        name=("gateway" if lane == "default" else f"gateway-{lane}") + (f"-{deployments}" if deployments else ""),
        label=label + (f", {deployments} deployments" if deployments else ""),
        files={"gateway.yaml": json.dumps(_routes(provider, deployments))} if deployments else {},
        command=[str(Path(sys.executable).with_name("gunicorn")), app, "-b", f"127.0.0.1:{port}"],
        port=port,
        environment=environment,
        links=("gateway", "bench", "wsgi.py", "gunicorn.conf.py"),
        model=f"openai/{MODEL}",
        traced=True,
    )


def _routes(provider: Provider, deployments: int) -> dict[str, object]:
    """A routes file in which one name has so many deployments, drawn by weight: each of them is looked at in a call."""
    params = {"model": f"openai/{MODEL}", "api_base": f"{provider.url}/v1"}
    keys = [f"sk-bench-deployment-{number}" for number in range(deployments)]
    entries = [
        {"model_name": f"openai/{MODEL}", "litellm_params": {**params, "api_key": key, "weight": 1}} for key in keys
    ]
    return {"model_list": entries, "router_settings": {"routing_strategy": "simple-shuffle"}}


def _relayed(provider: Provider, _peers: Path) -> Contender:
    return gateway(provider, "relay")


def _default(provider: Provider, _peers: Path) -> Contender:
    return gateway(provider)


def _routed(provider: Provider, _peers: Path) -> Contender:
    return gateway(provider, deployments=50)


def _relayed_and_routed(provider: Provider, _peers: Path) -> Contender:
    return gateway(provider, "relay", deployments=50)


def _direct(provider: Provider, _peers: Path) -> Contender:
    return Contender("direct", "the provider, asked directly", port=provider.port)


def _nginx(provider: Provider, _peers: Path) -> Contender:
    port = free_port()
    folders = "".join(f"  {kind}_temp_path {kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    conf = f"""
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
{folders}  upstream provider {{ server 127.0.0.1:{provider.port}; keepalive 2000; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    keepalive_requests 100000000;
    location / {{
      if ($http_authorization != "Bearer {KEY}") {{ return 401; }}
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer sk-bench-provider";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    release = _said([program or "nginx", "-v"], r"nginx/(\S+)")
    return Contender(
        "nginx",
        f"nginx {release} (the hop alone)",
        [program or "nginx", "-p", ".", "-c", "nginx.conf"],
        absent=None if program else "there is no program nginx",
        port=port,
        files={"nginx.conf": conf},
    )


def _litellm(provider: Provider, peers: Path) -> Contender:
    # its production guide: one worker a core, no debug output, errors not kept, JSON logs
    config = {
        "model_list": [
            {
                "model_name": MODEL,
                "litellm_params": {
                    "model": f"openai/{MODEL}",
                    "api_base": f"{provider.url}/v1",
                    "api_key": "sk-bench-provider",
                },
            }
        ],
        "general_settings": {
            "master_key": KEY,
            "proxy_batch_write_at": 60,
            "database_connection_pool_limit": 10,
            "disable_error_logs": True,
            "allow_requests_on_db_unavailable": True,
        },
        "litellm_settings": {"telemetry": False, "request_timeout": 600, "set_verbose": False, "json_logs": True},
    }
    port = free_port()
    program = peers / "litellm" / "bin" / "litellm"
    return Contender(
        "litellm",
        f"LiteLLM Proxy {_version(peers / 'litellm', 'litellm')}, production settings",
        [str(program), "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)],
        absent=_unless(program),
        port=port,
        environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"},
        files={"config.yaml": json.dumps(config)},  # JSON is YAML
    )


def _portkey(provider: Provider, peers: Path) -> Contender:
    port = free_port()
    package = peers / "portkey" / "node_modules" / "@portkey-ai" / "gateway"
    node = shutil.which("node")
    version = json.loads((package / "package.json").read_text())["version"] if package.exists() else PORTKEY
    return Contender(
        "portkey",
        f"Portkey {version}",
        [node or "node", str(package / "build" / "start-server.js"), "--headless", f"--port={port}"],
        absent=_unless(package) if node else "there is no program node",
        port=port,
        headers={
            "Authorization": "Bearer sk-bench-provider",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"{provider.url}/v1",
        },
        environment={"NODE_ENV": "production", "PORT": str(port)},
    )


_START_TENSORZERO = """
import pathlib, signal, tensorzero
served = tensorzero._start_http_gateway(
    config_file="tensorzero.toml", clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
pathlib.Path("url").write_text(served.base_url)
signal.pause()
"""


def _tensorzero(provider: Provider, peers: Path) -> Contender:
    config = f"""
[gateway]
observability.enabled = false
[models.{MODEL}]
routing = ["provider"]
[models.{MODEL}.providers.provider]
type = "openai"
model_name = "{MODEL}"
api_base = "{provider.url}/v1/"
api_key_location = "none"
"""
    python = peers / "tensorzero" / "bin" / "python"
    return Contender(
        "tensorzero",
        f"TensorZero {_version(peers / 'tensorzero', 'tensorzero')}",
        [str(python), "-c", _START_TENSORZERO],
        absent=_unless(python),
        path="/openai/v1/chat/completions",
        environment={"RUST_LOG": "error"},
        files={"tensorzero.toml": config},
        model=f"tensorzero::model_name::{MODEL}",
    )


CONTENDERS: Mapping[str, Callable[[Provider, Path], Contender]] = {
    "direct": _direct,
    "nginx": _nginx,
    "tensorzero": _tensorzero,
    "gateway-relay": _relayed,
    "gateway-relay-50": _relayed_and_routed,
    "portkey": _portkey,
    "gateway": _default,
    "gateway-50": _routed,
    "litellm": _litellm,
}


def _unless(path: Path) -> str | None:
    return None if path.exists() else "it is not installed: uv run python bench/peers.py"


def _said(command: Sequence[str], pattern: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return ""
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else ""


def _version(environment: Path, package: str) -> str:
    told = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    return _said([str(environment / "bin" / "python"), "-c", told, package], r"(\S+)")


def install(peers: Path) -> None:
    """Install the peers that are packages.

    Raises:
        subprocess.CalledProcessError: one of them could not be installed.
    """
    for name, package in (("litellm", LITELLM), ("tensorzero", TENSORZERO)):
        python = peers / name / "bin" / "python"
        if not python.exists():
            subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, str(peers / name)], check=True)
        print(f"installing {package}", flush=True)
        subprocess.run(
            ["uv", "pip", "install", "--quiet", "--no-config", "--python", str(python), package],
            check=True,
            env={**os.environ, "UV_EXCLUDE_NEWER": _newest()},
        )
    print(f"installing @portkey-ai/gateway {PORTKEY}", flush=True)
    folder = peers / "portkey"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"private": True, "dependencies": {"@portkey-ai/gateway": PORTKEY}, "overrides": _PORTKEY_NEEDS}
    (folder / "package.json").write_text(json.dumps(wanted))
    subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], check=True, cwd=folder)


def _newest() -> str:
    """The date that the project's own lock was made under: nothing younger is taken here either."""
    found = re.search(r'^exclude-newer = "(\S+)"', (TOP / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--peers", type=Path, default=PEERS, help="where to")
    install(arguments.parse_args().peers.resolve())
