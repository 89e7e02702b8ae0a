"""What is kept of every request that was answered: its counts, its times and one line in the log."""

import logging
from collections.abc import Mapping

from service.context import RequestContext
from service.logs import FIELDS
from service.metrics import Metrics

logger = logging.getLogger("depthlens.access")

_LOGGED_METHOD = 20


def record(metrics: Metrics, context: RequestContext, method: str, route: str, status: int, seconds: float) -> None:
    """Count and log an answer.

    Args:
        metrics: gets the counts.
        context: of the request.
        method: as sent.
        route: the template of its path, `unmatched` where there is none.
        status: of the answer.
        seconds: from the end of the request's head to that of its answer.
    """
    metrics.requests.labels(route, str(status), context.problem_code).inc()
    metrics.request_seconds.labels(route).observe(seconds)
    for stage, stage_seconds in context.stage_s.items():
        metrics.stage_seconds.labels(stage).observe(stage_seconds)
    if status == 499:
        metrics.cancelled.labels(context.stage).inc()
    if not logger.isEnabledFor(logging.INFO):
        return
    method = method[:_LOGGED_METHOD]  # any token is one
    fields = {
        "method": method,
        "route": route,
        "status": status,
        "code": context.problem_code,
        "seconds": round(seconds, 6),
        "stage_seconds": {stage: round(stage_s, 6) for stage, stage_s in context.stage_s.items()},
        "request_id": context.request_id,
    }
    logger.info(
        "%s %s %s %s %.1fms id=%s",
        method,
        route,
        status,
        context.problem_code,
        seconds * 1000,
        context.request_id,
        extra={FIELDS: fields},
    )


def ended(context: RequestContext, route: str, code: int | None, counts: Mapping[str, int], seconds: float) -> None:
    """Log the end of a stream.

    Args:
        context: of its handshake.
        route: its path.
        code: it was closed with, None when the client went.
        counts: of its frames.
        seconds: it was open.
    """
    said = " ".join(f"{name}={count}" for name, count in counts.items())
    fields = {
        "route": route,
        "closed": code,
        "seconds": round(seconds, 3),
        "frames": dict(counts),
        "request_id": context.request_id,
    }
    logger.info(
        "%s closed %s after %.1fs %s id=%s",
        route,
        code or "by client",
        seconds,
        said,
        context.request_id,
        extra={FIELDS: fields},
    )
