"""tensorage: a Bittensor storage subnet.

Miners keep sealed sectors and prove it; validators verify without holding the data; clients and data
owners use the capacity so proven.
"""

__version__ = "0.1.0"

#: Version key of the weights and of the wire protocol: major * 10_000 + minor * 100 + patch.
SPEC_VERSION = 100
