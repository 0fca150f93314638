#!/usr/bin/env python3
"""A ringcall client for Python 3.9+, written from docs/PROTOCOL.md alone.

    client.py HOST:PORT [--spec PATH] SCENARIO

It makes calls over TCP connections, many at once, with large bodies, streams in both directions and credit: RAW ones,
and typed ones in JSON and MessagePack. It has no methods of its own. `--spec` first checks the encoding against the vectors of the
page.
"""

import argparse
import functools
import random
import sys

import hashlib
import json

import msgpack
from connection import OUR_HELLO, Connection, ServerCloses, stream_items
from wire import *

ECHO, SLOW, LEAVE = "demo.Echo/echo", "demo.Echo/slow", "demo.Echo/leave"
COUNT, FAIL, GATHER = "demo.Echo/count", "demo.Echo/fail", "demo.Echo/gather"
FIRST, MIRROR, HOLD = "demo.Echo/first", "demo.Echo/mirror", "demo.Echo/hold"
TAGGED, TAGGED_ERROR, TAGGED_ITEMS = "demo.Echo/tagged", "demo.Echo/tagged_error", "demo.Echo/tagged_items"
BOTH_WAYS = ITEMS_IN | ITEMS_OUT
KIB = 1024
SOON = 2**64 - 1  # what GOAWAY says before it counts


def main():
    scenarios = [echo, shape, metadata, goaway, cancel, streams, credit, cut, early, wrong, drain, pings]
    scenarios += [typed, table, reflection]
    scenarios = {run.__name__: run for run in scenarios}
    parser = argparse.ArgumentParser(description="A ringcall client that checks a server.")
    parser.add_argument("address", metavar="HOST:PORT")
    parser.add_argument("--spec", metavar="PATH", help="check the vectors of this PROTOCOL.md first")
    parser.add_argument("scenario", choices=scenarios)
    arguments = parser.parse_args()
    host, _, port = arguments.address.rpartition(":")
    try:
        if arguments.spec:
            self_test(arguments.spec)
        scenarios[arguments.scenario](functools.partial(connect, host.strip("[]"), int(port)))
    except (Failure, OSError) as error:
        print(f"{arguments.scenario}: {type(error).__name__}: {error}")
        return 1
    print(f"ok {arguments.scenario}")
    return 0


def connect(host, port, **hello):
    return Connection(host, port, OUR_HELLO._replace(**hello))


def connect_narrow(connect):
    """With windows that are soon used up."""
    sizes = {"largest_message": 512 * KIB, "calls_window": MIB, "replies_window": MIB}
    return connect(stream_window=256 * KIB, **sizes)


# ---- Calls ----


def echo(connect):
    """Bodies of many sizes, one after the other and 20 at once, and a PING; and who the server says it is."""
    connection = connect()
    for length in (0, 1, 15, 16, 17, 5_000, 300_000, 3_000_000):
        check_echo(connection, contents(length))
    # Together 6 MB, small and large mixed: with the bodies before, more than our replies window.
    bodies = [contents(i * 31_337, seed=i) for i in range(20)]
    calls = [connection.call(ECHO, body) for body in bodies]
    for call, body in zip(calls, bodies):
        expect_reply(connection, call, body)
    connection.ping(b"is anybody there")
    expect("identity", "echo-1", connection.identity)
    connection.finish()


def shape(connect):
    """Calls that are refused, and that the connection survives them."""
    connection = connect()
    expect_reply(connection, connection.call(ECHO, b"shape", in_signature=1), status=SHAPE_MISMATCH)
    expect_reply(connection, connection.call("demo.Echo/nothing", b"method"), status=UNKNOWN_METHOD)
    check_echo(connection, b"still here")
    expect_reply(connection, connection.call(ECHO, b"codec", codec=1), status=UNKNOWN_CODEC)
    expect_reply(connection, connection.call(ECHO, b"late", deadline=0), status=EXPIRED)
    check_echo(connection, b"still here after all")
    connection.finish()


