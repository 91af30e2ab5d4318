# One image for every service: `nabij up --service NAME`. See docker-compose.yml.
# It holds what runs in it: all but `bench`, which needs Mosquitto and an extra; and pyproj, for zones
# in projected coordinates, since nothing can be installed into it later.
FROM python:3.12-slim

WORKDIR /app
COPY pyproject.toml README.md LICENSE mosquitto.conf mosquitto.acl ./
COPY schemas schemas
COPY broker broker
COPY services services
COPY devices devices
COPY verify verify
COPY nabij nabij
RUN pip install --no-cache-dir --disable-pip-version-check ".[replay]" \
    && useradd --system --create-home --user-group nabij

USER nabij
WORKDIR /home/nabij
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["nabij"]
CMD ["up"]
