# syntax=docker/dockerfile:1
# The worker, and the `failback` command beside it. Context: the checkout.

FROM python:3.13-slim-bookworm AS build
WORKDIR /src
# The development lock has the build backend: the wheel is made without asking for anything else.
COPY requirements.lock ./
RUN python -m venv /build \
 && /build/bin/pip install --no-cache-dir --disable-pip-version-check \
      --require-hashes --only-binary :all: -r requirements.lock
COPY requirements-runtime.lock ./
RUN python -m venv /opt/failback \
 && /opt/failback/bin/pip install --no-cache-dir --disable-pip-version-check \
      --require-hashes --only-binary :all: -r requirements-runtime.lock
COPY pyproject.toml LICENSE README.md worker.py ./
COPY activities activities
COPY failback failback
COPY starter starter
COPY workflows workflows
RUN /build/bin/python -m hatchling build -t wheel -d /dist \
 && /opt/failback/bin/pip install --no-cache-dir --disable-pip-version-check \
      --no-index --no-deps /dist/*.whl

FROM python:3.13-slim-bookworm
# nbdkit serves the disks' bytes to the copier; one child process per disk and attempt.
RUN apt-get update \
 && apt-get install -y --no-install-recommends nbdkit \
 && rm -rf /var/lib/apt/lists/*
# A number, so that an orchestrator can tell that it is not root; the lab uses the same one, because
# they share a volume. A new volume takes its owner from the image's folder: catalog and ledgers
# live in it.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/failback failback \
 && install -d -o failback -g failback -m 0700 /var/lib/failback
COPY --from=build /opt/failback /opt/failback
COPY containers/healthcheck.py containers/practice.py /opt/failback/
ENV PATH=/opt/failback/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/failback
# Drains: finishes or hands over what is under way.
STOPSIGNAL SIGTERM
ENTRYPOINT ["failback-worker"]
CMD ["--log-json"]