def metadata(connect):
    """Metadata of calls, of answers and of ends. What is wrong with it is the call's affair alone."""
    connection = connect()
    entries = [("user", b"somebody"), ("trace-bin", bytes(range(256))), ("user", b""), ("a.b_c-9", b"\xff" * 1000)]
    for sent in ([], entries[:1], entries, [("x" * 255, b"long")]):
        for body in (b"", contents(50), contents(700_000)):
            call = connection.call(TAGGED, body, metadata=sent)
            expect_reply(connection, call, body)
            expect("metadata of the reply", sent, call.metadata)

    out = signature("rkyv-0.8/2;raw;raw")
    call = connection.call(TAGGED_ERROR, b"as asked", metadata=entries, out_signature=out)
    expect_reply(connection, call, b"as asked", APPLICATION_ERROR)
    expect("metadata of an error", entries, call.metadata)

    call = connection.call(TAGGED_ITEMS, counted(3, 10), ITEMS_OUT, metadata=entries[:2])
    check_items(connection, call, 3, 10)
    expect("metadata before the items", entries[:2], call.metadata)
    expect("metadata behind the items", [("count", b"3")], call.end_metadata)

    for key in ("", "Upper", "with space", "k\0"):
        call = connection.call(TAGGED, b"key", metadata=[(key, b"value")])
        expect_reply(connection, call, status=BAD_REQUEST)
    for sent in ([("k", b"")] * 65, [("k", bytes(4096))] * 2):
        call = connection.call(TAGGED, b"much", metadata=sent)
        expect_reply(connection, call, status=TOO_MUCH_METADATA)
    check_echo(connection, b"still here")
    connection.finish()


def goaway(connect):
    """The server leaves while a call is in flight."""
    connection = connect()
    slow_body = contents(1_000)
    slow = connection.call(SLOW, slow_body)
    leave = connection.call(LEAVE)
    connection.pump_until(lambda: connection.accepted is not None)
    expect("GOAWAY accepts both calls", True, connection.accepted >= max(slow.number, leave.number))
    late = connection.call(ECHO, b"too late")
    expect("a call after GOAWAY is not sent", (True, 0), (late.done, late.number))
    expect_reply(connection, slow, slow_body)
    expect_reply(connection, leave)
    connection.wait_for_end()


def cancel(connect):
    """A cancelled call ends properly, and its slot is used again."""
    connection = connect()
    body = contents(100)
    call = connection.call(SLOW, body)
    connection.cancel(call)
    status, reply = connection.wait(call)
    expect(f"{status:#x} is allowed here", True, status in (OK, CANCELLED, CANCELLED_RUNNING))
    expect("body of a cancelled call", body if status == OK else b"", reply)
    again = check_echo(connection, contents(200))
    expect("slot", call.id & SLOT_BITS, again.id & SLOT_BITS)
    connection.finish()


# ---- Streams ----


def streams(connect):
    """Streams that are longer than every window, of large items and of small ones, in each direction."""
    connection = connect_narrow(connect)
    for count, length in ((80, 64 * KIB), (5_000, 3), (1, 0), (0, 0)):
        check_items(connection, connection.call(COUNT, counted(count, length), ITEMS_OUT), count, length)

        call = connection.call(GATHER, flags=ITEMS_IN, deadline=NO_DEADLINE)
        send_items(connection, call, count, length)
        expect_reply(connection, call, counted(count, count * length))

        call = connection.call(MIRROR, flags=BOTH_WAYS, deadline=NO_DEADLINE)
        send_items(connection, call, count, length)
        check_items(connection, call, count, length)
    connection.finish()


