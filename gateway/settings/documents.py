"""The papers that are made from the rows: `.env.example`, and the table of `docs/settings.md`."""

from __future__ import annotations

import textwrap

from gateway.settings.setting import Setting
from gateway.settings.table import GROUPS, SETTINGS

_PROVIDERS = (
    "Every provider that LiteLLM knows has <PROVIDER>_API_KEY, and <PROVIDER>_API_BASE for an address other "
    "than its public one: GROQ_API_KEY for groq/..., OLLAMA_API_BASE for ollama/... . The vendors' own names "
    "are read too (HF_TOKEN, GOOGLE_API_KEY, OPENAI_BASE_URL). A provider that needs no key (ollama, "
    "hosted_vllm) has to be named by its address; the clouds by their variables (AWS_*, GOOGLE_*, AZURE_*)."
)


def env_example() -> str:
    """Return the whole `.env.example`."""

    def comment(text: str) -> list[str]:
        return [f"# {line}" for line in textwrap.wrap(text.replace("`", ""), 106)]

    lines = comment("Settings of the gateway. Copy this to .env and fill in what you need; the environment wins.")
    lines += ["", "# --- Providers ---", *comment(_PROVIDERS), "# OPENAI_API_KEY=", "# ANTHROPIC_API_KEY="]
    for group, rows in GROUPS.items():
        lines += ["", f"# --- {group} ---"]
        for row in rows:
            unit = f" Unit: {row.unit}." if row.unit else ""
            lines += ["", *comment(_notes(row) + unit), f"# {row.env}={row.default or ''}"]
    return "\n".join(lines) + "\n"


def markdown_table() -> str:
    """Return the table of `docs/settings.md`."""
    lines = ["| Variable | Default | Unit | What it does |", "|---|---|---|---|"]
    for row in SETTINGS:
        default = f"`{row.default}`" if row.default else "none"
        lines.append(f"| `{row.env}` | {default} | {row.unit} | {_notes(row)} |")
    return "\n".join(lines) + "\n"


def _notes(row: Setting) -> str:
    choices = f"One of {', '.join(row.choices)}." if row.choices else ""
    least = f"At least {row.minimum}." if row.minimum is not None else ""
    most = f"At most {row.maximum}." if row.maximum is not None else ""
    return " ".join(filter(None, (row.help, choices, least, most)))
