"""The environment of a worker process: our own, with the settings as they turned out to be."""

import os

from broker.runtime.config import Settings


def worker_environment(settings: Settings) -> dict[str, str]:
    """Return our environment, with these settings in the place of those that we were given."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("NABIJ_")}
    return kept | _as_environment(settings)


def _as_environment(settings: Settings) -> dict[str, str]:
    values = {
        "NABIJ_MQTT_URL": settings.mqtt_url,
        "NABIJ_REDIS_URL": settings.redis_url,
        "NABIJ_PARTITIONS": settings.partitions,
        "NABIJ_UNSAFE_REDIS": int(settings.unsafe_redis),
        "NABIJ_SHARE_GROUP": settings.share_group,
        "NABIJ_DATA_DIR": settings.data_dir.absolute(),
        "NABIJ_POLICY": settings.policy and settings.policy.absolute(),
        "NABIJ_LOG_LEVEL": settings.log_level,
        "NABIJ_LOG_FORMAT": settings.log_format,
        "NABIJ_INSTANCE": settings.instance,
    }
    return {name: str(value) for name, value in values.items() if value is not None}
