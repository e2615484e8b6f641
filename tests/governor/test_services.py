"""What the governor runs beside its loop."""

import asyncio

from recyclery.governor.__main__ import start_service


def test_a_service_is_held_until_it_ends_and_no_longer() -> None:
    async def run() -> tuple[int, int]:
        services: set[asyncio.Task[None]] = set()
        ended = asyncio.Event()

        async def work() -> None:
            await ended.wait()

        tasks = [start_service(services, work()) for _ in range(3)]
        held = len(services)
        ended.set()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0)
        return held, len(services)

    assert asyncio.run(run()) == (3, 0)
