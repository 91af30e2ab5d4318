"""After an upgrade: services on what an older release has stored."""

import json
from datetime import UTC, datetime

import pytest
import redis

from tests.services.client import Connect
from tests.services.system import Servers, ago, running
from tests.store.test_split_conversations import HERS, HIS, WE_COME, fill_as_version_2

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_reporters_who_were_one_group_for_the_police_alone_hear_each_other_no_more(
    servers: Servers, connect: Connect
) -> None:
    if servers.partitions > 1:
        pytest.skip("what is stored here is of one partition")
    before = ago(days=1)
    with redis.Redis.from_url(servers.redis_url) as client:
        incident, his = fill_as_version_2(client, now=datetime.now(UTC), users=("ann", "bob"))
    known_as = str(incident.id)
    async with running(servers) as system:
        zoe, mallory, desk = [await connect(one) for one in ("ann", "bob", "desk-gent")]
        await desk.mqtt.subscribe("nabij/v1/police/gent/#", qos=1)

        told = await system.say(mallory, known_as, "Open the door")
        assert told["outcome"] == "accepted"
        assert told["incident"] == str(incident.conversation_of(his))
        said = await desk.expect("police/gent/escalation/", kind="said", text="Open the door")
        assert (said["incident"], said["report"]) == (known_as, str(his.id))
        assert (await system.say(zoe, known_as, "He knocks"))["incident"] == known_as
        await desk.expect("police/gent/escalation/", kind="said", text="He knocks")
        await system.command(desk, "inform", known_as, text="Two minutes.")
        for one in (zoe, mallory):
            await one.expect(f"u/{one.name}/down/group", text="Two minutes.", members=1)
            await one.ask(f"u/{one.name}/up/sync", {"since": before})
        heard_by = [json.dumps([m.payload for m in one.received]) for one in (zoe, mallory)]

    assert HIS not in heard_by[0]
    assert "Open the door" not in heard_by[0]
    assert HERS not in heard_by[1]
    assert "He knocks" not in heard_by[1]
    assert all(WE_COME in heard for heard in heard_by)
