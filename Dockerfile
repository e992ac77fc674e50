# --build-arg BASE=… selects another image: any that has Python 3.11 or later as `python3`, its venv module and timezones.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build

# There are two environments. The first has pip; only the second is copied into the image, so the image has no pip.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv

# Install only wheels, so that no compiler is needed, and only those whose hashes are in the lock file. Behind a
# company's proxy, pass pip's settings with --secret id=pip.conf,src=… and --secret id=ca.crt,src=…; neither stays in
# the image.
COPY requirements.lock /tmp/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt,target=/run/secrets/ca.crt \
    /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --only-binary=:all: --require-hashes --requirement /tmp/requirements.lock

COPY common /app/common
COPY stages /app/stages
COPY supervisord.conf /app/
# Compile now: the image's user cannot write to /app, so Python would compile everything again at each start.
RUN /opt/venv/bin/python -m compileall -q /app


FROM ${BASE}

# The user and group ids are fixed, because the files on the volume belong to them.
RUN groupadd --gid 10001 processor \
    && useradd --uid 10001 --gid processor --no-create-home --home-dir /app --shell /usr/sbin/nologin processor \
    && install --directory --owner=processor --group=processor --mode=0700 /app/data

COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app

# The version must be that of common.__version__; tests/deploy/test_image.py compares them.
LABEL org.opencontainers.image.title="AI Task Processor" \
      org.opencontainers.image.description="Embeds the pending AI tasks of a NestJS application: loses no task, exceeds no quota, and pays twice only for what an embedder had in flight when it was killed." \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.licenses="Apache-2.0"

# PYTHONPATH is needed: supervisord loads its plug-in, stages.supervisord_plugin, before it changes to any folder.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    STATE_DIR=/app/data \
    METRICS_PORT=8001

WORKDIR /app
USER 10001:10001
VOLUME /app/data
EXPOSE 8001

# This uses http.client because urllib would use a proxy from the environment, even for 127.0.0.1.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('METRICS_PORT') or 8001), timeout=4); c.request('GET', '/health'); sys.exit(c.getresponse().status != 200)"]

# SIGTERM drains the service. Use --stop-timeout 160 (docs/deployment.md says why). If the container is killed earlier,
# nothing is lost, but the batches that were at a provider are paid twice.
STOPSIGNAL SIGTERM
CMD ["supervisord", "-c", "supervisord.conf"]