def credit(connect):
    """Nobody takes items: whoever sends them stops, and calls go on."""
    connection = connect_narrow(connect)
    for count, length, until in ((10, 64 * KIB, 4), (5_000, 1, 256)):
        call = connection.call(COUNT, counted(count, length), ITEMS_OUT)
        connection.pump_until(lambda: call.items_received >= until)
        check_echo(connection, b"meanwhile")
        expect("items within the window", until, call.items_received)
        check_items(connection, call, count, length)

    connection.finish()

    # Four streams, which together stop at three quarters of the pool.
    connection = connect_narrow(connect)
    calls = [connection.call(COUNT, counted(10, 64 * KIB), ITEMS_OUT) for _ in range(4)]

    def received():
        return sum(call.items_received for call in calls)

    connection.pump_until(lambda: received() >= 12)
    check_echo(connection, contents(200_000))
    expect("items within the pool", 12, received())
    check_all_items(connection, calls, 10, 64 * KIB)

    # The server gives credit for what its handler has taken, and here it takes nothing.
    for length, until in ((64 * KIB, 4), (1, 256)):
        call = connection.call(HOLD, flags=ITEMS_IN)
        send_items(connection, call, 1_000, length)
        for _ in range(3):
            check_echo(connection, b"meanwhile")
        expect("items within the server's window", until, call.items_sent)
        connection.cancel(call)
        expect_reply(connection, call, status=CANCELLED_RUNNING)
    connection.finish()


def cut(connect):
    """Items in several frames, with other calls between them."""
    connection = connect_narrow(connect)
    length = 300_000
    calls = [connection.call(COUNT, counted(4, length), ITEMS_OUT) for _ in range(2)]
    calls += [connection.call(MIRROR, flags=BOTH_WAYS) for _ in range(2)]
    for call in calls[2:]:
        send_items(connection, call, 4, length)
    check_echo(connection, contents(100_000))
    check_all_items(connection, calls, 4, length)
    expect("items that came in parts", 16, connection.cut_items)

    connection.part = 16
    call = connection.call(MIRROR, contents(50), BOTH_WAYS)
    send_items(connection, call, 20, 100)
    check_items(connection, call, 20, 100)
    connection.finish()


def early(connect):
    """Streams that one of the sides ends before the other is done. What comes too late does no harm, and its
    credit is not lost."""
    connection = connect_narrow(connect)
    for _ in range(10):
        call = connection.call(COUNT, counted(1_000_000, 60_000), ITEMS_OUT)
        expect("first item", item(0, 60_000), connection.next_item(call))
        connection.cancel(call)
        expect_reply(connection, call, status=CANCELLED_RUNNING)

    call = connection.call(HOLD, flags=ITEMS_IN)
    connection.send_item(call, contents(1_000))
    connection.pump_until(lambda: call.items_sent)
    connection.break_off(call, CANCELLED)
    expect_reply(connection, call, status=CANCELLED_RUNNING)

    call = connection.call(HOLD, flags=ITEMS_IN)
    connection.send_item(call, contents(300_000))
    connection.pump_until(lambda: call.items_sent and call.sending)
    connection.break_off(call, OK)  # in the middle of the item
    expect_reply(connection, call, status=CANCELLED_RUNNING)

    for _ in range(3):
        call = connection.call(FIRST, flags=ITEMS_IN)
        send_items(connection, call, 10_000, 100)
        expect_reply(connection, call, item(0, 100))

    call = connection.call(GATHER, flags=ITEMS_IN)
    connection.send_item(call, b"", Item(signature=1))
    expect_reply(connection, call, status=BAD_ITEM)

    # An error at once, and one behind items. Where there is one, RAW has a signature, too.
    out = signature("rkyv-0.8/2;unit:0:1;raw;items raw")
    call = connection.call(FAIL, counted(0, 0), ITEMS_OUT, out_signature=out)
    expect_reply(connection, call, b"nothing", APPLICATION_ERROR)
    call = connection.call(FAIL, counted(3, 10), ITEMS_OUT, out_signature=out)
    for number in range(3):
        expect("item", item(number, 10), connection.next_item(call))
    expect("end", None, connection.next_item(call))
    expect_reply(connection, call, b"enough", APPLICATION_ERROR)

    expect_reply(connection, connection.call(COUNT, counted(1, 1)), status=BAD_REQUEST)
    expect_reply(connection, connection.call(ECHO, flags=ITEMS_IN), status=BAD_REQUEST)
    check_items(connection, connection.call(COUNT, counted(100, 10_000), ITEMS_OUT), 100, 10_000)
    connection.finish()


