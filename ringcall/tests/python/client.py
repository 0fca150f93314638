#!/usr/bin/env python3
"""A ringcall client for Python 3.9+, written from docs/PROTOCOL.md alone.

    client.py HOST:PORT [--spec PATH] SCENARIO

It makes RAW calls over one TCP connection, many at once, with large bodies and credit. It has no streams, no
other codec and no methods of its own. `--spec` first checks the encoding against the vectors of the page.
"""

import argparse
import contextlib
import re
import select
import socket
import struct
import sys
import time
from collections import deque, namedtuple

VERSION = 1
PREFACE = b"\xf7RING\r\n" + bytes([VERSION])
MIB = 1 << 20
MAX_HEADER, MAX_HANDSHAKE, MAX_CREDIT = 16_384, 4096, 2**48
SERVER_BIT, SLOT_BITS = 1 << 63, 2**32 - 1
PART = 256 * 1024  # where a body is cut
PATIENCE_SECONDS, DEADLINE_US = 30, 40_000_000  # a scenario fails before a deadline passes

HELLO, REQUEST, REPLY, DATA, ITEM, END, CREDIT, CANCEL, PING, PONG, GOAWAY, LIMITS = range(1, 13)
FIRST_IGNORABLE_KIND = 128
ONE_WAY, ITEMS_OUT, MORE, IDEMPOTENT, ANY_OF_REQUEST, ACKNOWLEDGES = 1, 4, 8, 32, 63, 1
CRITICAL, TOTAL_LENGTH = 0x8000, 1
CALLS_POOL, REPLIES_POOL = 1, 2

OK, UNKNOWN_METHOD, SHAPE_MISMATCH, UNKNOWN_CODEC = 0, 0x4002, 0x4003, 0x4004
EXPIRED, CANCELLED, CANCELLED_RUNNING = 0x4006, 0x4009, 0xC002
ECHO, SLOW, LEAVE = "demo.Echo/echo", "demo.Echo/slow", "demo.Echo/leave"


class Failure(Exception):
    """Something else came than was expected, or nothing."""


class ProtocolError(Failure):
    """The server broke the protocol; `code` is what our GOAWAY says about it."""

    def __init__(self, code, text):
        super().__init__(f"close code {code}: {text}")
        self.code = code


def must(condition, code, text):
    if not condition:
        raise ProtocolError(code, text)


def expect(what, expected, came):
    if expected != came:
        raise Failure(f"{what}: expected {str(expected)[:300]}, came {str(came)[:300]}")


def main():
    scenarios = {run.__name__: run for run in (echo, shape, goaway, cancel)}
    parser = argparse.ArgumentParser(description="A ringcall client that checks a server.")
    parser.add_argument("address", metavar="HOST:PORT")
    parser.add_argument("--spec", metavar="PATH", help="check the vectors of this PROTOCOL.md first")
    parser.add_argument("scenario", choices=scenarios)
    arguments = parser.parse_args()
    host, _, port = arguments.address.rpartition(":")
    try:
        if arguments.spec:
            self_test(arguments.spec)
        scenarios[arguments.scenario](Connection(host.strip("[]"), int(port)))
    except (Failure, OSError) as error:
        print(f"{arguments.scenario}: {type(error).__name__}: {error}")
        return 1
    print(f"ok {arguments.scenario}")
    return 0


# ---- Scenarios ----

def echo(connection):
    """Bodies of many sizes, one after the other and 20 at once, and a PING."""
    for length in (0, 1, 15, 16, 17, 5_000, 300_000, 3_000_000):
        check_echo(connection, contents(length))
    # Together 6 MB, small and large mixed: with the bodies before, more than our replies window.
    bodies = [contents(i * 31_337, seed=i) for i in range(20)]
    calls = [connection.call(ECHO, body) for body in bodies]
    for call, body in zip(calls, bodies):
        expect_reply(connection, call, body)
    connection.ping(b"is anybody there")
    connection.finish()


