"""A WebSocket server that sends each message back, and closes with what it is told to."""

import asyncio
import os

import websockets


async def echo(socket):
    async for message in socket:
        if isinstance(message, str) and message.startswith("close "):
            _, code, reason = message.split(" ", 2)
            await socket.close(int(code), reason)
            return
        await socket.send(message)


async def main():
    options = {"subprotocols": ["echo.v2", "echo.v1"], "max_size": 8 << 20}
    async with websockets.serve(echo, "127.0.0.1", int(os.environ["PORT"]), **options) as server:
        await server.serve_forever()


asyncio.run(main())
