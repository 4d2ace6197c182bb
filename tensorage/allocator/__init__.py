"""Sectors on disk: what to keep where, sealing it, reading it back for a challenge.

    plan.py       which sectors stay, come and go: pure
    partition.py  how many chunks each validator's clients may use: pure
    layout.py     who the data belong to, and where files are
    disks.py      free space, and telling disks apart
    files.py      sector files: written whole or not at all
    schema.py     the database file: opening, versions, damage
    store.py      rows: sectors, their trees, the signed chain of commitments, quotas
    slots.py      rows: chunks where a client's shard has the place of filler, and from which commitment on
    shard_rows.py rows: clients' shards, and until when they are kept
    shard_files.py files of shards: written whole or not at all, compared with their nodes when read
    shards.py     taking shards in, giving pieces of them, letting them go: what the miner calls
    uploads.py    one shard on its way in
    space.py      on which disk it goes
    overlay.py    holes for shards in sectors, and the files of both that go
    transition.py what has become of a sector between two commitments
    retrievals.py what clients have fetched
    together.py   one flush for all who wait for one
    reader.py     one leaf with its proof, in one read of at most 64 KiB
    worker.py     the process that seals and checks sectors
    sealing.py    its supervisor
    upkeep.py     recovery, planning, filling, verification: what the command and the miner call

Rules. A sector is trusted only when its row says sealed, and the row is written after its file is on disk.
What is read is compared with the stored tree before anybody sees it. One process at a time changes a data
directory; any number read it.
"""
