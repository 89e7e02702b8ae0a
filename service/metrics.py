"""Prometheus collectors of the gateway: names, labels and buckets in one place.

Label values come from closed sets (route templates, our own problem codes), so cardinality is bounded whatever
clients send.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from service import __version__
from service.context import Stage
from service.depth_client import Adapt

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LOSSES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.5)

_KNOWN: Final[Mapping[str, tuple[str, ...]]] = {
    "rejected": ("queue_full", "client_share", "wait", "deadline", "waited", "rate_limit"),
    "cancelled": ("receive", *get_args(Stage)),
    "decoder_ends": ("time", "crash", "killed", "start"),
    "frames": ("ok", "dropped", "left"),
    "adaptation_frames": get_args(Adapt),
    "adaptation_resets": get_args(Adapt)[1:],
    "adaptation_loss": get_args(Adapt)[1:],
    "adaptation_groups": ("0", "1", "2", "3", "4"),
}
"""Values of the one label of a counter that is there from the start: a rate does not see the step from nothing to 1."""


class Metrics:
    """The gateway's collectors in a registry of their own, so that two apps in one process do not collide."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "depthlens_requests_total",
            "Requests answered; code is the problem code, ok otherwise",
            ["route", "status", "code"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "depthlens_request_seconds", "Time to answer", ["route"], buckets=_SECONDS, registry=self.registry
        )
        self.stage_seconds = Histogram(
            "depthlens_stage_seconds",
            "Time in one stage: decode, queue, infer, render, encode",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.inflight = Gauge("depthlens_inflight", "Requests being worked on", registry=self.registry)
        self.waiting = Gauge("depthlens_waiting", "Requests waiting for a place", registry=self.registry)
        self.upload_bytes = Gauge("depthlens_upload_bytes", "Memory that request bodies hold", registry=self.registry)
        self.rejected = Counter(
            "depthlens_rejected_total", "Requests refused before any work", ["reason"], registry=self.registry
        )
        self.cancelled = Counter(
            "depthlens_cancelled_total", "Requests whose client left, by stage", ["stage"], registry=self.registry
        )
        self.decoder_ends = Counter(
            "depthlens_decoder_ends_total",
            "Decoding processes that ended: out of time, crashed, killed, not started",
            ["reason"],
            registry=self.registry,
        )
        self.connections = Gauge("depthlens_connections", "Open connections", registry=self.registry)
        self.connections_closed = Counter(
            "depthlens_connections_closed_total",
            "Connections closed by a rule of the edge",
            ["reason"],
            registry=self.registry,
        )
        self.streams = Gauge("depthlens_streams", "Open frame streams", registry=self.registry)
        self.frames = Counter(
            "depthlens_frames_total",
            "Frames of streams: ok, dropped, left (unanswered when the client went), or the problem code",
            ["result"],
            registry=self.registry,
        )
        self.frame_seconds = Histogram(
            "depthlens_frame_seconds",
            "Time from a frame's arrival to its result",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.adaptation_frames = Counter(
            "depthlens_adaptation_frames_total",
            "Pairs answered by POST /stereo: none, or how the sequence's weights were trained",
            ["mode"],
            registry=self.registry,
        )
        self.adaptation_resets = Counter(
            "depthlens_adaptation_resets_total",
            "Times that a sequence's weights had gone astray and the first ones were taken back",
            ["mode"],
            registry=self.registry,
        )
        self.adaptation_loss = Histogram(
            "depthlens_adaptation_loss",
            "Photometric loss of pairs of sequences, before they are learned from; lower is better",
            ["mode"],
            buckets=_LOSSES,
            registry=self.registry,
        )
        self.adaptation_groups = Counter(
            "depthlens_adaptation_groups_total",
            "Modules chosen by mad, 0 = coarsest",
            ["group"],
            registry=self.registry,
        )
        self.cache_hits = Counter("depthlens_cache_total", "Cache look-ups", ["kind", "result"], registry=self.registry)
        tasks = Gauge(
            "depthlens_tasks", "Tasks of the event loop; those of requests end with them", registry=self.registry
        )
        tasks.set_function(_tasks)
        self.triton_up = Gauge("depthlens_triton_up", "1 while the canary inference answers", registry=self.registry)
        build = Gauge("depthlens_build_info", "1; the version is the label", ["version"], registry=self.registry)
        build.labels(__version__).set(1)
        ProcessCollector(registry=self.registry)  # memory, processor time, descriptors, start of this process
        for name, values in _KNOWN.items():
            for value in values:
                getattr(self, name).labels(value)
        for stage in get_args(Stage):
            self.stage_seconds.labels(stage)

    def know_limits(self, *, inflight: int, waiting: int, upload_bytes: int) -> None:
        """Show what the gauges of these names may reach, as `depthlens_..._limit`."""
        for name, limit in (("inflight", inflight), ("waiting", waiting), ("upload_bytes", upload_bytes)):
            what = f"What depthlens_{name} may reach"
            Gauge(f"depthlens_{name}_limit", what, registry=self.registry).set(limit)

    def know_routes(self, routes: Iterable[str]) -> None:
        """Show these routes before their first request."""
        for route in routes:
            self.request_seconds.labels(route)
            self.requests.labels(route, "200", "ok")

    def count_pair(self, mode: Adapt, loss: float | None, group: int | None, reset: bool) -> None:
        """One pair was answered, of `POST /stereo` or of a stream."""
        self.adaptation_frames.labels(mode).inc()
        if loss is not None:
            self.adaptation_loss.labels(mode).observe(loss)
        if group is not None:
            self.adaptation_groups.labels(str(group)).inc()
        if reset:
            self.adaptation_resets.labels(mode).inc()

    def watch_replicas(self, counts: "Retries") -> None:
        """Show the servers' retries and models as `depthlens_retries_total`, `..._hedges_total` and `..._model_up`."""
        self.registry.register(_ReplicaCollector(counts))

    def watch_restarts(self, counts: "Restarts") -> None:
        """Show a supervisor's own counts as `depthlens_triton_restarts_total`."""
        self.registry.register(_RestartCollector(counts))

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # scraped where no loop runs
        return 0


class Restarts(Protocol):
    """Whoever counts restarts of the server process and reloads of single models."""

    restarts: int
    reloads: int


class Retries(Protocol):
    """Whoever counts requests tried on a second server, and knows which models answer."""

    retries: int
    hedges: int

    def state(self) -> Mapping[str, str]:
        """`ok` or something else, by model."""
        ...


class _ReplicaCollector(Collector):
    def __init__(self, counts: Retries) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Read at the scrape."""
        yield CounterMetricFamily(
            "depthlens_retries", "Inferences tried on a second server", value=self._counts.retries
        )
        yield CounterMetricFamily(
            "depthlens_hedges", "Inferences put to a second server before the first answered", value=self._counts.hedges
        )
        up = GaugeMetricFamily("depthlens_model_up", "1 while some server's canary inference answers", labels=["model"])
        for model, reason in self._counts.state().items():
            up.add_metric([model], float(reason == "ok"))
        yield up


class _RestartCollector(Collector):
    def __init__(self, counts: Restarts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        """One sample by kind, read at the scrape."""
        family = CounterMetricFamily(
            "depthlens_triton_restarts", "Restarts of the embedded server, reloads of its models", labels=["kind"]
        )
        family.add_metric(["restart"], self._counts.restarts)
        family.add_metric(["reload"], self._counts.reloads)
        yield family
