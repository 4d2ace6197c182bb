"""Paying for a dataset: HTTP 402 in the shape of x402 version 2, in TAO on chain or by EIP-3009 on an EVM
chain.

    models.py     the JSON that goes over the wire, read strictly
    pricing.py    what a version costs, in whole numbers
    reference.py  what ties a payment to an offer and to who may claim it
    till.py       what a network must do for a seller
    join.py       the order of a paid join: check, journal, settle, mint, answer
    tao.py        TAO: the seller's till and the buyer's wallet
    evm.py        EIP-3009: the seller's till, through a facilitator
    evm_proof.py  whether an EVM chain itself shows a payment
    evm_extra.py  the x402 package, imported when it is first needed
    evm_wallet.py the buyer's side of EIP-3009
    policy.py     what a buyer signs, and what it refuses before anything is signed
    journal.py    the buyer's record of payments, written before anything leaves
    paying.py     the buyer's order: look for an unfinished payment, journal, sign, send, claim

EVM needs the extra `evm`; nothing here imports it before it is used.
"""
