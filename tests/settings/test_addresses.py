"""Addresses of providers and stores: what is wrong with one is said without repeating it."""

from __future__ import annotations

import pytest

from gateway.secret import Secret
from gateway.settings import Settings, told
from tests.settings.loading import faults


@pytest.mark.parametrize(
    "text",
    [
        "ftp://host",
        "localhost:11434",
        "//host",
        "https://",
        "https://user:hunter2@host",
        "https://@host",
        "https://host/?q=hunter2",
        "https://host/v1?",
        "https://host/#",
        "https://host:port",
        "https://ho st",
        "https://[::1",
    ],
)
@pytest.mark.parametrize("name", ["BRAINTRUST_API_URL", "OPENAI_BASE_URL"])
def test_an_address_is_plain_http_and_a_fault_does_not_repeat_it(name: str, text: str) -> None:
    [fault] = faults({name: text, "OPENAI_API_KEY": "k"})
    assert fault.startswith(f"{name} ")
    assert "hunter2" not in fault


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "postgresql", "postgres", "PostgreSQL"])
def test_a_postgres_database_may_be_named_in_every_usual_way(scheme: str) -> None:
    settings = Settings.load({"DATABASE_URL": f"{scheme}://me:hunter2%40x@db.example:5432/gateway?sslmode=require"})
    assert settings.database_url is not None
    address = settings.database_url.reveal()
    assert address == "postgresql+psycopg://me:hunter2%40x@db.example:5432/gateway?sslmode=require"
    assert told(settings.database_url) == "postgresql+psycopg://db.example:5432/gateway"
    assert {secret.reveal() for secret in settings.store_passwords} == {address, "hunter2%40x", "hunter2@x"}


@pytest.mark.parametrize(
    "address", ["redis://:hunter2@r.example:6379/0", "rediss://u:hunter2@r.example", "unix://:hunter2@/run/redis.sock"]
)
def test_a_redis_may_be_named_in_every_way_of_its_client(address: str) -> None:
    settings = Settings.load({"REDIS_URL": address})
    assert settings.redis_url == Secret(address)
    assert "hunter2" not in told(settings.redis_url) + repr(settings)
    assert Secret("hunter2") in settings.store_passwords


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DATABASE_URL", "mysql://u:hunter2@h/n", "must begin with postgresql+psycopg://"),
        ("DATABASE_URL", "sqlite:///hunter2.db", "must begin with postgresql+psycopg://"),
        ("DATABASE_URL", "postgresql://u:hunter2@h", "names no database"),
        ("DATABASE_URL", "postgresql://u:hunter2@h:port/n", "is not an address"),
        ("DATABASE_URL", "postgresql://u:hunter2 #@h/n", "have to be written as %XX"),
        ("REDIS_URL", "http://:hunter2@h", "must begin with redis://"),
        ("REDIS_URL", "redis://:hunter2@h/zero", "must end with the number of a database"),
        ("REDIS_URL", "redis://", "names no host"),
    ],
)
def test_an_address_of_a_store_that_is_none_is_a_fault_that_does_not_repeat_it(
    name: str, value: str, said: str
) -> None:
    [fault] = faults({name: value})
    assert fault.startswith(f"{name} ")
    assert said in fault
    assert "hunter2" not in fault
