"""One of several processes that ask for the same limit at once; prints how many were admitted."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from support.limits import claim, quota

from gatekeeper.policy.model import Moment
from gatekeeper.settings import Store
from gatekeeper.storage.limiter_redis import RedisLimiter
from gatekeeper.storage.store_access import StoreAccess, read_access
from gatekeeper.storage.store_line import dial


async def main() -> None:
    """Ask ``calls`` times at ``starts_at``, all at once."""
    order = json.loads(sys.argv[1])
    access = read_access(Store.model_validate_json(json.dumps(order["store"])), {})
    assert isinstance(access, StoreAccess)
    line = await dial(access, 5.0)
    limiter = RedisLimiter(line, access.settings.prefix)
    one = claim(quota(amount=order["burst"], period_s=86_400))
    await asyncio.sleep(max(0.0, order["starts_at"] - time.time()))
    answers = await asyncio.gather(
        *(
            limiter.reserve([one], Moment(0.0, 0), 60.0, f"{order['name']}-{number}")
            for number in range(order["calls"])
        )
    )
    print(sum(answer.held is not None for answer in answers))  # noqa: T201 - its parent reads it
    line.fail("closed")


if __name__ == "__main__":
    asyncio.run(main())
