"""Where traces go, as the settings say."""

from __future__ import annotations

from pathlib import Path

from gateway import assembly
from gateway.secret import Secret
from gateway.settings import Settings
from gateway.tracing.local import LocalTraces
from gateway.tracing.spool import Spool
from tests.assembly.building import build


def test_a_braintrust_key_sends_the_traces_there() -> None:
    made = build(BRAINTRUST_API_KEY="hunter2-braintrust", BRAINTRUST_PROJECT="shop")
    assert [type(sink) for sink in made.tracer._sinks] == [Spool]
    both = build(BRAINTRUST_API_KEY="hunter2-braintrust", GATEWAY_LOCAL_TRACES="on")
    assert list(both.tracer.backlogs()) == ["braintrust", "local"]
    assert made.tracer._project == "shop"


def test_traces_are_kept_in_the_file_also_where_all_else_is_on_a_server(
    tmp_path: Path, empty_postgres_address: Secret
) -> None:
    made = Settings.from_env({"DATABASE_URL": empty_postgres_address.reveal()}, tmp_path)
    assembly.migrate(made)
    [local] = assembly.deliveries(made)
    assert isinstance(local.destination, LocalTraces)
    assert local.destination._database.name == str(made.database)
    shared = assembly.database(made)
    shared.check()
    shared.release()
