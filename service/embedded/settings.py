"""What an embedded server is told: where to listen, what to load, how long to wait."""

from dataclasses import dataclass
from pathlib import Path

from service.canary import UNKNOWN_TIMEOUT_S
from service.contract import MODELS


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """Settings of one embedded Triton.

    Args:
        repository: the model repository.
        models: names of the models that the server starts with, as far as the repository has them.
        canaries: those of them that are probed and healed; the networks, since ensembles have no process.
        others: whether every other model of the repository is loaded, too, once the server answers; one that does not
            load costs nothing but a line in the log.
        host: address of the three listeners.
        grpc_port: 0 picks a free one, as for the next two.
        http_port: KServe over HTTP.
        metrics_port: Prometheus.
        admin_file: where the secret that opens model control is found, or put for a gateway to find; None: nobody else
            is told.
        cache: folder of compiled networks; None: compile at each start. Ignored where it is not writable.
        working_directory: where the models' processes start, first on their `sys.path`; None: an empty folder.
        start_timeout_s: from the start of the process to the first answer of every canary.
        exit_timeout_s: how long requests in flight may take on a stop.
        canary_period_s: pause between two probes of a model.
        canary_timeout_s: deadline of a probe.
        others_timeout_s: the same for a model of `others`, whose speed nobody knows.
        unhealthy_after_s: a server that lives but answers no probe for so long is restarted.
        shm_bytes: shared memory per model instance to begin with; it grows by need, and growing costs time.
        max_backoff_s: longest pause between restarts.
        log_verbose: Triton's own verbosity, 0 or more.
        otlp_endpoint: `http://host:port` of the collector that Triton's spans go to; None: it makes none.
    """

    repository: Path
    models: tuple[str, ...] = tuple(MODELS)
    canaries: tuple[str, ...] = tuple(name for name, spec in MODELS.items() if spec.kind == "network")
    others: bool = False
    host: str = "127.0.0.1"
    grpc_port: int = 0
    http_port: int = 0
    metrics_port: int = 0
    admin_file: Path | None = None
    cache: Path | None = None
    working_directory: Path | None = None
    start_timeout_s: float = 120.0
    exit_timeout_s: int = 10
    canary_period_s: float = 1.0
    canary_timeout_s: float = 1.5
    others_timeout_s: float = UNKNOWN_TIMEOUT_S
    unhealthy_after_s: float = 30.0
    shm_bytes: int = 16 * 2**20
    max_backoff_s: float = 10.0
    log_verbose: int = 0
    otlp_endpoint: str | None = None
