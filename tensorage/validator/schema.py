"""Tables of validator.sqlite, and how a file of an older version becomes one of this version.

STRICT tables. What may need 64 unsigned bits (sector indices, the seq of a commitment) is 8 big-endian bytes,
since SQLite's integers are signed. Keys and hashes are 32 bytes.
"""

from __future__ import annotations

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

    CREATE TABLE rounds (
        round      INTEGER PRIMARY KEY,
        block      INTEGER NOT NULL,            -- of the challenges
        started_ms INTEGER NOT NULL,            -- milliseconds since 1970
        excused    INTEGER NOT NULL DEFAULT 0   -- 1 when failures were assumed to be ours
    ) STRICT;

    CREATE TABLE miners (
        hotkey            TEXT PRIMARY KEY,     -- SS58
        public_key        BLOB NOT NULL,
        uid               INTEGER NOT NULL,
        registered_at     INTEGER NOT NULL,     -- block
        present           INTEGER NOT NULL,     -- 1 while it is in the metagraph
        commitment        BLOB,                 -- hash, of table commitments
        seen_block        INTEGER NOT NULL,
        previous          BLOB,
        previous_seen     INTEGER NOT NULL,
        draw_sector       BLOB,
        draw_block        INTEGER,
        draw_block_hash   BLOB,
        draw_round        INTEGER,
        audits_due        INTEGER NOT NULL,
        last_audit        INTEGER NOT NULL,     -- round, -1 for never
        verdict           INTEGER,              -- byte of the newest receipt's verdict
        reason            TEXT NOT NULL,
        failing           INTEGER NOT NULL,
        counts            TEXT NOT NULL,        -- JSON: verdict to number of receipts
        round             INTEGER NOT NULL,     -- from here on the fields of Standing
        credited_bytes    INTEGER NOT NULL,
        passed            REAL NOT NULL,
        sampled           REAL NOT NULL,
        integrity         REAL NOT NULL,
        wrong_last        INTEGER NOT NULL,
        answered          REAL NOT NULL,
        missed            REAL NOT NULL,
        latency           REAL,
        quarantined_until INTEGER NOT NULL,
        forgiven_round    INTEGER
    ) STRICT;

    CREATE TABLE commitments (
        hash    BLOB PRIMARY KEY,
        hotkey  TEXT NOT NULL,
        seq     BLOB NOT NULL,
        current INTEGER NOT NULL,               -- 0 once its chain was found out or given up
        message TEXT NOT NULL                   -- the CommitmentMessage that carried it
    ) STRICT;
    CREATE INDEX commitments_of ON commitments (hotkey, seq);

    CREATE TABLE listings (
        hotkey   TEXT PRIMARY KEY,
        entries  BLOB NOT NULL,                 -- 8 bytes of index and 32 of root for each sector
        credited BLOB NOT NULL                  -- 8 bytes of index each
    ) STRICT;

    CREATE TABLE receipts (
        seq      INTEGER PRIMARY KEY,
        miner    BLOB NOT NULL,
        document TEXT NOT NULL                  -- as receipts.to_json writes it
    ) STRICT;
    CREATE INDEX receipts_of ON receipts (miner, seq);

    CREATE TABLE evidence (
        id   INTEGER PRIMARY KEY,
        hash BLOB NOT NULL UNIQUE,              -- SHA-256 of data, but: listing, the commitment's hash;
                                                -- slots, displaced.slots_key
        kind TEXT NOT NULL,                     -- answer, chunk-roots, listing, message, slots
        data BLOB NOT NULL
    ) STRICT;

    CREATE TABLE forks (                        -- two stories of one miner, both signed; never deleted
        id     INTEGER PRIMARY KEY,
        hotkey TEXT NOT NULL,
        round  INTEGER NOT NULL,
        first  TEXT NOT NULL,                   -- CommitmentMessage
        second TEXT NOT NULL
    ) STRICT;

    CREATE TABLE weights (
        id      INTEGER PRIMARY KEY,
        round   INTEGER NOT NULL,
        block   INTEGER,                        -- height of the chain when they were sent
        status  TEXT NOT NULL,
        message TEXT NOT NULL,
        weights TEXT NOT NULL                   -- JSON: uid to share
    ) STRICT;
    """,
    """
    ALTER TABLE miners ADD COLUMN served_bytes REAL NOT NULL DEFAULT 0;  -- fields of Standing too
    ALTER TABLE miners ADD COLUMN fetch_rate REAL NOT NULL DEFAULT 0;
    """,
    """
    ALTER TABLE listings ADD COLUMN barred BLOB NOT NULL DEFAULT x'';  -- indices, 8 bytes each

    CREATE TABLE slots (                        -- of the newest commitment, what was given to clients' shards
        hotkey     TEXT NOT NULL,               -- of the miner
        sector     BLOB NOT NULL,
        chunk      INTEGER NOT NULL,
        ticket     BLOB NOT NULL,               -- SignedTicket.encode
        filler     BLOB,                        -- root of the chunk before, where that was seen
        accepted   INTEGER NOT NULL,            -- 1 when the ticket was good once
        flaw       TEXT NOT NULL,               -- why it is not good, empty when it is
        good_until INTEGER NOT NULL,            -- seconds since 1970
        PRIMARY KEY (hotkey, sector, chunk)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX slots_to_end ON slots (good_until) WHERE flaw = '';
    """,
)

VERSION = len(MIGRATIONS)
