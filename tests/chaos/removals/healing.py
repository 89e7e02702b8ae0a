"""Servers and models that come and go."""

from .registry import without


@without("canary")
def _canary() -> None:
    """Ready as soon as it is up; nobody asks the model."""
    import asyncio

    from service.canary import Canary, CanaryState, Reason

    async def believe(self):  # type: ignore[no-untyped-def]
        self.state = CanaryState(True, Reason.OK, 0.0)
        await asyncio.Event().wait()

    Canary.run = believe  # type: ignore[method-assign]


@without("error-mapping")
def _error_mapping() -> None:
    """What Triton says is an exception like any other."""
    from service import inference

    inference.translate = lambda status, text, model: RuntimeError(text)


@without("retry")
def _retry() -> None:
    """What a server lost is lost."""
    from service.replicas import Replicas

    choose = Replicas._least_busy
    Replicas._least_busy = lambda self, model, but=None: None if but else choose(self, model)  # type: ignore


@without("hedging")
def _hedging() -> None:
    """A server that was asked is waited for until the deadline."""
    from service.hedging import Hedging

    Hedging.patience_s = lambda self, model, timeout_s: None  # type: ignore[method-assign]  # the removal is this


@without("drained")
def _drained() -> None:
    """A server is asked until it is gone."""
    from service.endpoint import Endpoint

    Endpoint.drained = property(lambda self: False, lambda self, drained: None)  # type: ignore[assignment]  # as above


@without("own-readiness")
def _own_readiness() -> None:
    """Ready when all models are, as Triton's own readiness."""
    from service.gateway import Gateway

    Gateway.not_ready_because = property(  # type: ignore[assignment]
        lambda self: next((state for state in self.model_states().values() if state != "ok"), None)
    )


@without("finite")
def _finite() -> None:
    """What the model answers is taken as it is."""
    from service import inference

    inference._output = lambda tensor, result, model: result.as_numpy(tensor.name)[0]


@without("healing")
def _healing() -> None:
    """A model whose process died stays dead, as in Triton."""
    from service.embedded.supervisor import Supervisor

    async def leave(self, model, error):  # type: ignore[no-untyped-def]
        pass

    Supervisor._heal = leave  # type: ignore[method-assign]


@without("keepalive")
def _keepalive() -> None:
    """A connection is good until TCP says otherwise."""
    from service import inference

    inference.CHANNEL_ARGUMENTS = tuple(
        pair for pair in inference.CHANNEL_ARGUMENTS if "keepalive" not in pair[0] and "ping" not in pair[0]
    )


@without("lookups")
def _lookups() -> None:
    """A name is looked up once."""
    from service import app, replicas

    app.RESOLVE_PERIOD_S = replicas._UNREADY_RESOLVE_PERIOD_S = 1e6


@without("monotonic")
def _monotonic() -> None:
    """Deadlines are times of day."""
    import time
    from types import SimpleNamespace

    from service import context

    context.time = SimpleNamespace(monotonic=time.time, perf_counter=time.perf_counter)  # type: ignore[assignment]


@without("rollout")
def _rollout() -> None:
    """A version that is loaded serves, as in Triton."""
    from service.errors import ContractViolation, RolloutFailed
    from service.inference import only_versions
    from service.rollout import Rollout

    async def replace(self, model, version):  # type: ignore[no-untyped-def]
        for server in self._servers():
            before = (await server.serving(model))[0]
            try:
                await server.load(model, only_versions(await server.config(model), version))
            except ContractViolation:
                raise RolloutFailed("it does not load") from None
            server.choose(model, version)
        return before

    Rollout._replace = replace  # type: ignore[method-assign]


@without("amended-server")
def _amended_server() -> None:
    """tritonserver as its wheel has it."""
    from service.embedded import process

    process.survive_cancellations = lambda server, copy: server
