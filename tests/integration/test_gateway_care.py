"""Files that are looked after: what is found wrong, and how it is made good, over real sockets."""

from __future__ import annotations

import asyncio

from care_net import cared

from tensorage.errors import RequestError
from tensorage.gateway.repair import PATIENCE


async def test_a_shard_with_wrong_bytes_is_found_at_that_shard_replaced_and_reported(tmp_path):
    async with cared(tmp_path, 8) as net:
        put = await net.put(2, 5)
        await net.caretaker.health.run()
        assert {row.health for row in net.stored(put).values()} == {"ok"}
        bad = net.stored(put)[3]
        net.holder(bad).spoil(bad.ticket)
        net.clock.rounds(20)
        await net.caretaker.health.run()
        assert sorted(net.stored(put)) == [0, 1, 2, 4]
        assert [(wrong.ticket, wrong.hotkey) for wrong in net.store.wrongs()] == [(bad.ticket, bad.hotkey)]
        await net.caretaker.repairer.run()
        assert net.is_whole(put)
        assert net.stored(put)[3].hotkey != bad.hotkey
        assert [errand.ticket for errand in net.store.removals(net.care.now() + 60)] == [bad.ticket]
        await net.caretaker.repairer.run()
        assert net.store.stripes_to_repair() == []


async def test_a_miner_that_is_gone_is_made_good_at_once_and_one_that_is_away_only_below_the_threshold(
    tmp_path,
):
    async with cared(tmp_path, 9) as net:
        put = await net.put(2, 6, stripes=2)
        await net.caretaker.health.run()
        gone, away = net.holder(net.stored(put)[0]), net.holder(net.stored(put)[1])
        net.gone.add(gone.ss58)
        away.refuse = RequestError("unready", "starting")
        for _ in range(2):
            net.clock.rounds(20)
            await net.caretaker.health.run()
        assert 0 not in net.stored(put)
        assert net.stored(put)[1].health == "failed"
        await net.refresh()
        await net.caretaker.repairer.run()
        assert net.stored(put)[1].hotkey == away.ss58  # four of six are enough for now
        away.refuse = None
        net.clock.rounds(20)
        await net.caretaker.health.run()
        assert net.is_whole(put)


async def test_a_miner_that_fails_for_good_is_replaced_when_the_stripe_falls_below_its_threshold(tmp_path):
    async with cared(tmp_path, 9) as net:
        put = await net.put(2, 6)
        away = [net.holder(net.stored(put)[number]) for number in (0, 3, 5)]
        for holder in away:
            await holder.die()
        for _ in range(2):
            net.clock.rounds(20)
            await net.caretaker.health.run()
        assert net.stripe(put).healthy == 3
        await net.refresh()
        await net.caretaker.repairer.run()
        assert net.is_whole(put)
        assert not {row.hotkey for row in net.stored(put).values()} & {holder.ss58 for holder in away}


async def test_a_shard_that_its_miner_says_twice_it_has_not_is_lost(tmp_path):
    async with cared(tmp_path, 5) as net:
        put = await net.put(2, 4)
        lost = net.stored(put)[2]
        del net.holder(lost).shards[lost.ticket]
        await net.caretaker.health.run()
        assert 2 in net.stored(put)
        net.clock.rounds(20)
        await net.caretaker.health.run()
        assert 2 not in net.stored(put)
        assert net.store.wrongs() == []  # it did not say anything false


async def test_a_source_that_gives_wrong_bytes_is_found_out_and_another_one_used(tmp_path):
    async with cared(tmp_path, 8) as net:
        put = await net.put(2, 5, leaves=32)
        there = net.stored(put)
        net.gone.add(there[0].hotkey)
        await net.caretaker.health.run()
        for number in (1, 2):  # of four sources, of which two are taken
            net.holder(there[number]).spoil(there[number].ticket)
        await net.refresh()
        for _ in range(4):
            await net.caretaker.repairer.run()
            await net.caretaker.health.run()
            net.clock.rounds(20)
        assert net.is_whole(put)
        assert {wrong.ticket for wrong in net.store.wrongs()} == {there[1].ticket, there[2].ticket}


async def test_a_miner_that_leaves_keeps_its_shards_until_others_have_them(tmp_path):
    async with cared(tmp_path, 6) as net:
        put = await net.put(2, 5, stripes=3)
        leaver = net.holder(net.stored(put)[0])
        old = {row.ticket for row in net.store.shards_of_miner(leaver.ss58)}
        leaver.leaving = True
        await net.refresh()
        others = [holder for holder in net.holders if holder is not leaver]
        for holder in others:
            holder.refuse_uploads = True
        await net.caretaker.repairer.run()
        assert net.store.removals(net.care.now() + 60) != []  # of the ticket that was not used
        assert {row.ticket for row in net.store.shards_of_miner(leaver.ss58) if row.state == "stored"} == old
        for holder in others:
            holder.refuse_uploads = False
        net.clock.rounds(20)
        await net.caretaker.repairer.run()
        assert net.is_whole(put)
        assert not leaver.trash
        waiting = {errand.ticket for errand in net.store.removals(net.care.now() + 60)}
        assert old <= waiting
        # Copied from the miner itself, not made anew from others.
        assert all(("piece", "hotkey") not in holder.asked for holder in others)


