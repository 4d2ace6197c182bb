"""Sealing: a sector is the memory matrix that Argon2d leaves behind (RFC 9106).

    id     = H(tag("tensorage/sector/v1") || genesis || u16 netuid || miner || u8 profile || u64 index)
    sector = the matrix of Argon2d (type 0, version 0x13): password id, salt "tensorage-sector", no secret,
             no associated data, one lane, memory of the sector's size, 24 passes, tag length 32

Blocks stand in their order, each as 128 little-endian words of 64 bits. Every block needs the one before
it, one that the data choose, and its own former value; so a sector is filled in sequence, and one that was
dropped costs most of a whole seal. What that proves, and what it does not, is in docs/proof.md.

The kernel is numba's: LLVM turns its inner loops over eight columns (or rows) of a block into the widest
vectors that the processor has. It releases the GIL.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from . import merkle
from .encoding import HASH_SIZE, KEY_SIZE, fixed, sha256, tag, u8, u16, u64
