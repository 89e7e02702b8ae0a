"""Every knob of the gateway, each an environment variable with the prefix `DEPTHLENS_`.

One object, made in `__main__` and passed down; nothing else reads the environment.
"""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.addresses import parse_list
from service.clients import Keys
from service.contract import MODEL_NAME, MODELS
from service.triton_admin import metadata


def _split(given: object) -> object:
    return tuple(word.strip() for word in given.split(",") if word.strip()) if isinstance(given, str) else given


_NAME = f"^{MODEL_NAME}$"

Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""In the environment one text, with commas between."""


class Settings(BaseSettings):
    """Gateway settings; the README's table is made from these descriptions."""

    model_config = SettingsConfigDict(env_prefix="DEPTHLENS_", extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe level logged")
    log_format: Literal["text", "json"] = Field(
        "text", description="log lines for people, or one JSON object each for whatever collects them"
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern="^https?://",
        validation_alias=AliasChoices("otlp_endpoint", "DEPTHLENS_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="`http://host:port` of an OpenTelemetry collector that traces go to (OTLP/HTTP; extra `otel`); "
        "OpenTelemetry's own `OTEL_EXPORTER_OTLP_ENDPOINT` does the same; unset traces nothing",
    )

    triton_url: str | None = Field(
        None,
        description="`host:port` of one Triton gRPC endpoint, or several separated by commas; a name may stand for "
        "several addresses and is looked up again and again; unset starts the embedded server",
    )
    triton_admin: SecretStr | None = Field(
        None,
        description="`name=secret` of the Triton servers' `--grpc-restricted-protocol`, where model control has one; "
        "the embedded server's is known",
    )
    triton_admin_file: Path | None = Field(
        None, description="file with the same, as the containers of compose and Kubernetes share it"
    )
    admin_key_hashes: Words = Field(
        (),
        description="SHA-256 of the keys that open `/admin`, separated by commas (`depthlens keys new` makes them); "
        "unset: there are no such routes",
    )
    model_repository: Path = Field(
        Path("model_repository"), description="model repository of the embedded server, relative to where it starts"
    )
    openvino_cache: Path | None = Field(
        None, description="folder for compiled networks; unset compiles anew, a matter of a second for the shipped one"
    )
    depth_model: str = Field(
        "focus_on_depth", pattern=_NAME, description="model behind `POST /depth` when none is named"
    )
    segmentation_model: str = Field(
        "focus_on_depth",
        pattern=_NAME,
        description="model behind `POST /segmentation` when none is named",
    )
    focus_model: str = Field("focus", pattern=_NAME, description="model behind `POST /focus` when none is named")

    max_body_bytes: PositiveInt = Field(64 * 2**20, description="largest request body in bytes")
    max_pixels: PositiveInt = Field(50_000_000, description="largest photo in pixels, checked before decoding")
    max_side_px: PositiveInt = Field(65_535, description="longest side of a photo in pixels")
    max_points: PositiveInt = Field(1_000, description="most points in one `points=` query")

    max_batch_images: PositiveInt = Field(16, description="most photos in one `POST /batch`")
    max_batch_bytes: PositiveInt = Field(
        256 * 2**20,
        description="bytes of all files that answer one `POST /batch`; photos beyond it have a 413 in its report",
    )

    header_timeout_s: PositiveFloat = Field(
        8.0, description="time for a request's headers to arrive, from the connection or their first byte, in seconds"
    )
    body_grace_s: PositiveFloat = Field(
        8.0, description="how long a body or an answer may stall, or move too slowly, before it is cut, in seconds"
    )
    min_body_bytes_per_s: PositiveInt = Field(240, description="slowest body or answer, in bytes per second")
    max_connections: PositiveInt = Field(
        4096, description="open connections; beyond it one without a request gives way, or the new one gets 503"
    )

    request_timeout_s: PositiveFloat = Field(30.0, description="deadline of a request that names none, in seconds")
    max_request_timeout_s: PositiveFloat = Field(120.0, description="cap on the `X-Request-Timeout` header, in seconds")
    max_upload_bytes: PositiveInt = Field(
        512 * 2**20, description="memory for all request bodies together, in bytes; beyond it 503"
    )
    max_inflight: PositiveInt = Field(4, description="requests worked on at once; each may hold a decoded photo")
    max_waiting: int = Field(
        64,
        ge=0,
        description="requests allowed to wait for a place, beyond it 503 at once; of one client no more than there are "
        "places left, beyond it 429",
    )
    max_wait_s: PositiveFloat = Field(
        5.0,
        description="longest wait for a place, in seconds; 503 at once when a longer one is predicted",
    )
    max_streams: PositiveInt = Field(
        32,
        description="open frame streams, beyond it 503; of one client no more than places are left, beyond it 429",
    )
    max_frame_bytes: PositiveInt = Field(16 * 2**20, description="largest message on a stream in bytes; beyond it 1009")
    stream_idle_s: PositiveFloat = Field(
        60.0, description="how long a stream may bring no frame, or leave an answer unread, in seconds"
    )
    stream_origins: Words = Field(
        (),
        description="origins, separated by commas, whose pages may open streams beside the service's own; `*`: any",
    )
    rate_limit_per_s: PositiveFloat | None = Field(
        None, description="requests a second of one client, with 5 seconds' worth at once; beyond it 429"
    )
    api_key_hashes: Words = Field(
        (),
        description="SHA-256 of the keys that open the service, separated by commas (`depthlens keys new` makes them); "
        "unset locks nothing",
    )
    trusted_proxies: Words = Field(
        (),
        description="addresses and networks, separated by commas, whose `X-Forwarded-For` says who the client is",
    )
    worker_threads: PositiveInt = Field(2, description="threads that render, encode, and decode small ordinary photos")
    decode_workers: PositiveInt = Field(
        2, description="processes that decode all but small ordinary files; one that dies is started again"
    )
    decode_memory_bytes: PositiveInt = Field(
        2**30, description="memory that decoding one file may take in such a process, in bytes; beyond it 422"
    )
    decode_cpu_s: PositiveFloat = Field(
        10.0, description="processor time that decoding one file may take in such a process, in seconds; beyond it 422"
    )
    cache_bytes: int = Field(
        512 * 2**20,
        ge=0,
        description="memory for decoded photos, network outputs and prepared scenes (7 bytes per pixel "
        "and 1 more per person: the default keeps photos of 33 megapixels and more ready); 0 switches off",
    )
    cache_age_s: PositiveFloat = Field(600.0, description="longest life of a cached result, in seconds")
    scene_age_s: PositiveFloat = Field(
        300.0,
        description="how long `scene=` can be asked for after its last use, in seconds; less when memory runs out",
    )
    max_rack_pixels: PositiveInt = Field(
        12_000_000,
        description="pixels of all frames of one focus pull together; larger ones are reduced "
        "(24 frames: half a megapixel each)",
    )
    canary_period_s: PositiveFloat = Field(1.0, description="time between readiness inferences, in seconds")
    drain_s: float = Field(
        0.0, ge=0, description="how long readiness answers 503 on SIGTERM before the listener closes, in seconds"
    )
    shutdown_timeout_s: PositiveFloat = Field(20.0, description="time for requests in flight to end on SIGTERM")

    @field_validator("depth_model", "segmentation_model", "focus_model")
    @classmethod
    def _model(cls, given: str, info: ValidationInfo) -> str:
        task = str(info.field_name).removesuffix("_model")
        if given in MODELS and task not in MODELS[given].tasks:
            raise ValueError(f"{given} does not do {task}")
        return given

    @field_validator("triton_admin")
    @classmethod
    def _metadata(cls, given: SecretStr | None) -> SecretStr | None:
        if given is not None:
            metadata(given.get_secret_value())
        return given

    @field_validator("triton_url")
    @classmethod
    def _addresses(cls, given: str | None) -> str | None:
        if given is not None:
            parse_list(given)
        return given

    @field_validator("api_key_hashes", "admin_key_hashes")
    @classmethod
    def _hashes(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        Keys(given)
        return given

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for network in given:
            ip_network(network)
        return given