def wrong(connect):
    """What streams do not allow closes the connection, with a code that says why."""
    total = (CRITICAL | TOTAL_LENGTH, (32).to_bytes(8, "little"))
    end, small = (END, Reply()), (ITEM, Item(), MORE, (total,), bytes(16))
    large = (ITEM, Item(), 0, (), bytes(300_000))
    too_many = [(ITEM, Item())] * (stream_items(256 * KIB) + 1)
    cases = [
        ("END twice", 30, HOLD, ITEMS_IN, [end, end]),
        ("ITEM after END", 30, HOLD, ITEMS_IN, [end, (ITEM, Item())]),
        ("ITEM without a stream", 30, SLOW, 0, [(ITEM, Item())]),
        ("END without a stream", 30, SLOW, 0, [end]),
        ("ITEM inside an ITEM", 30, HOLD, ITEMS_IN, [small, (ITEM, Item())]),
        ("DATA out of order", 14, HOLD, ITEMS_IN, [small, (DATA, Data(32), 0, (), bytes(16))]),
        ("more items than credit", 15, HOLD, ITEMS_IN, too_many),
        ("more bytes than credit", 15, HOLD, ITEMS_IN, [large, (ITEM, Item(), 0, (), b"1")]),
        ("END with a body", 8, HOLD, ITEMS_IN, [(*end, 0, (), b"body")]),
        ("no credit", 16, HOLD, ITEMS_IN, [(CREDIT, Credit(0, STREAM, ITEMS))]),
        ("too much credit", 16, COUNT, ITEMS_OUT, [(CREDIT, Credit(MAX_CREDIT, STREAM, ITEMS))]),
        ("credit in requests", 19, HOLD, ITEMS_IN, [(CREDIT, Credit(1, STREAM, 2))]),
    ]
    for what, code, method, flags, frames in cases:
        connection = connect_narrow(connect)
        call = connection.call(method, counted(1_000, 1), flags)
        for kind, header, *rest in frames:
            connection.send(Frame(kind, header, call.id, *rest))
        expect_close(connection, what, code)

    connection = connect(features=0)
    expect_reply(connection, connection.call(HOLD, flags=ITEMS_IN), status=UNSUPPORTED)
    connection.send(Frame(ITEM, Item(), 1 << 32))  # ignored
    check_echo(connection, b"still here")
    connection.send(Frame(CREDIT, Credit(1, STREAM, ITEMS), 1 << 32))
    expect_close(connection, "credit of streams without that feature", 19)


def drain(connect):
    """The server asks to stop, waits until we confirm that we have, and then counts. A stream goes on."""
    connection = connect_narrow(connect)
    call = connection.call(MIRROR, flags=BOTH_WAYS)
    connection.pump_until(lambda: connection.accepted is not None)
    expect("GOAWAY does not count yet", SOON, connection.accepted)
    connection.pump_until(lambda: connection.accepted != SOON)
    expect("LIMITS that were confirmed before it counts", 1, connection.limits_answered)
    expect("calls accepted", call.number, connection.accepted)
    send_items(connection, call, 1_000, 1_000)
    check_items(connection, call, 1_000, 1_000)
    connection.wait_for_end()


def pings(connect):
    """The server asks whether we are there when nothing comes."""
    connection = connect()
    call = connection.call(SLOW, b"for a while")
    connection.pump_until(lambda: connection.pings_answered >= 2)
    expect_reply(connection, call, b"for a while")
    check_echo(connection, b"still here")
    connection.finish()


# ---- Typed methods ----


