# syntax=docker/dockerfile:1
# All commands of autopush in one image. By default it is the standalone service:
#   docker build -t autopush . && docker run -v push:/data -p 8080:8080 autopush
# The target "daemons" is a node of a cluster, a connection node if nothing else is named:
#   docker build --target daemons -t autopush-daemons . && docker run autopush-daemons autoendpoint
# Configuration: environment variables, or files mounted to /etc/autopush_*.ini.

FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/autopush
COPY requirements.txt ./
RUN /opt/autopush/bin/pip install --no-cache-dir --no-deps -r requirements.txt
COPY setup.py pyproject.toml MANIFEST.in README.md CHANGELOG.md LICENSE ./
COPY autopush autopush
COPY automock automock
RUN /opt/autopush/bin/pip install --no-cache-dir --no-deps .

FROM python:3.13-slim AS commands
COPY --from=build /opt/autopush /opt/autopush
COPY maintenance.py /opt/autopush/
# The standalone service keeps its database and keys in /data; the daemons keep nothing.
RUN install -d -o 10001 -g 10001 -m 0700 /data
ENV PATH=/opt/autopush/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DATA_DIR=/data \
    LISTEN_HOST=0.0.0.0
# A version.json put here is what /__version__ answers.
WORKDIR /app
USER 10001:10001
VOLUME /data

# 8080 user agents, 8081 other nodes, 8082 application servers
FROM commands AS daemons
EXPOSE 8080 8081 8082
CMD ["autopush"]

FROM commands AS standalone
EXPOSE 8080
CMD ["autopush_standalone"]
