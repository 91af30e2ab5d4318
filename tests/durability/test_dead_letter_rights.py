"""Who may replay or drop a dead letter: an operator, who has Redis' password; not who sends messages."""

from uuid import uuid4

from broker.runtime.dead_letters import REPLAY
from broker.store import DeadLetter
from schemas.ids import new_id
from tests.durability.conftest import nabij, printed
from tests.durability.test_dead_letters import letter
from tests.services.client import Client
from tests.services.system import Servers, System, a_presence, a_report, running

ESC = "\x1b[2J\x1b]0;all is well\x07\x9b31m\u202e"


async def claim_replay(system: System, client: Client, word: str) -> None:
    """Send what works, and what does not, as if each were a dead letter replayed."""
    marked = ((REPLAY, word),)
    good, bad = a_report(system.place()), {"id": str(new_id())}
    for topic, payload in (
        ("report", good),
        ("message", bad),
        ("presence", a_presence(system.place())),
    ):
        await client.ask(
            f"u/{client.name}/up/{topic}",
            payload,
            user_properties=marked,
            response_topic=f"u/{client.name}/down/receipt",
        )


async def test_nobody_drops_a_dead_letter_by_a_property_of_a_message(servers: Servers) -> None:
    async with running(servers) as system:
        bob = await system.connect("bob")
        kept = letter(0)
        letters = system.store.dead_letters
        await letters.keep(kept)
        token = await letters.allow_replay(uuid4())  # of another one

        for word in (str(kept.id), kept.id.hex, "0" * 32, "", "*", token):
            await claim_replay(system, bob, word)

        assert [one.id for one in await letters.all()] == [kept.id]


async def test_a_secret_of_a_replay_is_good_for_its_dead_letter_and_once(
    servers: Servers,
) -> None:
    async with running(servers) as system:
        bob = await system.connect("bob")
        letters = system.store.dead_letters
        first, other = letter(0), letter(1)
        await letters.keep(first)
        await letters.keep(other)
        token = await letters.allow_replay(first.id)
        assert token != await letters.allow_replay(first.id)

        await claim_replay(system, bob, token)
        assert [one.id for one in await letters.all()] == [other.id]

        again: DeadLetter = letter(2, id=first.id)
        await letters.keep(again)
        await claim_replay(system, bob, token)
        assert {one.id for one in await letters.all()} == {other.id, again.id}


async def test_what_a_stranger_wrote_does_not_steer_the_operators_terminal(
    servers: Servers,
) -> None:
    async with running(servers) as system:
        kept = letter(
            0,
            topic=f"nabij/v1/u/Ann{ESC}/up/report",
            reason=f"No. {ESC}\nid: forged",
            field=f"$.{ESC}",
            payload=f"{ESC}\nreason: forged".encode(),
        )
        await system.store.dead_letters.keep(kept)
        for words in (["list"], ["show", str(kept.id)]):
            for option in ([], ["--json"]):
                status, text = await printed(system, "dead-letters", *words, *option)
                assert status == 0
                assert str(kept.id) in text
                assert text.replace("\n", "").isprintable(), ascii(text)
        _, text = await printed(system, "dead-letters", "show", str(kept.id))
        assert [line for line in text.splitlines() if line.startswith("id: ")] == [f"id: {kept.id}"]
        assert r"\x1b[2J" in text
        assert "replay_of" not in text  # it is none
        _, whole = await nabij(system, "dead-letters", "show", str(kept.id))
        assert whole["payload"].encode() == kept.payload  # for machines nothing is lost
