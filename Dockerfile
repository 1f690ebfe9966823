# The base is an argument, so that a mirror or a digest can be named:
#   docker build --build-arg BASE=registry.example.com/python@sha256:... .
# `make image` builds with the engine that is there, and tests what it built.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
# tracing.txt is run.txt and the exporter of traces; run.txt leaves that out, and exact-tokens.txt
# adds the exact tokenizer, stix.txt the STIX bundles of reports.
ARG REQUIREMENTS=tracing.txt
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# Dependencies first: this layer changes only when the pins do. What ships has no pip.
COPY requirements/build.txt requirements/${REQUIREMENTS} requirements/
RUN python -m venv /opt/build \
 && /opt/build/bin/python -m pip install --require-hashes -r requirements/build.txt \
 && python -m venv --without-pip /opt/gatekeeper \
 && /opt/build/bin/python -m pip --python /opt/gatekeeper/bin/python install \
      --require-hashes --only-binary :all: -r "requirements/${REQUIREMENTS}"
COPY pyproject.toml README.md LICENSE ./
COPY gatekeeper gatekeeper
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && /opt/build/bin/python -m pip --python /opt/gatekeeper/bin/python install \
      --no-deps --no-index /dist/*.whl \
 && find /opt/gatekeeper -type d -name tests -prune -exec rm -r {} + \
 && find /opt/gatekeeper -type f \( -name '*.[ch]' -o -name '*.py[xi]' -o -name '*.pxd' \) -delete

FROM ${BASE}
RUN groupadd --gid 10001 gatekeeper \
 && useradd --uid 10001 --gid 10001 --no-create-home --no-log-init --shell /usr/sbin/nologin gatekeeper \
 && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/gatekeeper
COPY --from=build /opt/gatekeeper /opt/gatekeeper
WORKDIR /gatekeeper
COPY rules rules
COPY geoip geoip
# Inside a container loopback reaches nobody; which ports are open is decided outside.
ENV PATH=/opt/gatekeeper/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEKEEPER_DATA_DIR=/var/lib/gatekeeper \
    GATEKEEPER_DECISION_LOG__DIRECTORY=/var/lib/gatekeeper/decisions \
    GATEKEEPER_LISTENERS__0__HOST=0.0.0.0 \
    GATEKEEPER_OPS__HOST=0.0.0.0
USER 10001:10001
VOLUME /var/lib/gatekeeper
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('GATEKEEPER_OPS__PORT', '9090') + '/healthz', timeout=2)"]
ENTRYPOINT ["gatekeeper"]
CMD ["serve"]