def typed(connect):
    """Typed methods without their types: unary calls, errors, streams and one-way calls in both codecs."""
    connection = connect()
    codecs = {JSON: (lambda value: json.dumps(value).encode(), json.loads), MESSAGEPACK: (msgpack.pack, msgpack.unpack)}
    for codec, (encode, decode) in codecs.items():

        def call(name, argument, flags=0):
            return connection.call(name, encode(argument), flags, codec=codec)

        def reply(name, argument):
            status, body = connection.wait(call(name, argument))
            return status, decode(body) if body else None

        order = {"symbol": "ABC", "size": 7, "side": "Buy", "note": None, "payload": [1, 2, 255]}
        filled = {"of": order, "price": 42.5, "by": {"Named": {"host": "10.0.0.1"}}}
        expect("a reply", (OK, filled), reply("demo.Desk/put", order))
        # In another order, with something unknown, without what is optional.
        told = {"unknown": {"deep": [[1]]}, "payload": [1, 2, 255], "side": "Buy", "size": 7, "symbol": "ABC"}
        expect("a reply", (OK, filled), reply("demo.Desk/put", told))
        rejected = {"TooLarge": 5000}
        expect("an error", (APPLICATION_ERROR, rejected), reply("demo.Desk/put", {**order, "size": 5000}))
        expect("a large number", (OK, 2**64 - 1), reply("demo.Desk/size", {**order, "size": 2**64 - 1}))
        for wrong in (
            {**order, "side": "Hold"},
            {**order, "size": -1},
            {**order, "size": "7"},
            {**order, "payload": [256]},
            {key: value for key, value in order.items() if key != "size"},
            ["ABC", 7, "Buy", None, []],
            None,
        ):
            expect(f"{wrong}", (BAD_BODY, None), reply("demo.Desk/put", wrong))
        expect("cut off", (BAD_BODY, b""), connection.wait(connection.call("demo.Desk/put", b"{\x81", codec=codec)))
        # No argument is nothing, however it is said.
        expect("count", OK, reply("demo.Desk/count", None)[0])
        status, body = connection.wait(connection.call("demo.Desk/count", codec=codec))
        expect("count", True, status == OK and decode(body) >= 0)

        each = call("demo.Desk/each", order, BOTH_WAYS)
        for size in range(3):
            connection.send_item(each, encode({**order, "size": size}), Item(codec=codec))
        connection.end_items(each)
        sizes = []
        while (came := connection.next_item(each)) is not None:
            sizes.append(decode(came)["of"]["size"])
        expect("items", [7, 0, 1, 2], sizes)
        expect("the end", (OK, b""), connection.wait(each))

        bad = call("demo.Desk/each", order, BOTH_WAYS)
        connection.send_item(bad, encode({"symbol": 1}), Item(codec=codec))
        expect("a bad item", (BAD_ITEM, b""), connection.wait(bad))

        before = reply("demo.Desk/count", None)[1]
        call("demo.Desk/toss", order, ONE_WAY)
        expect("one-way calls", before + 1, reply("demo.Desk/count", None)[1])
    # Bytes go as what MessagePack has for them.
    body = msgpack.pack({"symbol": "ABC", "size": 7, "side": "Buy", "payload": b"\x01\x02\xff"})
    expect("bytes", OK, connection.wait(connection.call("demo.Desk/put", body, codec=MESSAGEPACK))[0])
    expect_reply(connection, connection.call("demo.Desk/put", b"", codec=4), status=UNKNOWN_CODEC)
    expect_reply(connection, connection.call(ECHO, b"null", codec=JSON), status=UNKNOWN_CODEC)
    connection.finish()


def table(connect):
    """The server's table of methods, and that it is what HELLO says."""
    connection = connect()
    status, page = connection.wait(connection.call("ringcall.Methods/page"))
    digest, count = (int.from_bytes(page[at : at + 8], "little") for at in (0, 8))
    rows = [page[at : at + 24] for at in range(16, len(page), 24)]
    expect("status, digest, rows", (OK, connection.peer.digest, count), (status, digest, len(rows)))
    hashed = hashlib.sha256(page[16:]).digest()[:8]
    expect("digest of the rows", digest, int.from_bytes(hashed, "little"))
    numbers = [[int.from_bytes(row[at : at + 8], "little") for at in (0, 8, 16)] for row in rows]
    expect("rows in order", sorted(numbers), numbers)
    expect("a raw method", [method_id(ECHO), 0, 0], next(row for row in numbers if row[0] == method_id(ECHO)))
    status, rest = connection.wait(connection.call("ringcall.Methods/page", (count - 1).to_bytes(8, "little")))
    expect("the last row", (OK, page[:16] + page[-24:]), (status, rest))
    status, rest = connection.wait(connection.call("ringcall.Methods/page", b"\xff" * 8))
    expect("behind the last row", (OK, page[:16]), (status, rest))
    expect_reply(connection, connection.call("ringcall.Methods/page", b"?"), status=BAD_BODY)
    connection.finish()


