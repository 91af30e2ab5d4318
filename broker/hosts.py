"""URLs that name several hosts, such as those of a cluster or of several MQTT brokers."""


def each_url(url: str) -> list[str]:
    """Return a URL for each host in `url`, which separates them by commas."""
    scheme, separator, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    if "," not in place:
        return [url]
    login, at, hosts = place.rpartition("@")
    return [f"{scheme}{separator}{login}{at}{host}{slash}{path}" for host in hosts.split(",")]
