"""What crowds take from the server: no descriptors, no lines in the log, no memory, and no time of others."""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import ssl
from pathlib import Path

import pytest
from dataset_market import OWNER_TOKEN, open_shop, told
from test_dataset_publish import make_certificate

from tensorage.dataset.server.door import SPARE_EACH
from tensorage.transport.limits import Limits

V1 = bytes(range(256)) * 20


async def test_silent_connections_of_one_address_are_closed_before_the_handshake(tmp_path: Path) -> None:
    limits = Limits(connections_per_address=4)
    async with open_shop(tmp_path, V1, limits=limits, tls=make_certificate(tmp_path)) as shop:
        crowd: list[socket.socket] = []
        try:
            for _ in range(60):
                silent = socket.socket()
                silent.bind(("127.0.0.2", 0))
                silent.settimeout(20)
                crowd.append(silent)
                await asyncio.to_thread(silent.connect, ("127.0.0.1", shop.service.port))
                silent.setblocking(False)
            most = limits.connections_per_address + SPARE_EACH
            for _ in range(100):
                held = [silent for silent in crowd if is_open(silent)]
                if len(held) <= most:
                    break
                await asyncio.sleep(0.05)
            assert len(held) == most
            assert (await shop.get("download", OWNER_TOKEN)).content == V1
            for silent in crowd:
                silent.close()
            for _ in range(100):  # what has gone counts no more
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(
                        "127.0.0.1",
                        shop.service.port,
                        ssl=ssl.create_default_context(cafile=str(tmp_path / "cert.pem")),
                        server_hostname="data.example",
                        local_addr=("127.0.0.2", 0),
                    )
                    writer.close()
                    break
                await asyncio.sleep(0.05)
            else:
                raise AssertionError("the address is shut out for ever")
        finally:
            for silent in crowd:
                silent.close()


def is_open(connection: socket.socket) -> bool:
    """Whether the other end has not closed it."""
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


async def test_a_server_without_descriptors_says_busy_and_not_that_bytes_are_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    async with open_shop(tmp_path, V1) as shop:
        assert (await shop.get("download", OWNER_TOKEN)).content == V1
        late = socket.socket()
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
            with pytest.raises(OSError) as full:
                for _ in range(256):
                    taken.append(os.dup(0))
            assert full.value.errno == errno.EMFILE
            late.setblocking(False)
            late.connect_ex(("127.0.0.1", shop.service.port))
            for _ in range(20):
                reply = await shop.get("download", OWNER_TOKEN)
                assert told(reply) == (503, "server_busy")
                assert reply.headers["retry-after"]
        finally:
            late.close()
            for descriptor in taken:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (await shop.get("download", OWNER_TOKEN)).content == V1
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len([line for line in lines if "not served" in line]) <= 2
    assert [line for line in lines if "no connection can be accepted" in line]
    assert len(lines) <= 4, lines