async def test_a_miner_that_leaves_is_let_go_when_no_owner_is_left_and_the_stripe_can_bear_it(tmp_path):
    async with cared(tmp_path, 5) as net:
        put = await net.put(2, 5)
        first, second = (net.holder(net.stored(put)[number]) for number in (0, 1))
        first.leaving = True
        await net.refresh()
        for _ in range(PATIENCE):
            assert [row.state for row in net.store.shards_of_miner(first.ss58)] == ["stored"]
            await net.caretaker.repairer.run()
            net.clock.rounds(20)
        (let_go,) = net.store.shards_of_miner(first.ss58)
        assert let_go.state == "removing"
        second.leaving = True  # with it, the stripe would fall below its threshold
        await net.refresh()
        for _ in range(PATIENCE + 2):
            await net.caretaker.repairer.run()
            net.clock.rounds(20)
        assert [row.state for row in net.store.shards_of_miner(second.ss58)] == ["stored"]


async def test_a_stripe_with_too_few_shards_waits_and_is_made_good_when_they_are_back(tmp_path):
    async with cared(tmp_path, 7) as net:
        put = await net.put(3, 5)
        there = net.stored(put)
        net.gone |= {there[number].hotkey for number in (0, 1, 2)}
        await net.caretaker.health.run()
        await net.refresh()
        await net.caretaker.repairer.run()
        assert sorted(net.stored(put)) == [3, 4]
        net.gone.discard(there[2].hotkey)
        net.clock.rounds(20)
        await net.caretaker.health.run()  # one that was lost is found
        assert sorted(net.stored(put)) == [2, 3, 4]
        await net.refresh()
        await net.caretaker.repairer.run()
        assert net.is_whole(put)


async def test_shards_that_were_never_of_one_stripe_are_not_multiplied(tmp_path, caplog):
    async with cared(tmp_path, 6) as net:
        put = await net.put(2, 4)
        # The client's third shard is not what the first two say.
        false = net.stored(put)[2]
        other = await net.put(2, 4)
        with net.store._lock:
            net.store._db.execute(
                "UPDATE shards SET root = (SELECT root FROM shards WHERE ticket = ?) WHERE ticket = ?",
                (net.stored(other)[2].ticket, false.ticket),
            )
        net.gone.add(false.hotkey)
        await net.caretaker.health.run()
        await net.refresh()
        await net.caretaker.repairer.run()
        assert "not of one stripe" in caplog.text
        assert 2 not in net.stored(put)


async def test_nothing_is_asked_while_challenges_are_timed(tmp_path):
    async with cared(tmp_path, 6) as net:
        put = await net.put(2, 4)
        net.gone.add(net.stored(put)[0].hotkey)
        await net.caretaker.health.run()
        net.clock.rounds(20)
        await net.refresh()
        asked = [len(holder.asked) for holder in net.holders]
        row = net.stored(put)[1]
        work = [
            asyncio.create_task(step())
            for step in (
                net.caretaker.health.run,
                net.caretaker.repairer.run,
                net.caretaker.collector.run,
                lambda: net.caretaker.sampler.fetch(row),
            )
        ]
        async with net.quiet.timed():
            await asyncio.sleep(0.3)
            assert [len(holder.asked) for holder in net.holders] == asked
            assert not any(task.done() for task in work)
        await asyncio.wait_for(asyncio.gather(*work), 20)
        assert [len(holder.asked) for holder in net.holders] != asked


async def test_neither_reports_nor_a_miner_that_is_away_keep_others_from_being_checked(tmp_path):
    async with cared(tmp_path, 4) as net:
        put = await net.put(2, 4, stripes=12)
        rows = [row for stripe in range(12) for row in net.stored(put, stripe).values()]
        away = net.holders[0].ss58
        for row in rows:
            if row.hotkey == away:
                net.store.unanswered(row.ticket, "away", net.care.now() - 10_000)
            elif row.hotkey == net.holders[1].ss58:
                net.store.checked(row.ticket, True, "", net.care.now() - 10_000)
                net.store.report(row.ticket)
        now = net.care.now()
        due = net.store.due_for_check(8, now, now)
        assert [row.hotkey for row in due] == [
            *[net.holders[1].ss58] * 4,
            *[away] * 2,
            *[row.hotkey for row in due[6:]],
        ]
        assert all(row.checked is None for row in due[6:])
        assert len(net.store.due_for_check(100, now, now)) == len(rows)


async def test_shards_that_answer_again_are_not_made_anew_after_our_own_network_was_away(tmp_path):
    async with cared(tmp_path, 8) as net:
        put = await net.put(2, 4)
        before = set(net.stored(put).values())
        for holder in net.holders:
            holder.refuse = RequestError("unready", "not reached")
        for _ in range(2):
            await net.caretaker.health.run()
            net.clock.rounds(20)
        assert net.stripe(put).healthy == 0
        for holder in net.holders:
            holder.refuse = None
        await net.refresh()
        await net.caretaker.repairer.run()
        assert net.stripe(put).healthy == 4
        assert {row.ticket for row in net.stored(put).values()} == {row.ticket for row in before}
