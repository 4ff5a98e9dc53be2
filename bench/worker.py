"""A client process: reads loads as JSON lines, measures them, and answers with JSON lines.

python -m bench.worker CONTENDER TARGET
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from typing import Any

from .clients import Client, connect
from .load import Load
from .loops import Send, measure


async def main(contender: str, target: str) -> None:
    loop = asyncio.get_running_loop()
    client: Client = await connect(contender, target)
    sends: dict[Load, Send] = {}
    print(json.dumps({"ready": contender}), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await answer(client, sends, json.loads(line))), flush=True)
    await client.close()


async def answer(client: Client, sends: dict[Load, Send], job: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures of one load. What it needs (sessions, channels) is made the first time and kept."""
    try:
        load = Load(**job["load"])
        key = Load(**job["load"] | {"rate": 0.0})
        if key not in sends:
            sends[key] = await client.prepare(load)
        return (await measure(sends[key], load, job["seconds"])).json()
    except Exception as error:  # noqa: BLE001  # goes into the table, and the next load is measured anyway
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"[:300]}


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
