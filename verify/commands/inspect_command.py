"""`nabij replay --inspect`: the mapping on standard output, what it is worth on standard error."""

from pathlib import Path
from typing import Any

import msgspec
import typer

from broker.errors import ConfigError
from broker.runtime.config import Settings
from nabij.local.policy_file import policy_text
from nabij.output import Progress, print_json, say
from schemas.taxonomy import PolicyFile
from verify.datasets.proposal import Proposal, propose
from verify.datasets.report_stream import StreamError
from verify.datasets.rows import OnBytes


def run_inspect(settings: Settings, file: Path, *, as_json: bool) -> bool:
    """Propose a mapping for `file`; return whether some of its rows could be replayed with it.

    Raises:
        ConfigError: the file cannot be read.
    """
    policy = msgspec.toml.decode(policy_text(settings.policy), type=PolicyFile)
    try:
        with Progress("looking") as progress:

            def phase(what: str) -> OnBytes:
                progress.describe(what)
                return progress.at

            proposal = propose(file, sorted(policy.categories), phase)
    except StreamError as error:
        raise ConfigError([str(error)]) from None
    if as_json:
        print_json(_as_dict(proposal))
    else:
        typer.echo(proposal.toml, nl=False)
    _tell(proposal)
    return proposal.is_whole


def _tell(proposal: Proposal) -> None:
    if stream := proposal.stream:
        say(f"{stream.usable:,} of {stream.rows:,} rows could be replayed with this mapping")
        for line in (*stream.losses(), *stream.remarks):
            say(f"  {line}")
    for remark in proposal.remarks:
        say(f"check: {remark}")


def _as_dict(proposal: Proposal) -> dict[str, Any]:
    stream, layout = proposal.stream, proposal.table.layout
    return {
        "mapping": proposal.toml,
        "encoding": layout.encoding,
        "delimiter": layout.delimiter,
        "columns": list(proposal.table.header),
        "rows": stream.rows if stream else proposal.table.total,
        "usable": stream.usable if stream else 0,
        "unmapped": dict(stream.unmapped) if stream else {},
        "skipped": list(stream.skipped) if stream else [],
        "remarks": [*(stream.remarks if stream else ()), *proposal.remarks],
    }
