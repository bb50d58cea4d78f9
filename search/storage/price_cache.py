"""A cache of costs in a table of the study's database, keyed by everything that they depend on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import sqlalchemy as sql
from pydantic import TypeAdapter

from search.config.training_section import Training
from search.data.labelling import Labelling
from search.files.digests import sealed, unsealed_text
from search.storage.address import show_url
from search.storage.database import make_engine, retry_outages
from search.trials.records import Costs, Latency, show_setting
from space.architecture import Architecture
from space.canonical import Context

TABLE = sql.Table(
    "voxnas_prices", sql.MetaData(), sql.Column("key", sql.String(64), primary_key=True), sql.Column("value", sql.Text)
)
COSTS: TypeAdapter[Costs] = TypeAdapter(Costs)
LATENCY: TypeAdapter[Latency] = TypeAdapter(Latency)
Price = TypeVar("Price", Costs, Latency)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Device:
    """Model, threads and precision: what a latency depends on besides the network and its patch."""

    name: str
    threads: int
    precision: str

    @property
    def setting(self) -> str:
        """The same as that of a latency measured here."""
        return show_setting(self.name, self.threads, self.precision)


def _is_special(labelling: Labelling) -> bool:
    """Return whether the loss is not that of classes which are known everywhere."""
    return bool(labelling.regions) or labelling.ignored is not None


class PriceTable:
    """Costs by fingerprint, patch, channels, batch, optimiser, loss, precision, device and versions.

    A latency belongs to a device model, a memory to a device type (`cpu` or `cuda`). Studies of one database share the
    table.
    """

    def __init__(
        self,
        url: str,
        *,
        context: Context,
        training: Training,
        device: Device,
        kind: str,
        labelling: Labelling | None = None,
    ) -> None:
        self.url, self.context, self.training, self.device, self.kind = url, context, training, device, kind
        self.versions = [importlib.metadata.version(name) for name in ("voxnas", "torch")]
        self.loss = [labelling.regions, labelling.ignored] if labelling and _is_special(labelling) else []

    def find(self, architecture: Architecture) -> Costs | None:
        """Return the cached costs, with the latency on this device if it was measured.

        A damaged entry counts as none, with a warning; the costs that are computed or measured then replace it.
        """
        costs = self._read(self._key(architecture), COSTS)
        if costs is None:
            return None
        latency = self._read(self._key(architecture, asdict(self.device)), LATENCY)
        return replace(costs, latency=latency) if latency else costs

    def keep(self, architecture: Architecture, costs: Costs) -> None:
        """Write an architecture's costs, and its latency under its device."""
        rows = {self._key(architecture): json.dumps(sealed(asdict(replace(costs, latency=None))))}
        if costs.latency:
            measured = Device(costs.latency.device, costs.latency.threads, costs.latency.precision)
            rows[self._key(architecture, asdict(measured))] = json.dumps(sealed(asdict(costs.latency)))
        retry_outages(lambda: self._write(rows), url=self.url)

    def _write(self, rows: dict[str, str]) -> None:
        with self._engine.begin() as connection:
            for key, value in rows.items():
                connection.execute(TABLE.delete().where(TABLE.c.key == key))
                connection.execute(TABLE.insert().values(key=key, value=value))

    def close(self) -> None:
        """Close the database's connections."""
        self._engine.dispose()

    @cached_property
    def _engine(self) -> sql.Engine:
        engine = make_engine(self.url)
        TABLE.create(engine, checkfirst=True)
        return engine

    def _read(self, key: str, kind: TypeAdapter[Price]) -> Price | None:
        text = retry_outages(lambda: self._select(key), url=self.url)
        try:
            return None if text is None else kind.validate_python(unsealed_text(text))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            said = str(error).splitlines()[0]
            log.warning("%s: a cached price is damaged (%s): finding it again", show_url(self.url), said)
            return None

    def _select(self, key: str) -> str | None:
        with self._engine.connect() as connection:
            found: str | None = connection.execute(sql.select(TABLE.c.value).where(TABLE.c.key == key)).scalar()
        return found

    def _key(self, architecture: Architecture, device: dict[str, Any] | None = None) -> str:
        training, context = self.training, self.context
        precision = "" if device else training.precision  # the device holds the latency's
        values = [
            architecture.fingerprint,
            list(context.patch),
            context.in_channels,
            context.classes,
            training.samples,
            training.optimiser,
            precision,
            {**device, "mirror": training.mirror} if device and training.mirror else device or self.kind,
            self.versions,
            *([] if device else self.loss),  # a latency has none
        ]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()
