"""Which exceptions mean what, when the SDK is asked something.

The SDK translates most failures of its transport, not all; and an answer that it cannot decode (a runtime
newer than the SDK, a field that is missing) surfaces as whatever Python raised on the way. None of them may
end a service, and none of them may hide a mistake of ours: so the two groups are spelled out here, once.
"""

from __future__ import annotations

import asyncio

from bittensor import BittensorError, ConnectionNotReady, RpcConnectionError

from ..errors import TensorageError

# The chain is not there: the connection is given up and opened anew.
AWAY: tuple[type[Exception], ...] = (
    RpcConnectionError,
    ConnectionNotReady,
    OSError,  # ConnectionError and TimeoutError among them
    asyncio.TimeoutError,  # another type than TimeoutError before Python 3.11
    TensorageError,  # of the devnet: its file is missing, locked or damaged
)

# The chain answered, and the answer could not be read.
UNREADABLE: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)

# Whatever can come of asking.
ANY: tuple[type[Exception], ...] = (BittensorError, *AWAY, *UNREADABLE)
