# Triton on CPU: the real server of the nvidia-pytriton wheel under its supervisor. The models are a volume.
#
#   docker build -f docker/triton.Dockerfile -t depthlens-triton .
#
# Stages as in gateway.Dockerfile.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS requirements
WORKDIR /build
COPY docker/requirements.py pyproject.toml ./
RUN python requirements.py embedded

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
# Triton's Python stub links against libpython. The official Python image has it; Debian's own Python keeps it in a
# package apart.
# hadolint ignore=DL3008
RUN python -c "import ctypes; ctypes.CDLL('libpython3.11.so.1.0')" \
 || { apt-get update && apt-get install -y --no-install-recommends libpython3.11 && rm -rf /var/lib/apt/lists/*; }
RUN groupadd --gid 10001 depthlens \
 && useradd --uid 10001 --gid depthlens --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin depthlens \
 && install -d -o 10001 -g 10001 /var/cache/depthlens /run/depthlens/triton-admin
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=wheel /opt/package /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
COPY docker/triton_health.py /opt/healthcheck/
# Triton's stub looks for modules in the working directory first: an empty one that nobody in the container can write.
WORKDIR /opt/depthlens
USER 10001:10001
EXPOSE 8000 8001 8002
# Server-ready says nothing about a model whose process died; an inference does.
HEALTHCHECK --interval=5s --timeout=5s --start-period=120s --retries=3 \
  CMD ["python", "-I", "/opt/healthcheck/triton_health.py"]
CMD ["python", "-m", "service.embedded", "--repository", "/models", "--cache", "/var/cache/depthlens", \
     "--admin-file", "/run/depthlens/triton-admin/admin", \
     "--host", "0.0.0.0", "--grpc-port", "8001", "--http-port", "8000", "--metrics-port", "8002"]

ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="depthlens-triton" \
      org.opencontainers.image.description="Triton Inference Server on CPU for the Depthlens model repository" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