def reflection(connect):
    """What the server says that it serves is enough to call it; and whether it is ready."""
    connection = connect()

    def reply(name, argument=None):
        status, body = connection.wait(connection.call(name, msgpack.pack(argument), codec=MESSAGEPACK))
        return status, msgpack.unpack(body) if body else None

    names = ["demo.Echo", "demo.Desk", "ringcall.Reflection", "ringcall.Health"]
    expect("services", (OK, names), reply("ringcall.Reflection/services"))
    expect("no such service", (APPLICATION_ERROR, None), reply("ringcall.Reflection/describe", "demo.Cellar"))
    status, desk = reply("ringcall.Reflection/describe", "demo.Desk")
    methods = {method["name"]: method for method in desk["methods"]}
    expect("it is described", (OK, "demo.Desk", True), (status, desk["name"], methods["toss"]["is_one_way"]))
    # Its signatures are those of the texts, as the table of methods has them.
    status, page = connection.wait(connection.call("ringcall.Methods/page"))
    rows = [page[at : at + 24] for at in range(16, len(page), 24)]
    for method in methods.values():
        texts = [method["text_in"], method["text_out"]]
        signatures = b"".join(hashlib.sha256(text.encode()).digest()[:8] for text in texts)
        row = method_id("demo.Desk/" + method["name"]).to_bytes(8, "little") + signatures
        expect(method["name"], True, row in rows)

    expect("it is ready", (OK, "Serving"), reply("ringcall.Health/check", "demo.Desk"))
    expect("all of it is", (OK, "Serving"), reply("ringcall.Health/check", ""))
    expect("no such service", (APPLICATION_ERROR, None), reply("ringcall.Health/check", "demo.Cellar"))
    connection.finish()


# ---- What they share ----


def contents(length, seed=0):
    """Bytes that differ from place to place and from seed to seed."""
    return random.Random(seed).randbytes(length)


def check_echo(connection, body):
    return expect_reply(connection, connection.call(ECHO, body), body)


def expect_reply(connection, call, body=b"", status=OK):
    came, reply = connection.wait(call)
    expect("status and length", (hex(status), len(body)), (hex(came), len(reply)))
    expect(f"{len(body)} bytes come back unchanged", True, body == reply)
    return call


def counted(count, length):
    """Two numbers, as the methods take and give them."""
    return count.to_bytes(4, "little") + length.to_bytes(4, "little")


def item(number, length):
    """What the server sends as item with this number, and expects as such."""
    return (number.to_bytes(4, "little") * (length // 4 + 1))[:length]


def send_items(connection, call, count, length):
    for number in range(count):
        connection.send_item(call, item(number, length))
    connection.end_items(call)


def check_items(connection, call, count, length):
    check_all_items(connection, [call], count, length)


def check_all_items(connection, calls, count, length):
    """Takes what comes first: items that wait to be taken use up the pool of all streams."""
    came = {call: 0 for call in calls}
    while came:
        connection.pump_until(lambda: any(call.items or call.done for call in came))
        for call in [call for call in came if call.items or call.done]:
            taken = connection.next_item(call)
            if taken is None:
                expect("items", count, came.pop(call))
                expect_reply(connection, call)
            else:
                what = f"item {came[call]} of {count} with {length} bytes"
                expect(what, True, taken == item(came[call], length))
                came[call] += 1


def expect_close(connection, what, code):
    try:
        connection.wait_for_end()
    except ServerCloses as closes:
        expect(f"close code of {what}", code, closes.code)
    else:
        raise Failure(f"{what} is allowed")


if __name__ == "__main__":
    sys.exit(main())
