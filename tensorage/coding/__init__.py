"""How a client's file becomes shards, and shards the file again: pure, bytes in and bytes out.

    file -> `stream` (AES-256-GCM in segments) -> `layout` (stripes) -> `erasure` (K of N)
         -> `spread` (each shard encrypted for its own place) -> the shards' Merkle roots, which tickets name

`keys` derives every key from the one of the file; `manifest` is what a reader needs besides it.
"""
