"""The connections below the dendrite: kept for the next call, and closed when there is none."""

import asyncio
from contextlib import asynccontextmanager

import httpx

from tensorage.transport.backend import Transport


class Server:
    """Answers every request with "ok"; counts the connections that were made, and those that ended."""

    def __init__(self):
        self.made = 0
        self.ended = asyncio.Event()

    async def serve(self, reader, writer):
        self.made += 1
        try:
            while await reader.readline():
                while (await reader.readline()).strip():
                    pass
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        finally:
            self.ended.set()
            writer.close()


@asynccontextmanager
async def serving():
    state = Server()
    server = await asyncio.start_server(state.serve, "127.0.0.1", 0)
    async with server:
        yield state, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


def client(expiry: float) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=8, max_keepalive_connections=4, keepalive_expiry=expiry)
    return httpx.AsyncClient(transport=Transport(limits))


async def test_calls_to_one_peer_use_one_connection_whoever_is_called_between():
    async with serving() as (one, here), serving() as (other, there), client(5.0) as http:
        for _ in range(5):
            assert (await http.get(here)).text == (await http.get(there)).text == "ok"
        assert (one.made, other.made) == (1, 1)


async def test_the_connection_to_a_peer_that_is_called_no_more_is_closed():
    async with serving() as (one, here), serving() as (other, there), client(0.1) as http:
        await http.get(here)
        await asyncio.sleep(0.2)
        assert not one.ended.is_set()
        await http.get(there)
        await asyncio.wait_for(one.ended.wait(), 10)
        assert not other.ended.is_set()


async def test_closing_the_client_closes_the_connections_to_all_peers():
    async with serving() as (one, here), serving() as (other, there):
        async with client(5.0) as http:
            await http.get(here)
            await http.get(there)
        await asyncio.wait_for(asyncio.gather(one.ended.wait(), other.ended.wait()), 10)
