"""Everything hostile at once against one port: ``python loopback_attackers.py PORT``, until it is killed."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in b"GET / HTTP/1.1\r\nX: " + b"y" * 10_000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def send_huge_headers(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET / HTTP/1.1\r\n")
    while True:
        writer.write(b"X: " + b"y" * 60_000 + b"\r\n")
        await writer.drain()


async def send_garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x16\x03\x01" + os.urandom(400))
    await reader.read()


def ask(target: str, host: str = "localhost") -> Attack:
    async def attack(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("peername")[1]
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        await reader.read()
        await asyncio.sleep(0.01)

    return attack


ATTACKS: list[tuple[int, Attack]] = [
    (200, say_nothing),
    (40, drip),
    (5, send_huge_headers),
    (5, send_garbage),
    (5, ask("/servers/callback?code=x&state=" + "z" * 43)),
    (5, ask("/servers/callback?error=access_denied&state=" + "z" * 43)),
    (5, ask("/servers/callback?code=x&state=" + "z" * 43, host="evil.example")),
    (5, ask("/start/" + "a" * 43)),
]


async def keep_on(port: int, address: str, attack: Attack) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection(address, port)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        try:
            await attack(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()


async def attack_all(port: int) -> None:
    attacks = [attack for count, attack in ATTACKS for _ in range(count)]
    addresses = ("127.0.0.1", "::1")
    tasks = [
        asyncio.ensure_future(keep_on(port, addresses[number % 2], attack))
        for number, attack in enumerate(attacks)
    ]
    await asyncio.sleep(0.5)
    print("attacking", flush=True)
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(attack_all(int(sys.argv[1])))
