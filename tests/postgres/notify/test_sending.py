"""Messages that are due become mails, each at most once, whatever breaks on the way."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import REGISTRY

from services.notify import mailing, messages
from services.notify.mail_server import SESSIONS
from services.notify.mailing import Mailing
from shared.health import Health
from tests.postgres.notify.conftest import ANNA, cancelled, confirmed, order, placed, settle, settled, until

if TYPE_CHECKING:
    from tests.postgres.notify.conftest import World

SENT = {"order_confirmed": ("sent", None)}
TRIGGERED = {"order_confirmed": ("triggered", None)}


def failed(reason: str) -> dict[str, tuple[str, str | None]]:
    return {"order_confirmed": ("failed", reason)}


def sent_so_far() -> float:
    labels = {"trigger": "order_confirmed", "outcome": "sent"}
    return REGISTRY.get_sample_value("isthmus_care_messages_total", labels) or 0.0


async def test_a_message_is_sent_once_and_said_so(world: World) -> None:
    counted = sent_so_far()
    await world.confirmed()
    for _ in range(2):
        await world.send()
        await world.all_due()
    (mail,) = world.post.mails
    assert (mail["To"], mail["Subject"]) == ("Anna Oz <anna@home.example>", "We have your order 1001")
    assert mail["Message-ID"].strip() == f"<{order(1)}.order_confirmed@shop.example>"
    assert (await world.said(), await world.care(), await world.waiting()) == (
        [("CareTriggered", "order_confirmed", None), ("CareSent", "order_confirmed", None)], SENT, 0,
    )  # fmt: skip
    assert world.customers.asked == [(ANNA, "order_updates", order(1))]
    assert sent_so_far() == counted + 1


async def test_what_is_triggered_twice_is_one_mail_also_with_two_senders(world: World) -> None:
    for number in range(1, 9):
        await world.hear(*[placed(number), confirmed(number)] * 2)
    other = Mailing(world.database, world.settings)

    async def send(one: Mailing) -> None:
        await settle(world, *await one._claim(8))

    await asyncio.gather(*(send(one) for one in (world.mailing, other) for _ in range(2)))
    await other.close()
    assert sorted(mail["Subject"] for mail in world.post.mails) == [f"We have your order 100{n}" for n in range(1, 9)]


async def test_a_mail_server_that_is_away_gets_it_when_it_is_back(world: World) -> None:
    await asyncio.to_thread(world.post.close)
    health = Health()
    working = [asyncio.create_task(worker.run(health)) for worker in world.mailing.calls.workers]
    await world.confirmed()  # wakes the worker
    await until(lambda: world.rows("SELECT FROM messages WHERE attempts > 0 AND due_at < now() + interval '3 seconds'"))
    assert await world.care() == TRIGGERED
    assert world.customers.asked == []  # nobody's address is read in vain
    await asyncio.to_thread(world.post.open)
    await until(lambda: world.rows("SELECT FROM care WHERE state = 'sent'"))
    for worker in world.mailing.calls.workers:
        worker.stop()
    await asyncio.gather(*working)
    assert len(world.post.mails) == 1


async def test_while_the_mail_server_is_gone_nobodys_address_is_read_though_it_had_answered_before(
    world: World,
) -> None:
    await world.confirmed()
    await world.send()
    await asyncio.to_thread(world.post.close)
    await world.confirmed(2)
    await world.send()
    assert await world.care(2) == TRIGGERED
    assert world.customers.asked == [(ANNA, "order_updates", order(1))]


async def test_a_mail_server_that_stays_away_is_given_up(world: World) -> None:
    await world.confirmed()
    await asyncio.to_thread(world.post.close)
    await world.execute("UPDATE messages SET queued_at = now() - interval '25 hours'")
    await world.send()
    assert await world.care() == TRIGGERED  # one try it has, also after an outage of our own
    await world.all_due()
    await world.send()
    assert (await world.care(), await world.waiting()) == (failed("gave_up"), 0)


async def test_pauses_between_attempts_grow_up_to_five_minutes(world: World) -> None:
    await world.confirmed()
    await asyncio.to_thread(world.post.close)
    waits: list[int] = []
    for attempts in (0, 3, 20):
        await world.execute("UPDATE messages SET attempts = $1, due_at = now()", attempts)
        await world.send()
        ((wait,),) = await world.rows("SELECT round(extract(epoch FROM due_at - now()))::int FROM messages")
        waits.append(wait)
    assert waits == [1, 8, 300]


async def test_an_opt_out_between_trigger_and_sending_wins(world: World) -> None:
    await world.confirmed()
    world.customers.contact = {"name": None, "email": None, "allowed": False, "reason": "opted_out"}
    await world.send()
    assert (await world.care(), world.post.mails) == (failed("opted_out"), [])
    assert (await world.said())[-1] == ("CareFailed", "order_confirmed", "opted_out")


async def test_an_opt_out_while_a_mail_waits_for_a_connection_wins(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailing, "FRESH_SECONDS", 0)
    await world.confirmed()
    async with AsyncExitStack() as others:
        for _ in range(SESSIONS):
            await others.enter_async_context(world.mailing._server.session())
        sending = asyncio.create_task(world.send())
        await until(lambda: asyncio.sleep(0, world.customers.asked))
        world.customers.contact = {"name": None, "email": None, "allowed": False, "reason": "opted_out"}
    await sending
    assert (await world.care(), world.post.mails) == (failed("opted_out"), [])


async def test_a_thank_you_needs_consent_to_marketing(world: World) -> None:
    await world.hear(placed(1), settled(1))
    world.customers.contact = {"name": None, "email": None, "allowed": False, "reason": "no_consent"}
    await world.send()
    assert world.customers.asked == [(ANNA, "marketing_email", order(1))]
    assert await world.care() == {"thank_you": ("failed", "no_consent")}


@pytest.mark.parametrize("email", [None, "n/a", "anna@home.example\r\nBcc: eve@evil.example"])
async def test_without_an_address_nothing_is_sent(world: World, email: str | None) -> None:
    await world.confirmed()
    world.customers.contact = {"name": "Anna", "email": email, "allowed": True}
    await world.send()
    assert (await world.care(), world.post.mails) == (failed("no_address"), [])


async def test_a_customer_who_is_gone_is_not_written_to(world: World) -> None:
    await world.confirmed()
    world.customers.contact = None
    await world.send()
    assert await world.care() == failed("unknown_customer")


async def test_several_customers_are_asked_for_at_once_and_none_of_them_takes_a_connection_in_vain(
    world: World,
) -> None:
    for number in range(1, 21):
        await world.confirmed(number)
    world.customers.contact = {"name": None, "email": None, "allowed": False, "reason": "opted_out"}
    await world.send()
    assert sorted(world.customers.asked) == [(ANNA, "order_updates", order(number)) for number in range(1, 21)]
    assert {state for number in range(1, 21) for state in (await world.care(number)).values()} == {
        ("failed", "opted_out")
    }
    assert world.customers.requests <= 3
    assert world.post.connections == 1  # to know that the mail server is there


async def test_a_customer_who_cannot_be_read_does_not_hold_back_the_others(world: World) -> None:
    for number in range(1, 5):
        await world.confirmed(number)
    world.customers.refuses_several = True
    await world.send()
    assert [await world.care(number) for number in range(1, 5)] == [SENT] * 4


async def test_a_customer_service_without_the_route_is_asked_again(world: World) -> None:
    await world.confirmed()
    world.customers.status = 404
    await world.send()
    assert await world.care() == TRIGGERED


async def test_a_customer_service_that_is_away_is_asked_again(world: World) -> None:
    await world.confirmed()
    world.customers.status = 503
    await world.send()
    assert await world.care() == TRIGGERED
    world.customers.status = 200
    await world.all_due()
    await world.send()
    assert await world.care() == SENT


async def test_a_crash_after_the_mark_is_told_as_unknown_and_never_sent_again(world: World) -> None:
    await world.confirmed()
    (due,) = await messages.claim(world.database, 64, 120, 24, 7)
    assert await messages.hand_over(world.database, [due]) == [True]
    await world.send()
    assert await world.care() == TRIGGERED  # not while its lease lasts: it may be under way
    await world.all_due()
    await world.send()
    assert (await world.care(), world.post.mails) == (failed("unknown"), [])
    await world.all_due()
    await world.send()
    assert len(await world.said()) == 2


async def test_a_mark_whose_commit_was_not_answered_is_read_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.confirmed()
    mark, answers = messages._mark, [ConnectionError("the reply was lost"), None]

    async def cut_off(*arguments: Any, **named: Any) -> list[bool]:
        marked = await mark(*arguments, **named)
        if (broken := answers.pop(0)) is not None:
            raise broken
        return marked

    monkeypatch.setattr(messages, "_mark", cut_off)
    await world.send()
    assert (await world.care(), len(world.post.mails)) == (SENT, 1)


async def test_messages_are_marked_together_each_for_itself(world: World) -> None:
    for number in (1, 2, 3):
        await world.confirmed(number)
    claimed = await messages.claim(world.database, 64, 120, 24, 7)
    one, two, three = sorted(claimed, key=lambda due: due.order_id)
    await world.hear(cancelled(2))
    assert await messages.hand_over(world.database, [three, two, one]) == [True, False, True]
    assert await messages.hand_over(world.database, [one, three]) == [False, False]


async def test_a_mark_of_another_attempt_is_nobody_elses(world: World) -> None:
    await world.confirmed()
    (slow,) = await messages.claim(world.database, 64, 120, 24, 7)
    await world.all_due()
    (fast,) = await messages.claim(world.database, 64, 120, 24, 7)
    assert await messages._mark(world.database, [fast], again=False) == [True]
    assert await messages._mark(world.database, [slow], again=True) == [False]


async def test_what_is_not_marked_when_we_close_is_left_to_the_next(world: World) -> None:
    for number in range(1, 41):
        await world.confirmed(number)
    world.post.answers_after = 0.5
    await world.mailing.calls._claim()
    await until(lambda: asyncio.sleep(0, world.post.connections == SESSIONS))  # the others wait for a connection
    await world.mailing.close()
    assert (world.post.mails, world.post.connections, await world.waiting()) == ([], SESSIONS, 40)
    assert await world.rows("SELECT FROM messages WHERE handing_over_at IS NOT NULL") == []
    world.post.answers_after = 0
    other = Mailing(world.database, world.settings)
    await world.all_due()
    await settle(world, *await other._claim(64))
    await other.close()
    assert len(world.post.mails) == 40


async def test_the_database_going_away_shows_nobodys_address(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def away(*_: object) -> list[bool]:
        raise ConnectionError("no database")

    await world.confirmed()
    monkeypatch.setattr(messages, "hand_over", away)
    await world.mailing.calls._claim()
    await world.mailing.calls.close()
    assert (await world.care(), await world.waiting()) == (TRIGGERED, 1)
    shown = "".join(capfd.readouterr())
    assert "ConnectionError" in shown
    assert "anna" not in shown.lower()


async def test_a_crash_before_the_mark_is_only_a_pause(world: World) -> None:
    await world.confirmed()
    await messages.claim(world.database, 64, 120, 24, 7)
    await world.all_due()
    await world.send()
    assert (await world.care(), len(world.post.mails)) == (SENT, 1)


async def test_who_was_too_slow_does_not_send_what_another_has_claimed(world: World) -> None:
    await world.confirmed()
    slow = await world.mailing._claim(64)
    await world.all_due()
    fast = await world.mailing._claim(64)
    await settle(world, *slow)
    assert world.post.mails == []
    await settle(world, *fast)
    assert (await world.care(), len(world.post.mails)) == (SENT, 1)


async def test_an_outcome_of_who_was_too_slow_counts_only_if_the_mail_has_left(world: World) -> None:
    for number in (1, 2):
        await world.confirmed(number)
    slow = await messages.claim(world.database, 64, 120, 24, 7)
    await world.all_due()
    await messages.claim(world.database, 64, 120, 24, 7)
    one, two = sorted(slow, key=lambda due: due.order_id)
    await messages.settle(world.database, [one.failed("opted_out"), two.sent()])
    assert (await world.care(1), await world.care(2)) == (TRIGGERED, SENT)
    await messages.settle(world.database, [two.failed("unknown")])
    assert await world.care(2) == SENT


@pytest.mark.parametrize(("answer", "becomes"), [("550 no such user", failed("rejected")), ("450 later", TRIGGERED)])
async def test_a_recipient_is_refused_for_good_or_for_now(world: World, answer: str, becomes: object) -> None:
    await world.confirmed()
    world.post.to_recipient = answer
    await world.send()
    assert await world.care() == becomes
    world.post.to_recipient = "250 OK"
    await world.all_due()
    await world.send()
    assert len(world.post.mails) == (1 if becomes == TRIGGERED else 0)


@pytest.mark.parametrize(("answer", "becomes"), [("554 spam", failed("rejected")), ("451 busy", TRIGGERED)])
async def test_a_mail_is_refused_for_good_or_for_now(world: World, answer: str, becomes: object) -> None:
    await world.confirmed()
    world.post.to_data = answer
    await world.send()
    assert await world.care() == becomes
    world.post.to_data = "250 OK"
    await world.all_due()
    await world.send()
    assert len(world.post.mails) == (1 if becomes == TRIGGERED else 0)


async def test_a_connection_lost_while_the_mail_is_handed_over_is_told_as_unknown(world: World) -> None:
    await world.confirmed()
    world.post.drops = True
    await world.send()
    assert (await world.care(), await world.waiting()) == (failed("unknown"), 0)
    world.post.drops = False
    await world.all_due()
    await world.send()
    assert world.post.mails == []


async def test_an_order_cancelled_before_its_confirmation_was_sent_is_told_of_the_cancellation_only(
    world: World,
) -> None:
    await world.confirmed()
    await world.hear(cancelled(1))
    await world.send()
    assert [mail["Subject"] for mail in world.post.mails] == ["Your order 1001 has been cancelled"]
    assert await world.care() == {
        "order_confirmed": ("failed", "order_ended"), "order_cancelled": ("sent", None),
    }  # fmt: skip


async def test_a_cancellation_wins_until_the_mail_is_handed_over(world: World) -> None:
    for number in (1, 2):
        await world.confirmed(number)
    claimed = await messages.claim(world.database, 64, 120, 24, 7)
    one, two = sorted(claimed, key=lambda due: due.order_id)
    assert await messages.hand_over(world.database, [two]) == [True]
    await world.hear(cancelled(1), cancelled(2))
    assert await messages.hand_over(world.database, [one]) == [False]
    await messages.settle(world.database, [one.failed("opted_out"), two.sent()])
    assert (await world.care(1))["order_confirmed"] == ("failed", "order_ended")
    assert (await world.care(2))["order_confirmed"] == ("sent", None)
    assert [event for event, _, _ in await world.said(2)] == ["CareTriggered", "CareTriggered", "CareSent"]


async def test_a_mail_that_cannot_be_made_waits_and_shows_nobodys_name(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("anna@home.example")

    await world.confirmed()
    monkeypatch.setattr(world.mailing._letters, "write", fails)
    await world.send()
    assert (await world.care(), await world.waiting()) == (TRIGGERED, 1)
    shown = "".join(capfd.readouterr())
    assert "mail could not be made" in shown
    assert "anna@" not in shown


async def test_nothing_personal_is_stored_or_logged(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    answers = [("250 OK", "250 OK"), ("550 5.1.1 anna@home.example", ""), ("450 not anna@home.example", ""),
               ("250 OK", "554 anna@home.example"), ("250 OK", "451 anna@home.example")]  # fmt: skip
    for number, (world.post.to_recipient, world.post.to_data) in enumerate(answers, 1):
        await world.confirmed(number)
        await world.send()
    assert len(world.post.mails) == 1
    tables = [
        row["tablename"] for row in await world.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    ]
    stored = [str(row[0]) for table in tables for row in await world.rows(f'SELECT t::text FROM "{table}" t')]
    payloads = [bytes(row["payload"]).decode() for row in await world.rows("SELECT payload FROM outbox")]
    assert len(payloads) == 8
    everything = "".join([*stored, *payloads, *capfd.readouterr()])
    assert "mail refused" in everything
    assert "550 5.1.1" in everything
    assert "anna" not in everything.lower()
