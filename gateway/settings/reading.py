"""Reads all variables at once: the values, and every fault."""

from __future__ import annotations

from typing import Any

from gateway.settings.conflicts import conflicts, strangers, weak
from gateway.settings.credentials import credentials_of
from gateway.settings.readers import READERS
from gateway.settings.table import SETTINGS
from gateway.settings.variables import Variables


def read(variables: Variables) -> tuple[dict[str, Any], list[str]]:
    """Return what `Settings` is made of, by attribute, and the faults, a sentence each.

    A value that cannot be used is left out.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    for row in SETTINGS:
        # indentation is meaning in YAML
        text = variables.verbatim(row.env) if row.kind == "yaml" else variables.get(row.env)
        if row.kind == "secrets":
            values["tokens_set"] = text is not None
        elif not (text and text.strip()):
            continue
        if text is not None:
            try:
                values[row.attribute] = READERS[row.kind](row, text)
            except ValueError as fault:
                faults.append(f"{row.env} {fault}")
    credentials, unusable = credentials_of(variables)
    misspelt, unknown = strangers(variables)
    faults += [*conflicts(values), *unusable, *misspelt]
    values |= {
        "variables": variables,
        "credentials": credentials,
        "identity": variables.identity(),
        "warnings": (*unknown, *weak(values)),
    }
    return values, list(dict.fromkeys(faults))  # several providers may share one variable
