# The base is an argument, so that a mirror or a digest can be named: --build-arg BASE=...
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# Dependencies first: this layer changes only when the pins do.
COPY requirements/run.txt requirements/build.txt requirements/
RUN python -m venv /opt/gatekeeper \
 && /opt/gatekeeper/bin/python -m pip install --require-hashes -r requirements/run.txt \
 && python -m venv /opt/build \
 && /opt/build/bin/python -m pip install --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY gatekeeper gatekeeper
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && /opt/gatekeeper/bin/python -m pip install --no-deps --no-index /dist/*.whl

FROM ${BASE}
RUN useradd --system --uid 10001 --no-create-home gatekeeper \
 && install --directory --owner 10001 --mode 0700 /var/lib/gatekeeper
COPY --from=build /opt/gatekeeper /opt/gatekeeper
WORKDIR /gatekeeper
COPY rules rules
COPY geoip geoip
# Inside a container loopback reaches nobody; which ports are open is decided outside.
ENV PATH=/opt/gatekeeper/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GATEKEEPER_DATA_DIR=/var/lib/gatekeeper \
    GATEKEEPER_DECISION_LOG__DIRECTORY=/var/lib/gatekeeper/decisions \
    GATEKEEPER_LISTENERS__0__HOST=0.0.0.0 \
    GATEKEEPER_OPS__HOST=0.0.0.0
USER 10001
VOLUME /var/lib/gatekeeper
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('GATEKEEPER_OPS__PORT', '9090') + '/healthz', timeout=2)"]
ENTRYPOINT ["gatekeeper"]
CMD ["serve"]
