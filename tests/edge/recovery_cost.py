"""How long our own MQTT broker takes to recover from a journal, and with how much memory.

python -m tests.edge.recovery_cost --messages 1000000 --bytes 100 --acknowledged 0.9
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from tests.edge.edge_program import EdgeProgram, write_journal


def cost(sessions: int, messages: int, payload_bytes: int, acknowledged: float) -> dict[str, float]:
    """Write a journal, recover from it, and return what it took."""
    with tempfile.TemporaryDirectory() as directory:
        program = EdgeProgram(Path(directory))
        empty_cpu_s = program.start()
        empty_mb = program.memory_mb()
        program.kill()
        payload = b"x" * payload_bytes
        write_journal(
            program.journal,
            sessions=sessions,
            messages=messages,
            payload=payload,
            acknowledged=int(messages * acknowledged),
        )
        journal_mb = sum(one.stat().st_size for one in program.journal.iterdir()) / 1e6
        began = time.monotonic()
        cpu_s = program.start()
        recovers_s = time.monotonic() - began
        memory_mb = program.memory_mb()
        program.kill()
    return {
        "sessions": sessions,
        "messages": messages,
        "journal_mb": round(journal_mb, 1),
        "recovers_s": round(recovers_s, 2),
        "cpu_s": round(cpu_s, 2),
        "empty_cpu_s": round(empty_cpu_s, 2),
        "memory_mb": round(memory_mb, 1),
        "empty_mb": round(empty_mb, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--bytes", type=int, default=300)
    parser.add_argument("--acknowledged", type=float, default=0.0, help="share of the messages")
    given = parser.parse_args()
    print(json.dumps(cost(given.sessions, given.messages, given.bytes, given.acknowledged)))  # noqa: T201
