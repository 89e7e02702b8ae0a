"""What is kept of every request that was answered: its counts, its times and one line in the log."""

import logging

from service.context import RequestContext
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
    logger.info(
        "%s %s %s %s %.1fms id=%s",
        method[:_LOGGED_METHOD],  # any token is one
        route,
        status,
        context.problem_code,
        seconds * 1000,
        context.request_id,
    )
