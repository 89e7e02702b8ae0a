"""Python client of a Depthlens service: `Client` waits, `AsyncClient` awaits, both by the same rules.

```python
with Client("http://127.0.0.1:8080") as client:
    depth = client.depth("photo.jpg")  # depth.values: float32 (H, W)
    photo = client.open("photo.jpg")
    photo.focus(320, 240).save("first.jpg")
    photo.focus(rx=0.1, ry=0.9).save("second.jpg")  # nothing is sent but the click
```
"""

from service.client.clients import AsyncClient, AsyncPhoto, Client, Photo
from service.client.errors import (
    BadPhoto,
    ClientError,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidParameter,
    ModelFailed,
    NotAcceptable,
    NotAPerson,
    NotFound,
    OutsideImage,
    Problem,
    ServerFault,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    UnknownModel,
    UnknownPerson,
    UnknownScene,
    UnusableMap,
)
from service.client.results import DepthMap, File, Focused, Matte, Metadata, Model, People, Person, PointDepth
from service.client.streams import AsyncFrameStream, FrameError, FrameResult, FrameStream

__all__ = [
    "AsyncClient",
    "AsyncFrameStream",
    "AsyncPhoto",
    "BadPhoto",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "DeadlineExceeded",
    "DepthMap",
    "File",
    "Focused",
    "FrameError",
    "FrameResult",
    "FrameStream",
    "InvalidParameter",
    "Matte",
    "Metadata",
    "Model",
    "ModelFailed",
    "NotAPerson",
    "NotAcceptable",
    "NotFound",
    "OutsideImage",
    "People",
    "Person",
    "Photo",
    "PointDepth",
    "Problem",
    "ServerFault",
    "TimedOut",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "UnknownModel",
    "UnknownPerson",
    "UnknownScene",
    "UnusableMap",
]
