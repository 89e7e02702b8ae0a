"""The HTTP protocol and the body.

Methods of typed classes are replaced by short untyped ones: hence the `type: ignore` of this module.
"""

from .registry import without


@without("edge")
def _edge() -> None:
    """uvicorn's h11 protocol as it is: no deadline for heads, bodies and readers, no bound of connections."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from service import server

    server.GuardedProtocol = lambda shared, **arguments: H11Protocol(**arguments)  # type: ignore[assignment,misc]


@without("edge-and-h11")
def _edge_and_h11() -> None:
    """uvicorn's faster protocol, with httptools: heads of any size."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    from service import server

    server.GuardedProtocol = lambda shared, **arguments: HttpToolsProtocol(**arguments)  # type: ignore[assignment,misc]


@without("upload-bounds")
def _upload_bounds() -> None:
    """Bodies are read to their end, whatever length they declare, and forms taken as Starlette parses them."""
    from starlette.datastructures import UploadFile

    from service import gateway, upload
    from service.routes import lock

    async def read_parts(request, max_bytes, share, maps=()):  # type: ignore[no-untyped-def]
        if not request.headers.get("content-type", "").startswith("multipart/"):
            return {"image": await request.body()}
        form = await request.form()
        return {name: await file.read() for name, file in form.items() if isinstance(file, UploadFile)}

    gateway.read_parts = upload.read_parts = read_parts
    lock.check_head = lambda *head: None


@without("encoding-refused")
def _encoding_refused() -> None:
    """Compressed bodies are inflated, as the usual middlewares for it do."""
    import zlib

    from service import gateway, upload
    from service.routes import lock

    async def read_parts(request, max_bytes, share, maps=()):  # type: ignore[no-untyped-def]
        body = await request.body()
        return {"image": zlib.decompress(body, 47)}

    gateway.read_parts = upload.read_parts = read_parts
    lock.check_head = lambda *head: None


@without("drain")
def _drain() -> None:
    """SIGTERM closes the listener and every connection without a request at once, as in uvicorn."""
    import uvicorn

    from service.server import GatewayServer

    GatewayServer.handle_exit = uvicorn.Server.handle_exit  # type: ignore[method-assign]
