"""Where traces and the rows of the ledger go: the spools, and what their folders are delivered to."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.assembly.stores import usage_rows
from gateway.metrics import Metrics
from gateway.settings import Settings, bytes_of
from gateway.tracing import Sink
from gateway.tracing.backlog import LEDGER
from gateway.tracing.braintrust import Braintrust
from gateway.tracing.console import Console
from gateway.tracing.delivery import Counts, Destination
from gateway.tracing.sender import LATE_S, POLL_S, Sender
from gateway.tracing.spool import HEADROOM_BYTES, Spool

if TYPE_CHECKING:
    from gateway.tracing.search import Search

JSON = dict[str, Any]

#: A row of the ledger has no content; names and tags of the longest kind take so much.
_LEDGER_HEADROOM_BYTES = 24 << 10


@dataclass(frozen=True)
class Delivery:
    """A place that the rows of a spool are delivered to.

    Attributes:
        sink: its name.
        folder: of the spool that they wait in.
        place: where rows go whose caller names no place of its own; None leaves it to the destination.
        late_s: how old a call is that is delivered while it is open.
        poll_s: how often the sender looks for what is new.
        headroom_bytes: what the rows of a call may take beyond its body, where calls are refused without room.
    """

    sink: str
    folder: Path
    destination: Destination
    cap_bytes: int
    place: JSON | None = None
    late_s: float = LATE_S
    poll_s: float = POLL_S
    headroom_bytes: int = HEADROOM_BYTES

    def sender(self, counts: Counts | None = None) -> Sender:
        """What delivers the folder."""
        return Sender(
            self.folder,
            self.destination,
            name=self.sink,
            cap_bytes=self.cap_bytes,
            counts=counts,
            late_s=self.late_s,
            poll_s=self.poll_s,
        )


def spool_folder(settings: Settings) -> Path:
    """The folder that has a folder for each destination."""
    return settings.data_dir / "spool"


def deliveries(settings: Settings) -> list[Delivery]:
    """Say where the traces of this configuration are delivered; the same for the gateway and for its commands."""
    cap_bytes = bytes_of(settings.spool_mb)
    found: list[Delivery] = []
    if (key := settings.braintrust_api_key) is not None:
        project = settings.braintrust_project
        where = (settings.braintrust_app_url, settings.braintrust_api_url, settings.braintrust_org_name)
        name = hashlib.sha256("\n".join((*(part or "" for part in where), key.reveal())).encode()).hexdigest()[:16]
        folder = spool_folder(settings) / f"braintrust-{name}"
        braintrust = Braintrust(key, project, *where)
        found.append(Delivery("braintrust", folder, braintrust, cap_bytes, {"project_name": project}))
    if (url := settings.otlp_url) is not None:
        from gateway.tracing.otlp import OTLP  # noqa: PLC0415  # httpx is slow to import

        name = hashlib.sha256(url.encode()).hexdigest()[:16]
        resource = {**settings.otel_resource, "service.name": settings.otel_service_name}
        collector = OTLP(
            url,
            settings.otlp_headers,
            resource,
            content=settings.otel_content == "true",
            compressed=settings.otlp_compression == "gzip",
        )
        found.append(Delivery("otlp", spool_folder(settings) / f"otlp-{name}", collector, cap_bytes))
    if settings.traces_kept_here:
        from gateway.storage.database import Database  # noqa: PLC0415  # slow, and not every command needs it
        from gateway.tracing.local import LocalTraces  # noqa: PLC0415

        local = LocalTraces(Database(settings.database), settings.local_traces_days, bytes_of(settings.local_traces_mb))
        found.append(Delivery("local", spool_folder(settings) / "local", local, cap_bytes))
    return found


def ledger_delivery(settings: Settings) -> Delivery:
    """Say where the rows of the ledger are delivered: to the database that all hosts share, else to the file."""
    from gateway.ledger.destination import UsageTable  # noqa: PLC0415  # SQLAlchemy is slow to import

    return Delivery(
        LEDGER,
        spool_folder(settings) / LEDGER,
        UsageTable(usage_rows(settings)),
        bytes_of(settings.spool_mb),
        late_s=math.inf,  # a call that is under way has no row yet
        poll_s=1.0,  # a transaction costs as much as fifty rows
        headroom_bytes=_LEDGER_HEADROOM_BYTES,
    )


def local_traces(settings: Settings) -> Search | None:
    """What reads the traces that are kept here; None where none are."""
    if not settings.traces_kept_here:
        return None
    from gateway.storage.database import Database  # noqa: PLC0415  # SQLAlchemy is slow to import
    from gateway.tracing.search import Search  # noqa: PLC0415

    return Search(Database(settings.database))


def sinks(settings: Settings, metrics: Metrics) -> list[Sink]:
    """Who is told of calls: a spool for each delivery, and the log where nothing goes to Braintrust."""
    spools: list[Sink] = [spool(settings, metrics, delivery) for delivery in deliveries(settings)]
    return spools if settings.braintrust_api_key is not None else [*spools, Console()]


def spool(settings: Settings, metrics: Metrics, delivery: Delivery) -> Spool:
    """The spool in front of a delivery. Starts nothing."""
    counts = SinkCounts(metrics, delivery.sink)
    return Spool(
        delivery.folder,
        delivery.sender(counts),
        name=delivery.sink,
        cap_bytes=delivery.cap_bytes,
        refuse=settings.spool_full == "refuse",
        fsync=settings.spool_fsync,
        place=delivery.place,
        counts=counts,
        headroom_bytes=delivery.headroom_bytes,
    )


class SinkCounts(Counts):
    """Counts the rows of one sink in the gateway's metrics."""

    def __init__(self, metrics: Metrics, sink: str) -> None:
        self._metrics = metrics
        self._sink = sink

    def sent(self, rows: int) -> None:
        """Count rows that were delivered."""
        self._metrics.rows_sent(self._sink, rows)

    def dropped(self, rows: int) -> None:
        """Count rows that are lost."""
        self._metrics.rows_dropped(self._sink, rows)

    def quarantined(self, rows: int) -> None:
        """Count rows that were put aside."""
        self._metrics.rows_quarantined(self._sink, rows)

    def damaged(self, frames: int) -> None:
        """Count frames that cannot be read."""
        self._metrics.frames_damaged(self._sink, frames)

    def interrupted(self, calls: int) -> None:
        """Count calls that their process left unfinished."""
        self._metrics.traces_interrupted(self._sink, calls)
