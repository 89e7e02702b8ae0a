# The gateway alone: HTTP in, gRPC to a Triton elsewhere. No torch, no compilers, no weights.
#
#   docker build -f docker/gateway.Dockerfile -t depthlens-gateway .
#
# A stage per thing that changes at its own pace: a change of source reuses the dependencies, a change of
# pyproject.toml reuses them too unless it touches the dependencies themselves.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS requirements
WORKDIR /build
COPY docker/requirements.py pyproject.toml ./
RUN python requirements.py otel

FROM ${BASE} AS dependencies
RUN python -m venv --without-pip /opt/venv
COPY --from=requirements /build/requirements.txt /build/
RUN python -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
      -r /build/requirements.txt

FROM ${BASE} AS wheel
WORKDIR /build
RUN python -m venv --without-pip /opt/venv && python -m venv /opt/build
COPY --from=requirements /build/build-requirements.txt ./
RUN /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check -r build-requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY training training
RUN /opt/build/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir dist . \
 && /opt/build/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --prefix /opt/package dist/*.whl

FROM ${BASE}
RUN groupadd --gid 10001 depthlens \
 && useradd --uid 10001 --gid depthlens --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin depthlens
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=wheel /opt/package /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DEPTHLENS_HOST=0.0.0.0 \
    DEPTHLENS_PORT=8080 \
    DEPTHLENS_TRITON_URL=triton:8001
WORKDIR /opt/depthlens
USER 10001:10001
EXPOSE 8080
# Readiness, so that "healthy" means: a photo would be answered now. http.client and not urllib, which would send
# the probe through a proxy named in the environment.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python", "-Ic", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['DEPTHLENS_PORT']), timeout=2); c.request('GET', '/health/ready'); sys.exit(c.getresponse().status != 200)"]
CMD ["depthlens", "serve"]

ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="depthlens-gateway" \
      org.opencontainers.image.description="REST gateway: depth maps, person mattes and refocused photos" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
