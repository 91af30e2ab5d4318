"""Settings: everything that is wrong at once, and no secret in any text."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ConfigError
from broker.hosts import each_url
from broker.runtime import config
from broker.runtime.config import SETTINGS, load

SECRET = "hunter2-s3cret"
GOOD = {
    "NABIJ_MQTT_URL": f"mqtt://nabij:{SECRET}@broker.example:1883",
    "NABIJ_REDIS_URL": f"rediss://:{SECRET}@redis.example:6379/0",
    "NABIJ_SHARE_GROUP": SECRET,
    "NABIJ_DATA_DIR": "/var/lib/nabij",
    "NABIJ_HTTP": "0.0.0.0:8080",
    "NABIJ_LOG_LEVEL": "DEBUG",
    "NABIJ_LOG_FORMAT": "json",
    "NABIJ_INSTANCE": "host-1",
}


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(environ)
    assert str(refused.value) == "\n".join(refused.value.problems)
    return refused.value.problems


def test_settings_are_read_from_the_environment() -> None:
    settings = load(GOOD)

    assert settings.mqtt_url == GOOD["NABIJ_MQTT_URL"]
    assert settings.redis_url == GOOD["NABIJ_REDIS_URL"]
    assert settings.share_group == SECRET
    assert settings.data_dir == Path("/var/lib/nabij")
    assert settings.http == ("0.0.0.0", 8080)
    assert (settings.log_level, settings.log_format) == ("debug", "json")
    assert settings.instance == "host-1"


def test_nothing_needs_to_be_set_and_an_empty_setting_is_none() -> None:
    assert load({}) == load({setting.name: "" for setting in SETTINGS} | {"PATH": "/bin"})
    assert load({}).mqtt_url is None
    assert load({}).data_dir.name == "nabij"


def test_every_setting_becomes_a_field_and_has_a_meaning() -> None:
    fields = {f"NABIJ_{name.upper()}" for name in config.Settings.__dataclass_fields__}

    assert {setting.name for setting in SETTINGS} == fields
    assert all(len(setting.meaning) > 10 for setting in SETTINGS)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    told = problems(
        {
            "NABIJ_MQTT_URL": "http://broker",
            "NABIJ_MQTT": "emqx",
            "NABIJ_MQTT_PORT": "0",
            "NABIJ_MQTT_LISTEN": "mqtt://0.0.0.0:1883",
            "NABIJ_MQTT_CERTIFICATE": "/no/such/file.crt",
            "NABIJ_MQTT_KEY": "/no/such/file.key",
            "NABIJ_MQTT_METRICS_PORT": "65536",
            "NABIJ_REDIS_URL": "redis:///0",
            "NABIJ_SHARE_GROUP": "$share/#",
            "NABIJ_DATA_DIR": "~nobody-of-that-name/x",
            "NABIJ_POLICY": "/no/such/file.toml",
            "NABIJ_HTTP": "8080",
            "NABIJ_LOG_LEVEL": "loud",
            "NABIJ_LOG_FORMAT": "xml",
            "NABIJ_INSTANCE": "a/b",
            "NABIJ_PARTITIONS": "0",
            "NABIJ_UNSAFE_REDIS": "maybe",
            "NABIJ_MQT_URL": "mqtt://x",
        }
    )

    for setting in SETTINGS:
        assert any(problem.startswith(f"{setting.name}=") for problem in told), setting.name
    assert any("no such file" in problem for problem in told)
    assert "NABIJ_MQT_URL: no such setting; see `nabij doctor`" in told
    assert told[-1].startswith("NABIJ_MQT_URL") or "NABIJ_SHARE_GROUP" in told[-1]


@pytest.mark.parametrize("name", ["NABIJ_REDISURL", "NABIJ_", "NABIJ_mqtt_url", "NABIJ_TEST"])
def test_unknown_setting_is_refused_by_name_and_without_its_value(name: str) -> None:
    assert problems({name: SECRET}) == [f"{name}: no such setting; see `nabij doctor`"]


def test_settings_of_others_and_the_devices_password_are_not_ours_to_judge() -> None:
    load({"HOME": "/root", "NABIJ_DEVICE_PASSWORD": SECRET, "MQTT_URL": "x", "nabij_x": "y"})


def test_urls_may_name_several_servers_and_each_is_looked_at() -> None:
    several = "mqtt://nabij:a,b@one:1883,two:1884"
    settings = load({"NABIJ_MQTT_URL": several, "NABIJ_SHARE_GROUP": "secret"})
    assert settings.mqtt_url == several
    assert each_url(several) == ["mqtt://nabij:a,b@one:1883", "mqtt://nabij:a,b@two:1884"]
    (told,) = problems({"NABIJ_REDIS_URL": "redis://one:7001,two:70000/0"})
    assert told.startswith("NABIJ_REDIS_URL")


@pytest.mark.parametrize("port", ["0", "65536", "99999", "9" * 5000])
@pytest.mark.parametrize("host", ["h", "a:b@h", "a:b@[::1]", "one:1883,two"])
def test_a_port_out_of_range_is_said_to_be_that(host: str, port: str) -> None:
    (told,) = problems({"NABIJ_MQTT_URL": f"mqtt://{host}:{port}", "NABIJ_SHARE_GROUP": "g"})
    assert told.endswith("mqtts://host[:port], and the port is out of range (1 to 65535)")


def test_digits_before_a_slash_in_a_password_are_no_port() -> None:
    (told,) = problems({"NABIJ_MQTT_URL": "mqtt://a:99999/b@h", "NABIJ_SHARE_GROUP": "g"})
    assert told.endswith("and / in a password is written %2F")


@pytest.mark.parametrize("path", ["/x", "/-1", "/0x", "/0/1", "/\u00b2", "/0?db=x"])
def test_the_database_of_redis_must_be_a_number(path: str) -> None:
    (told,) = problems({"NABIJ_REDIS_URL": f"redis://one:7001,two:7002{path}"})
    assert "the database is a number" in told


@pytest.mark.parametrize("path", ["", "/", "/0", "/15", "?protocol=3", "?db=1"])
def test_a_redis_url_may_leave_the_database_out(path: str) -> None:
    url = f"redis://host:6379{path}"
    assert load({"NABIJ_REDIS_URL": url}).redis_url == url


def test_mqtt_url_without_a_share_group_is_refused() -> None:
    (told,) = problems({"NABIJ_MQTT_URL": "mqtt://host"})

    assert told.startswith("NABIJ_SHARE_GROUP: must be set")


@pytest.mark.parametrize(
    "url",
    [
        f"http://u:{SECRET}@h",
        f"mqtt://u:{SECRET}/x@h",
        f"mqtt://u:x@h:{SECRET}",
        f"mqtt:{SECRET}",
        f"mqtt://u:{SECRET}@h:99999",
        f"mqtt://u:{SECRET}@[::1",
        f"mqtt://u:{SECRET}\u2100@h",
        SECRET,
        f"mqtt://:{SECRET}@",
        f"mqtt://u:{SECRET}?#@h",
    ],
)
@pytest.mark.parametrize("name", ["NABIJ_MQTT_URL", "NABIJ_REDIS_URL"])
def test_malformed_url_is_refused_without_a_word_of_it(name: str, url: str) -> None:
    if name == "NABIJ_REDIS_URL":
        url = url.replace("mqtt", "redis")
    told = problems({name: url, "NABIJ_SHARE_GROUP": "g"})

    assert len(told) == 1
    assert told[0].startswith(f"{name}=(hidden): must be ")
    assert "hunter2" not in told[0]


@given(
    url=st.text(max_size=40), scheme=st.sampled_from(["mqtt://", "redis://u:", "", "mqtt://u:p@"])
)
def test_no_text_as_a_url_breaks_the_reading_or_is_repeated(scheme: str, url: str) -> None:
    environ = {"NABIJ_MQTT_URL": f"{scheme}{url}QQ", "NABIJ_SHARE_GROUP": "g"}
    said = ""
    try:
        assert load(environ).mqtt_url == environ["NABIJ_MQTT_URL"]
    except ConfigError as refused:
        said = str(refused)
    assert "QQ" not in said


def test_secrets_are_in_no_text_about_the_settings() -> None:
    settings = load(GOOD)

    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    told = problems(GOOD | {"NABIJ_SHARE_GROUP": f"{SECRET} $", "NABIJ_LOG_LEVEL": "loud"})
    assert SECRET not in "\n".join(told)
    hidden = {setting.name for setting in SETTINGS if setting.hidden_because}
    assert hidden >= {"NABIJ_MQTT_URL", "NABIJ_REDIS_URL", "NABIJ_SHARE_GROUP"}


@pytest.mark.parametrize("text", ["localhost", ":x", "host:", "host:99999", "host:-1", "host:²"])
def test_http_needs_a_host_and_a_port(text: str) -> None:
    (told,) = problems({"NABIJ_HTTP": text})

    assert told.startswith(f"NABIJ_HTTP={text!r}: ")


def test_policy_file_must_exist(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("x = 1")

    assert load({"NABIJ_POLICY": str(policy)}).policy == policy
    assert "no such file" in problems({"NABIJ_POLICY": str(tmp_path)})[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "[::1]", "localhost"])
def test_mqtt_without_tls_may_listen_on_this_machine(host: str) -> None:
    url = f"mqtt://{host}:1884"
    assert load({"NABIJ_MQTT_LISTEN": url}).mqtt_listen == url


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "localhost.example", "a"])
def test_mqtt_without_tls_may_listen_nowhere_else(host: str) -> None:
    (told,) = problems({"NABIJ_MQTT_LISTEN": f"mqtt://{host}:1883"})
    assert "without TLS passwords, reports and places travel in the clear: use mqtts://" in told


@pytest.mark.parametrize(
    "url", ["0.0.0.0:8883", "mqtts://:8883", "mqtts://h", "mqtts://h:0", "mqtts://h:x", "tls://h:1"]
)
@pytest.mark.parametrize("more", ["", "/x", "?x", "#x"])
def test_where_to_listen_is_an_address_and_a_port(url: str, more: str) -> None:
    (told,) = problems({"NABIJ_MQTT_LISTEN": f"{url}{more}"})
    assert told.endswith("must be mqtts://address:port, such as mqtts://0.0.0.0:8883")


@pytest.fixture
def listening(tmp_path: Path) -> dict[str, str]:
    """Settings with which our own MQTT broker listens for devices outside."""
    file = tmp_path / "a.pem"
    file.touch()
    return {
        "NABIJ_MQTT_LISTEN": "mqtts://0.0.0.0:8883",
        "NABIJ_MQTT_CERTIFICATE": str(file),
        "NABIJ_MQTT_KEY": str(file),
    }


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            {"NABIJ_MQTT_URL": "mqtt://h", "NABIJ_SHARE_GROUP": "g", "NABIJ_MQTT_PORT": "1883"},
            "NABIJ_MQTT_PORT, NABIJ_MQTT_LISTEN, NABIJ_MQTT_CERTIFICATE, NABIJ_MQTT_KEY: for an emb",
        ),
        (
            {"NABIJ_MQTT": "mosquitto", "NABIJ_MQTT_PORT": "1883"},
            "NABIJ_MQTT_LISTEN, NABIJ_MQTT_CERTIFICATE, NABIJ_MQTT_KEY: for Nabij's own MQTT broker",
        ),
        ({"NABIJ_MQTT_KEY": ""}, "NABIJ_MQTT_KEY: must be set with NABIJ_MQTT_LISTEN=mqtts://…"),
        ({"NABIJ_MQTT_KEY": "/no/such"}, "NABIJ_MQTT_KEY='/no/such': no such file: /no/such"),
        (
            {"NABIJ_MQTT_LISTEN": ""},
            "NABIJ_MQTT_CERTIFICATE, NABIJ_MQTT_KEY: for NABIJ_MQTT_LISTEN=mqtts://…, which is not",
        ),
        ({"NABIJ_MQTT_PORT": "8883"}, "NABIJ_MQTT_PORT, NABIJ_MQTT_LISTEN: have one port, 8883"),
    ],
)
def test_settings_of_the_mqtt_broker_that_contradict_each_other_are_refused(
    more: dict[str, str], told: str, listening: dict[str, str]
) -> None:
    load(listening)

    (said,) = problems(listening | more)

    assert said.startswith(told)


def test_environment_is_read_nowhere_else_in_the_broker_and_services() -> None:
    root = Path(__file__).parents[1]
    readers = {
        path.relative_to(root).as_posix()
        for folder in ("schemas", "broker", "services")
        for path in (root / folder).rglob("*.py")
        if re.search(r"os\.(environ|getenv)", path.read_text(encoding="utf-8"))
    }

    assert readers <= {
        "broker/runtime/config.py",
        "nabij/local/embedded.py",
        "nabij/local/managed_process.py",
    }, readers
