"""What is wrong with a log, a head statement or an anchor, in words that machines may rely on."""

from __future__ import annotations

from ..errors import ProofError


class LogError(ProofError):
    """A version log, or a signed statement about one, that does not hold.

    Attributes:
        reason: one stable word: empty, malformed, not_canonical, wrong_id, non_monotonic, chain_break,
            mixed_signers, bad_signature, wrong_owner, bad_rotation, equivocation, too_large, old_version.
        seq: the version that it is about, None when it is about all of it.
    """

    def __init__(self, reason: str, message: str, *, seq: int | None = None, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason
        self.seq = seq


class HeadError(ProofError):
    """A log that holds, but is not the newest, or not the one that was shown before.

    Attributes:
        reason: one stable word: lower_seq, other_hash, retired_owner, unsigned_head, head_mismatch,
            bad_signature, expired, not_yet, too_long, not_anchored, cut_tail, anchor_mismatch.
    """

    def __init__(self, reason: str, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason
