"""A raw answer as it is kept: scrubbed of secrets and addresses, compressed. Pure."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence

from netatmo_ingestd.models import Answer, whole_seconds
from netatmo_ingestd.polls import Poll, Problem, Reply
from netatmo_ingestd.sources.reading import scrub, without_addresses


def raw_answer(reply: Reply, poll: Poll, problems: Sequence[Problem], *, keep: bool) -> Answer:
    """`keep`: beside the newest one, until a version that understands it has replayed it."""
    try:
        scrubbed = scrub(reply.body, poll.endpoint.secrets)
        raw = json.dumps(scrubbed, ensure_ascii=True, separators=(",", ":"))
    except RecursionError:
        raw = without_addresses(reply.raw.decode("utf-8", "replace"))
    key = "|".join(part for part in (poll.account, poll.entity_id) if part)
    return Answer(
        account=poll.account,
        endpoint=poll.endpoint.name,
        key=key,
        time=whole_seconds(reply.time_server),
        keep=keep,
        problems=[str(problem) for problem in problems[:50]],
        body=zlib.compress(raw.encode(), 6),
    )
