# One image for all roles: a worker (python -m worker), a generator or master (locust -f loadgen/), a report (python -m capacity).
FROM python:3.11-slim

# Where another build of torch comes from, one with CUDA, say: docker build --build-arg PIP_EXTRA_INDEX_URL=…
ARG PIP_EXTRA_INDEX_URL=
ARG EXTRAS=worker,models,gpu

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY capacity capacity
COPY loadgen loadgen
COPY worker worker
RUN pip install --no-cache-dir -c constraints.txt -e ".[$EXTRAS]" \
    && useradd --uid 10001 --home-dir /data --create-home inferload

USER inferload
# Runs, generators' own logs and models are written here.
WORKDIR /data
ENV PYTHONUNBUFFERED=1
