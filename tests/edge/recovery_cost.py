"""How long our own MQTT broker takes to recover from a journal, and with how much memory.

python -m tests.edge.recovery_cost --sessions 10000 --messages 1000000 --bytes 300
"""

import argparse
import json
import tempfile
from pathlib import Path

from tests.edge.edge_program import EdgeProgram, write_journal


def cost(sessions: int, messages: int, payload_bytes: int) -> dict[str, float]:
    """Write a journal, recover from it, and return what it took."""
    with tempfile.TemporaryDirectory() as directory:
        program = EdgeProgram(Path(directory))
        empty_s = program.start()
        empty_mb = program.memory_mb()
        program.kill()
        payload = b"x" * payload_bytes
        write_journal(program.journal, sessions=sessions, messages=messages, payload=payload)
        journal_mb = sum(one.stat().st_size for one in program.journal.iterdir()) / 1e6
        recovers_s = program.start()
        memory_mb = program.memory_mb()
        program.kill()
    return {
        "sessions": sessions,
        "messages": messages,
        "journal_mb": round(journal_mb, 1),
        "recovers_s": round(recovers_s, 2),
        "empty_s": round(empty_s, 2),
        "memory_mb": round(memory_mb, 1),
        "empty_mb": round(empty_mb, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--bytes", type=int, default=300)
    given = parser.parse_args()
    print(json.dumps(cost(given.sessions, given.messages, given.bytes)))  # noqa: T201
