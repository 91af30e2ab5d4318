"""What clients do in the random sequences, as Hypothesis draws it."""

from hypothesis import strategies as st
from mqtt5 import RetainHandling

from tests.edge.differential_clients import QOS

TOPICS = ("a", "a/b", "a/b/c", "b", "/a", "a/", "$own/a")
FILTERS = ("#", "a", "a/#", "a/+", "+", "+/b", "a/b/c", "+/+", "/#", "$own/#", "$own/+", "a/+/c")
CLIENTS = tuple(f"client-{number}" for number in range(5))
JOBS = ("job/1", "job/2")
SHARED = ("$share/g/job/+", "$share/h/job/#", "$share/g/job/1")
NARROWER = {"#": "a/#", "+/+": "a/+"}  # which do not match jobs: those come of shares alone
KEPT_S = 1000
LARGE = b"." * 400
SMALL_PACKET = 300
MAX_WINDOW = 65535

OPTIONS_OF_311 = {
    "no_local": False,
    "retain_as_published": False,
    "retain_handling": RetainHandling.SEND_ALWAYS,
}

topics = st.sampled_from(TOPICS)
qualities = st.sampled_from(QOS)
whom = st.integers(0, len(CLIENTS) - 1)
windows = st.sampled_from([MAX_WINDOW, MAX_WINDOW, MAX_WINDOW, 1, 2])
max_packets = st.sampled_from([None, None, None, SMALL_PACKET])
rarely = st.sampled_from([False, False, False, True])
properties = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {},
        optional={
            "payload_format_indicator": st.just(1),
            "message_expiry_interval": st.just(KEPT_S),
            "content_type": st.just("text/plain"),
            "response_topic": st.just("re/ply"),
            "correlation_data": st.just(b"\0\1"),
            "user_properties": st.just([("k", "v"), ("k", "w"), ("", "")]),
        },
    ),
)
wills = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {"topic": topics, "qos": qualities, "retain": st.booleans(), "properties": properties}
    ),
)
publications = st.fixed_dictionaries(
    {
        "topic": topics,
        "qos": qualities,
        "retain": st.booleans(),
        "is_empty": rarely,
        "is_large": rarely,
        "properties": properties,
        "alias": st.sampled_from([None, None, None, 1, 2]),
    }
)
subscriptions = st.lists(
    st.fixed_dictionaries(
        {
            "pattern": st.sampled_from(FILTERS),
            "max_qos": qualities,
            "no_local": rarely,
            "retain_as_published": st.booleans(),
            "retain_handling": st.sampled_from(
                [
                    RetainHandling.SEND_ALWAYS,
                    RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS,
                    RetainHandling.SEND_NEVER,
                ]
            ),
        }
    ),
    min_size=1,
    max_size=3,
)
