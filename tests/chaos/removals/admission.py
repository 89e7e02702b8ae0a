"""Who is let in, and what is told of it.

Methods of typed classes are replaced by short untyped ones: hence the `type: ignore` of this module.
"""

from .registry import without


@without("admission")
def _admission() -> None:
    """Everything is worked on at once, as in a server without a bound."""
    from service.admission import Admission

    bounded = Admission.__init__
    Admission.__init__ = lambda self, places, *rest: bounded(self, 10**6, *rest)  # type: ignore[method-assign]


@without("wait-bound")
def _wait_bound() -> None:
    """Requests wait as long as their deadlines allow."""
    from service.admission import Admission

    bounded = Admission.__init__

    def patient(self, places, waiting, wait_s, metrics):  # type: ignore[no-untyped-def]
        bounded(self, places, waiting, 1e6, metrics)

    Admission.__init__ = patient  # type: ignore[method-assign]


@without("closed-labels")
def _closed_labels() -> None:
    """Metrics are labelled, and lines written, with what the client sent."""
    import logging

    from service import logs
    from service.middleware import RequestMiddleware

    def record(self, scope, context, status, seconds):  # type: ignore[no-untyped-def]
        self._metrics.requests.labels(scope["path"], str(status), context.problem_code).inc()
        logging.getLogger("depthlens.access").info("%s %s %s", scope["method"], scope["path"], status)

    RequestMiddleware._record = record  # type: ignore[method-assign]
    logs.SafeFormatter = logging.Formatter  # type: ignore[assignment, misc]


@without("fair-share")
def _fair_share() -> None:
    """One queue for all, first come first served."""
    from service.clients import Clients

    identify = Clients.identify
    Clients.identify = lambda self, connection: identify(self, connection) and "all"  # type: ignore[method-assign]


@without("deadline")
def _deadline() -> None:
    """Nothing is bounded in time, as in a handler that awaits its model."""
    from service.context import Deadline

    Deadline.after = classmethod(lambda cls, timeout_s: cls(1e6, 1e9))  # type: ignore[method-assign, assignment]
