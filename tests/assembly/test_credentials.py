"""Which credentials are taken out of records."""

from __future__ import annotations

from typing import Any

from tests.assembly.building import build


def test_every_credential_is_taken_out_of_what_is_recorded() -> None:
    secrets: dict[str, Any] = {
        "GATEWAY_AUTH_TOKEN": "hunter2-token-a,hunter2-token-b",
        "OPENAI_API_KEY": "hunter2-openai",
        "BRAINTRUST_API_KEY": "hunter2-braintrust",
        "GATEWAY_ADMIN_TOKEN": "hunter2-admin",
        "GATEWAY_KEY_PEPPER": "hunter2-pepper-which-is-long-enough",
        "GATEWAY_WEBHOOK_SECRET": "hunter2-webhook-which-is-long-enough",
    }
    redactor = build(**secrets).tracer._redactor
    text = redactor.text(" ".join(secrets.values()).replace(",", " "))
    assert "hunter2" not in text