def shape(connection):
    """Calls that are refused, and that the connection survives them."""
    expect_reply(connection, connection.call(ECHO, b"shape", in_signature=1), status=SHAPE_MISMATCH)
    expect_reply(connection, connection.call("demo.Echo/nothing", b"method"), status=UNKNOWN_METHOD)
    check_echo(connection, b"still here")
    expect_reply(connection, connection.call(ECHO, b"codec", codec=1), status=UNKNOWN_CODEC)
    expect_reply(connection, connection.call(ECHO, b"late", deadline=0), status=EXPIRED)
    check_echo(connection, b"still here after all")
    connection.finish()


def goaway(connection):
    """The server leaves while a call is in flight."""
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


def cancel(connection):
    """A cancelled call ends properly, and its slot is used again."""
    body = contents(100)
    call = connection.call(SLOW, body)
    connection.cancel(call)
    status, reply = connection.wait(call)
    expect(f"{status:#x} is allowed here", True, status in (OK, CANCELLED, CANCELLED_RUNNING))
    expect("body of a cancelled call", body if status == OK else b"", reply)
    again = check_echo(connection, contents(200))
    expect("slot", call.id & SLOT_BITS, again.id & SLOT_BITS)
    connection.finish()


def contents(length, seed=0):
    """Bytes that differ from place to place and from seed to seed."""
    words = ((i * 2_654_435_761 + seed * 40_503) % 2**32 for i in range(length // 4 + 1))
    return b"".join(word.to_bytes(4, "little") for word in words)[:length]


def check_echo(connection, body):
    return expect_reply(connection, connection.call(ECHO, body), body)


def expect_reply(connection, call, body=b"", status=OK):
    came, reply = connection.wait(call)
    expect("status and length", (hex(status), len(body)), (hex(came), len(reply)))
    expect(f"{len(body)} bytes come back unchanged", True, body == reply)
    return call


# ---- The connection ----


class Connection:
    """The client's end of a connection. Nothing happens behind the caller's back: whoever waits for
    something pumps frames until it is there."""

    def __init__(self, host, port):
        self.accepted = None  # what GOAWAY said, if it came
        self._peer = None  # the server's HELLO, if it came; LIMITS changes it
        self._preface_seen = False
        self._ended = False  # the server has ended its stream
        self._inbox = bytearray()
        self._outbox = bytearray(PREFACE)
        self._waiting = deque()  # calls without a slot or without credit yet
        self._calls = {}  # calls in flight, by message id
        self._requests_sent = self._requests_taken = 0
        self._limits = self._ping = None  # not yet answered
        self._pong = None  # the last PONG that came
        self._credit = 0  # what we may send; only in the calls pool, since our replies have no body
        self._granted = {CALLS_POOL: OUR_HELLO.calls_window, REPLIES_POOL: OUR_HELLO.replies_window}
        self._give_up = time.monotonic() + PATIENCE_SECONDS
        self._socket = socket.create_connection((host, port), timeout=PATIENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._send(Frame(HELLO, OUR_HELLO))
        self.pump_until(lambda: self._peer is not None)

    # What a scenario uses

    def call(self, name, body=b"", in_signature=0, codec=0, deadline=DEADLINE_US):
        """Begins a call. It fails at once after GOAWAY."""
        call = Call(Request(method_id(name), in_signature, deadline=deadline, codec=codec), body)
        if self.accepted is None:
            self._waiting.append(call)
            self._start_waiting_calls()
        else:
            call.fail("not sent after GOAWAY")
        return call

    def wait(self, call):
        """Status and body of the reply, whatever the status is."""
        self.pump_until(lambda: call.done)
        if call.error:
            raise call.error
        return call.reply.first.header.status, bytes(call.reply.data)

    def cancel(self, call):
        """Gives a call up when it is sent. It is still to be waited for: the server may have been faster."""
        self.pump_until(lambda: call.id is not None or call.done)
        call.sent = len(call.body)  # the rest is not sent
        self._send(Frame(CANCEL, Cancel(), call.id))

    def ping(self, payload):
        """Returns when the PONG with these 16 bytes is here."""
        self._send(Frame(PING, Probe(payload)))
        self.pump_until(lambda: self._pong == Probe(payload))

    def wait_for_end(self):
        """Returns when the server has ended its stream between two frames."""
        self.pump_until(lambda: self._ended)

    def finish(self):
        """Ends this side's stream and waits for the server's end."""
        self.pump_until(lambda: not (self._outbox or self._ping or self._limits))
        self._socket.shutdown(socket.SHUT_WR)
        self.wait_for_end()

    # Reading and writing

    def pump_until(self, done):
        """Sends what may be sent and handles what arrives until `done()`."""
        while not done():
            if self._ended or time.monotonic() > self._give_up:
                raise Failure("the server has closed" if self._ended else "it takes too long")
            self._fill_outbox()
            writers = [self._socket] if self._outbox else []
            readable, writable, _ = select.select([self._socket], writers, [], 0.5)
            try:
                if readable:
                    self._read()
            except ProtocolError as error:
                self._close(error.code)
                raise
            if writable:
                self._write()

    def _read(self):
        data = self._socket.recv(1 << 18)
        if not data:
            must(not self._inbox, 20, "the stream ended inside a frame")
            must(not any(call.reply for call in self._calls.values()), 20, "the stream ended inside a body")
            self._ended = True
        self._inbox += data
        if not self._preface_seen:
            if len(self._inbox) < len(PREFACE):
                return
            if not self._inbox.startswith(PREFACE):
                raise Failure(f"not a ringcall server of version {VERSION}: {self._inbox[:8].hex()}")
            del self._inbox[: len(PREFACE)]
            self._preface_seen = True
        while True:
            longest = OUR_HELLO.largest_message + MAX_HEADER if self._peer else MAX_HANDSHAKE - HEAD.size
            frame, size = decode_frame(self._inbox, longest)
            if frame is None:
                return
            del self._inbox[:size]
            self._handle(frame)

    def _write(self):
        try:
            del self._outbox[: self._socket.send(self._outbox)]
        except (BrokenPipeError, ConnectionResetError):
            # One of the sides has ended this direction. A GOAWAY that says why may still come.
            self._outbox.clear()

    def _send(self, frame):
        self._outbox += frame.encode()

    def _close(self, code):
        """Says why, as far as the socket takes it, and closes."""
        if self._preface_seen:
            self._send(Frame(GOAWAY, GoAway(self._requests_taken, code)))
        with self._socket, contextlib.suppress(OSError):
            self._socket.settimeout(1.0)
            self._socket.sendall(self._outbox)

    # Calls on their way out

    def _fill_outbox(self):
        """Begins the calls that can begin. When there is nothing else to send, the last PING and LIMITS are
        answered and a large body goes on by a part, so that small calls pass it."""
        self._start_waiting_calls()
        if self._outbox:
            return
        if self._ping:
            self._send(Frame(PONG, self._ping))
            self._ping = None
        uploads = [call for call in self._calls.values() if call.uploads()]
        if self._limits and not uploads:
            # Calls made from now on have the new limits; there were none since LIMITS came.
            self._send(Frame(LIMITS, self._limits, flags=ACKNOWLEDGES))
            self._peer = self._peer._replace(**self._limits._asdict())
            self._limits = None
        if uploads:
            self._send(min(uploads, key=lambda call: call.sent).next_frame())

    def _start_waiting_calls(self):
        while self._waiting and not self._limits:
            call = self._waiting[0]
            used = {id & SLOT_BITS for id in self._calls}
            slot = next((slot for slot in range(self._peer.in_flight) if slot not in used), None)
            if len(call.body) > self._peer.largest_message:
                raise Failure(f"the server takes at most {self._peer.largest_message} bytes")
            if slot is None or len(call.body) > self._credit:
                return
            self._waiting.popleft()
            # All of the body is charged now, even if the rest will never be sent.
            self._credit -= len(call.body)
            call.number = self._requests_sent = self._requests_sent + 1
            # Counted for all slots together, the generation is different for each of them, too.
            call.id = call.number % 2**31 << 32 | slot
            self._calls[call.id] = call
            self._send(call.next_frame())

    # Frames that arrive

    def _handle(self, frame):
        name = KINDS[frame.kind].name if frame.kind in KINDS else "unknown"
        must((self._peer is None) == (frame.kind == HELLO), 9, f"{name}, but HELLO comes first and once")
        if frame.kind in (HELLO, PING, PONG, GOAWAY, LIMITS):
            must(frame.id == 0, 11, f"{name} with message id {frame.id:#x}")
        if frame.kind in (REQUEST, CANCEL, REPLY):
            must((frame.id >= SERVER_BIT) == (frame.kind != REPLY), 11, f"{name} for {frame.id:#x}")
        # Kinds of the future, ITEM and END are ignored, and CANCEL, since calls are answered at once.
        handler = getattr(self, f"_on_{name.lower()}", None)
        if handler:
            handler(frame)

    def _on_hello(self, frame):
        hello = frame.header
        must(hello.lowest_version <= VERSION <= hello.highest_version, 2, f"no common version: {hello}")
        must(hello.in_flight > 0, 9, f"{hello}")
        for window in (hello.calls_window, hello.replies_window):
            must(0 < 2 * hello.largest_message <= window <= MAX_CREDIT, 9, f"the windows of {hello}")
        self._peer = hello
        self._credit = hello.calls_window

    def _on_request(self, frame):
        """Calls are answered when their first frame is here; DATA may still follow."""
        must(frame.id & SLOT_BITS < OUR_HELLO.in_flight, 12, f"slot of {frame.id:#x}")
        body = self._take_body(frame, CALLS_POOL)
        self._requests_taken += 1
        if not frame.flags & ONE_WAY:
            self._send(Frame(REPLY, Reply(status=UNKNOWN_METHOD), frame.id))
        self._give_credit(CALLS_POOL, body)

    def _on_reply(self, frame):
        must(not frame.flags & ITEMS_OUT, 19, "REPLY with items")
        body = self._take_body(frame, REPLIES_POOL)
        call = self._calls.get(frame.id)
        if call is None or call.reply:
            self._give_credit(REPLIES_POOL, body)
            return
        refused_or_unknown = frame.header.status >> 14 in (1, 3)
        must(not body.total or not refused_or_unknown, 8, f"status {frame.header.status:#x} with a body")
        call.reply = body
        self._finish_if_complete(call)

    def _on_data(self, frame):
        call = self._calls.get(frame.id)
        if call:
            must(call.reply, 14, f"DATA before the REPLY to {frame.id:#x}")
            call.reply.add(frame)
            self._finish_if_complete(call)

    def _take_body(self, first, pool):
        body = IncomingBody(first)
        self._granted[pool] -= body.total
        must(self._granted[pool] >= 0, 15, f"{-self._granted[pool]} bytes more than there was credit for")
        return body

    def _finish_if_complete(self, call):
        if not call.reply.complete():
            return
        del self._calls[call.id]
        self._give_credit(REPLIES_POOL, call.reply)
        header, unknown = call.reply.first.header, critical_tags(call.reply.first.extensions)
        if unknown or header.signature or header.codec or header.compression:
            call.fail(f"cannot read {header} with critical extensions {unknown}")
        call.done = True

    def _give_credit(self, pool, body):
        if body.total:
            self._granted[pool] += body.total
            self._send(Frame(CREDIT, Credit(body.total, pool)))

    def _on_credit(self, frame):
        credit = frame.header
        must(credit.pool in (CALLS_POOL, REPLIES_POOL) and credit.unit == 0, 19, f"{credit}")
        must(frame.id == 0, 11, f"{credit} with message id {frame.id:#x}")
        must(credit.amount > 0, 16, f"{credit}")
        if credit.pool == CALLS_POOL:
            self._credit += credit.amount
            must(self._credit <= MAX_CREDIT, 16, f"{credit}, now {self._credit}")

    def _on_ping(self, frame):
        self._ping = frame.header

    def _on_pong(self, frame):
        self._pong = frame.header

    def _on_goaway(self, frame):
        if frame.header.code != 0:
            raise Failure(f"the server closes with code {frame.header.code}")
        accepted = frame.header.accepted
        self.accepted = accepted if self.accepted is None else min(accepted, self.accepted)
        not_taken = [call for call in self._calls.values() if call.number > self.accepted]
        for call in [*self._waiting, *not_taken]:
            call.fail("not taken by a server that leaves")
            self._calls.pop(call.id, None)
        self._waiting.clear()

    def _on_limits(self, frame):
        if frame.flags & ACKNOWLEDGES:
            return
        limits, window = frame.header, min(self._peer.calls_window, self._peer.replies_window)
        must(limits.in_flight and 0 < 2 * limits.largest_message <= window, 8, f"senseless {limits}")
        self._limits = limits


class Call:
    """A call of this side: waiting to be sent, in flight (it has an id then), or done."""

    def __init__(self, request, body):
        self.request = request
        self.body = body
        self.sent = 0
        self.id, self.number = None, 0
        self.reply = self.error = None  # the reply is an IncomingBody, when it has begun
        self.done = False

    def fail(self, text):
        self.error, self.done = Failure(text), True

    def uploads(self):
        """Whether more of the body is to be sent."""
        return self.sent < len(self.body) and not self.reply

    def next_frame(self):
        """REQUEST or DATA with the next part of the body."""
        start, rest = self.sent, self.body[self.sent :]
        part = rest[:PART]
        self.sent += len(part)
        if start:
            return Frame(DATA, Data(start), self.id, body=part)
        if part == rest:
            return Frame(REQUEST, self.request, self.id, body=part)
        total = (CRITICAL | TOTAL_LENGTH, len(rest).to_bytes(8, "little"))
        return Frame(REQUEST, self.request, self.id, MORE, (total,), part)


class IncomingBody:
    """A body that arrives in one frame or in several."""

    def __init__(self, first):
        self.first = first
        self.data = bytearray(first.body)
        self.total = len(first.body)
        for tag, value in first.extensions:
            if tag & ~CRITICAL == TOTAL_LENGTH:
                self.total = int.from_bytes(value, "little")
        must(self.total <= OUR_HELLO.largest_message, 3, f"a body of {self.total} bytes")
        must(self.complete() == (not first.flags & MORE), 8, f"'more' contradicts a total of {self.total}")
        self._check()

    def add(self, frame):
        """Appends what a DATA frame has."""
        must(frame.header.offset == len(self.data), 14, f"{frame.header}, not {len(self.data)}")
        must(frame.body, 8, "DATA without data")
        self.data += frame.body
        self._check()

    def complete(self):
        return len(self.data) == self.total

    def _check(self):
        cut = len(self.data) < self.total and len(self.data) % 16 == 0
        must(cut or self.complete(), 8, f"{len(self.data)} bytes of a body of {self.total}")


def method_id(name):
    """FNV-1a, 64 bits, of `Service/method`."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


# ---- Frames ----


def header(layout, fields):
    """A tuple for the fixed part of a header. Fields are 0 if not said."""
    header_type = namedtuple("Header", fields, defaults=[0] * len(fields.split()))
    header_type.LAYOUT = struct.Struct(layout)
    return header_type


Hello = header(
    "<BBBxI7Q16s",
    "lowest_version highest_version archive_format in_flight features codecs largest_message calls_window"
    " replies_window stream_window digest instance",
)
Request = header("<QQQIBBBB", "method in_signature out_signature deadline codec compression priority attempt")
Reply = header("<QHBBIIHHB7x", "signature status codec compression waited took load retry_after admission")
Data = header("<Q8x", "offset")
Item = header("<QBB6x", "signature codec compression")
Credit = header("<QBB6x", "amount pool unit")
Cancel = header("<B15x", "reason")
Probe = header("<16s", "payload")
GoAway = header("<QH6x", "accepted code")
Limits = header("<I4xQ", "in_flight largest_message")
Kind = namedtuple("Kind", "name header_type flags has_body", defaults=[0, False])
KINDS = {
    HELLO: Kind("HELLO", Hello),
    REQUEST: Kind("REQUEST", Request, ANY_OF_REQUEST, True),
    REPLY: Kind("REPLY", Reply, ITEMS_OUT | MORE, True),
    DATA: Kind("DATA", Data, 0, True),
    ITEM: Kind("ITEM", Item, MORE, True),
    END: Kind("END", Reply, MORE, True),
    CREDIT: Kind("CREDIT", Credit),
    CANCEL: Kind("CANCEL", Cancel),
    PING: Kind("PING", Probe),
    PONG: Kind("PONG", Probe),
    GOAWAY: Kind("GOAWAY", GoAway),
    LIMITS: Kind("LIMITS", Limits, ACKNOWLEDGES),
}
HEAD, TLV = struct.Struct("<IBBHQ"), struct.Struct("<HH")
OUR_HELLO = Hello(VERSION, VERSION, 2, 16, 0, 1, 3 * MIB, 6 * MIB, 6 * MIB, MIB, 0, bytes(16))


class Frame(namedtuple("Frame", "kind header id flags extensions body", defaults=[0, 0, (), b""])):
    """One frame; `header` is one of the tuples above, or None for a kind that is ignored."""

    def encode(self):
        front = self.header.LAYOUT.pack(*self.header) + encode_extensions(self.extensions)
        length = len(front) + len(self.body)
        head = HEAD.pack(length, self.kind, self.flags, len(front), self.id)
        return b"".join((head, front, self.body, bytes(-length % 16)))


def decode_frame(data, longest):
    """The frame at the start of `data` and its size; None twice if it has not arrived completely."""
    if len(data) < HEAD.size:
        return None, None
    length, kind, flags, header_length, id = HEAD.unpack_from(data)
    what = f"kind {kind}, flags {flags:#x}, length {length}, header length {header_length}"
    must(header_length % 16 == 0 and header_length <= min(length, MAX_HEADER), 4, what)
    must(kind in KINDS or kind >= FIRST_IGNORABLE_KIND, 6, what)
    _, header_type, allowed_flags, has_body = KINDS.get(kind, (None, None, 0xFF, True))
    must(flags & ~allowed_flags == 0, 7, what)
    must(length <= longest, 3, what)
    must(has_body or length == header_length, 8, what)
    must(header_type is None or header_length >= header_type.LAYOUT.size, 4, what)
    header_end = HEAD.size + header_length
    body_end = HEAD.size + length
    size = body_end + -length % 16
    if len(data) < size:
        return None, None
    must(not any(data[body_end:size]), 5, f"padding: {what}")
    if header_type is None:
        return Frame(kind, None, id, flags), size
    fixed = header_type(*header_type.LAYOUT.unpack_from(data, HEAD.size))
    extensions = decode_extensions(bytes(data[HEAD.size + header_type.LAYOUT.size : header_end]))
    must(kind in (REQUEST, REPLY) or not critical_tags(extensions), 10, f"{extensions}: {what}")
    return Frame(kind, fixed, id, flags, extensions, bytes(data[header_end:body_end])), size


def encode_extensions(extensions):
    encoded = b"".join(TLV.pack(tag, len(data)) + data + bytes(-len(data) % 4) for tag, data in extensions)
    return encoded + bytes(-len(encoded) % 16)


def decode_extensions(data):
    """The TLVs behind a fixed part as (tag, value); `data` is a multiple of 16 long."""
    found = []
    at = 0
    while at < len(data):
        tag, length = TLV.unpack_from(data, at)
        start = at + TLV.size
        at = start + length + -length % 4
        must(at <= len(data) and not any(data[start + length : at]), 4, f"end of extension {tag:#x}")
        must(tag or not length, 4, "tag 0 with a length")
        if tag:
            found.append((tag, data[start : start + length]))
    totals = [len(value) for tag, value in found if tag & ~CRITICAL == TOTAL_LENGTH]
    must(totals in ([], [8]), 4, "a total length that is not 8 bytes or comes twice")
    return tuple(found)


def critical_tags(extensions):
    """The tags that may not be ignored."""
    return [tag for tag, _ in extensions if tag & CRITICAL and tag != CRITICAL | TOTAL_LENGTH]


# ---- Self-test: the vectors of the page ----


def self_test(path):
    """Decodes every vector of the page and encodes it again; checks what the page says about them."""
    with open(path, encoding="utf-8") as page:
        blocks = re.findall(r"^```vector (\S+)\n(.*?)^```", page.read(), re.MULTILINE | re.DOTALL)
    vectors = {name: bytes.fromhex(digits) for name, digits in blocks}
    frames = described_vectors()
    expect("vectors", sorted([*frames, "preface", "extensions-all"]), sorted(name for name, _ in blocks))
    expect(f"method id of {ECHO}", 0x0AA4EACC3C830123, method_id(ECHO))
    expect("preface", PREFACE.hex(), vectors["preface"].hex())
    for name, frame in frames.items():
        data = vectors[name]
        expect(name, (frame, len(data)), decode_frame(data, longest=len(data)))
        expect(f"{name}, encoded", data.hex(), frame.encode().hex())

    extensions = decode_extensions(vectors["extensions-all"])
    expect("extensions-all", vectors["extensions-all"].hex(), encode_extensions(extensions).hex())
    expect("tags of extensions-all", list(range(1, 16)), [tag & ~CRITICAL for tag, _ in extensions])
    body = IncomingBody(frames["request-more"])
    body.add(frames["data"])
    expect("request-more with data", (True, b"front of a body tail"), (body.complete(), bytes(body.data)))


def described_vectors():
    """What the text beside the vectors says."""
    call = 3 << 32 | 7
    total = (CRITICAL | TOTAL_LENGTH, (20).to_bytes(8, "little"))
    first = Request(method_id(ECHO), deadline=1_000_000)
    pattern = bytes(range(16))
    hello = Hello(1, 1, 2, 1024, 0, 3, 4 * MIB, 8 * MIB, 8 * MIB, MIB, 0x1122334455667788, pattern)
    reply = Reply(waited=5, took=42, load=100, retry_after=250, admission=2)
    return {
        "hello": Frame(HELLO, hello),
        "request": Frame(REQUEST, first._replace(attempt=1), call, IDEMPOTENT, body=b"hello"),
        "request-one-way": Frame(REQUEST, first, 1 << 32, ONE_WAY),
        "request-more": Frame(REQUEST, first, call, MORE, (total,), b"front of a body "),
        "request-extensions": Frame(REQUEST, first, 2 << 32, extensions=((6, b"blu"), (14, b"\x03key++"))),
        "reply": Frame(REPLY, reply, call, body=b"hello"),
        "data": Frame(DATA, Data(16), call, body=b"tail"),
        "item": Frame(ITEM, Item(0x0807060504030201, 1, 0), call, body=b"item"),
        "end": Frame(END, Reply(), call),
        "credit": Frame(CREDIT, Credit(2 * MIB, CALLS_POOL)),
        "cancel": Frame(CANCEL, Cancel(reason=1), call),
        "ping": Frame(PING, Probe(pattern)),
        "pong": Frame(PONG, Probe(pattern)),
        "goaway": Frame(GOAWAY, GoAway(41, 0)),
        "limits": Frame(LIMITS, Limits(64, 65536)),
        "limits-ack": Frame(LIMITS, Limits(64, 65536), flags=ACKNOWLEDGES),
    }


if __name__ == "__main__":
    sys.exit(main())
