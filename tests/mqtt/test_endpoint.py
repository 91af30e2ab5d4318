import ssl

import pytest

from broker.mqtt import Endpoint


def test_a_url_gives_host_port_and_decoded_credentials() -> None:
    endpoint = Endpoint.from_url("mqtt://al%40ice:p%2Fw@broker.example:1999")
    assert (endpoint.host, endpoint.port) == ("broker.example", 1999)
    assert (endpoint.username, endpoint.password) == ("al@ice", "p/w")
    assert endpoint.tls is None


def test_ports_default_by_scheme() -> None:
    assert Endpoint.from_url("mqtt://h").port == 1883
    secure = Endpoint.from_url("mqtts://h/")
    assert secure.port == 8883
    assert isinstance(secure.tls, ssl.SSLContext)


def test_an_ipv6_host_loses_its_brackets() -> None:
    assert Endpoint.from_url("mqtt://[::1]:5").host == "::1"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://h", "starts with mqtt"),
        ("localhost:1883", "starts with mqtt"),
        ("mqtt://", "no host"),
        ("mqtt://h:99999", "not a number from"),
        ("mqtt://h:0", "not a number from"),
        ("mqtt://u:secret@h:port", "not a number from"),
        ("mqtt://u:secret@h/path", "ends after the port"),
        ("mqtt://u:secret@h?x=1", "ends after the port"),
        ("mqtt://u:secret@[h", "cannot be parsed"),
    ],
)
def test_a_bad_url_is_refused_in_words_that_hold_no_password(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as refused:
        Endpoint.from_url(url)
    assert "secret" not in str(refused.value)


def test_the_password_never_shows() -> None:
    assert "secret" not in repr(Endpoint.from_url("mqtt://u:secret@h"))
