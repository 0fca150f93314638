#!/usr/bin/env python3
"""A ringcall client for Python 3.9+, written from docs/PROTOCOL.md alone.

    client.py HOST:PORT [--spec PATH] SCENARIO

It makes RAW calls (codec 0) over one TCP connection: many at once, large bodies cut and put together, credit
in both directions. It knows no streams and no other codec, and has no methods: calls of the server get
UNKNOWN_METHOD. `--spec` first checks the encoding against the vectors of the page.
"""

import argparse
import re
import select
import socket
import struct
import sys
import time
from collections import deque, namedtuple
from typing import NamedTuple

# Numbers of the page

VERSION = 1
PREFACE = b"\xf7RING\r\n" + bytes([VERSION])
MAX_HEADER = 16_384
MAX_HANDSHAKE_FRAME = 4096
MAX_CREDIT = 2**48
MAX_DEADLINE = 2**32 - 2
HANDSHAKE_SECONDS = 5.0
SILENCE_SECONDS = 10.0
PART = 256 * 1024  # where a body is cut
SERVER_BIT = 1 << 63

HELLO, REQUEST, REPLY, DATA, ITEM, END, CREDIT, CANCEL, PING, PONG, GOAWAY, LIMITS = range(1, 13)
FIRST_IGNORABLE_KIND = 128
ONE_WAY, ITEMS_OUT, MORE, IDEMPOTENT = 1, 4, 8, 32
ACKNOWLEDGES = 1
CRITICAL = 0x8000
TOTAL_LENGTH = 1
RAW = 0
CALLS_POOL, REPLIES_POOL = 1, 2
NOT_WANTED, TOO_LATE = 0, 1

OK = 0x0000
UNKNOWN_METHOD = 0x4002
SHAPE_MISMATCH = 0x4003
UNKNOWN_CODEC = 0x4004
EXPIRED = 0x4006
CANCELLED = 0x4009
CANCELLED_RUNNING = 0xC002


class ProtocolError(Exception):
    """The server broke the protocol; `code` is what our GOAWAY says about it."""

    def __init__(self, code, text):
        super().__init__(f"close code {code}: {text}")
        self.code = code


class Failure(Exception):
    """Something else came than was expected, or nothing."""


class GoingAway(Failure):
    """A call that was not and will not be run, since the server leaves."""


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
    except (Failure, ProtocolError, OSError) as error:
        print(f"{arguments.scenario}: {type(error).__name__}: {error}")
        return 1
    print(f"ok {arguments.scenario}")
    return 0


# ---------------------------------------------------------------------------------------------------
# Scenarios

ECHO = "demo.Echo/echo"
SLOW = "demo.Echo/slow"
LEAVE = "demo.Echo/leave"


def echo(connection):
    """Bodies of many sizes, one after the other and 20 at once, and a PING."""
    for length in (0, 1, 15, 16, 17, 5_000, 300_000, 3_000_000):
        check_echo(connection, contents(length))
    # Together 6 MB, small and large mixed: with the bodies before, more than our replies window.
    bodies = [contents(i * 31_337, seed=i) for i in range(20)]
    calls = [connection.call(ECHO, body) for body in bodies]
    for call, body in zip(calls, bodies):
        expect_echo(connection.wait(call), body)
    connection.ping(b"is anybody there")
    connection.finish()


def shape(connection):
    """Calls that are refused, and that the connection survives them."""
    expect_status(connection, SHAPE_MISMATCH, connection.call(ECHO, b"shape", in_signature=1))
    expect_status(connection, UNKNOWN_METHOD, connection.call("demo.Echo/nothing", b"method"))
    check_echo(connection, b"still here")
    expect_status(connection, UNKNOWN_CODEC, connection.call(ECHO, b"codec", codec=1))
    expect_status(connection, EXPIRED, connection.call(ECHO, b"late", deadline=0))
    check_echo(connection, b"still here after all")
    connection.finish()


def goaway(connection):
    """The server leaves while a call is in flight."""
    slow_body = contents(1_000)
    slow = connection.call(SLOW, slow_body)
    leave = connection.call(LEAVE)
    connection.wait_for_goaway()
    last = max(slow.number, leave.number)
    expect("GOAWAY accepts both calls", True, connection.accepted >= last)
    try:
        connection.call(ECHO, b"too late")
    except GoingAway:
        pass
    else:
        raise Failure("a call was sent after GOAWAY")
    expect_echo(connection.wait(slow), slow_body)
    expect_echo(connection.wait(leave), b"")
    connection.wait_for_end()


def cancel(connection):
    """A cancelled call ends properly, and its slot is used again."""
    body = contents(100)
    call = connection.call(SLOW, body)
    connection.cancel(call)
    status, reply = connection.wait(call)
    expect("status of a cancelled call", True, status in (OK, CANCELLED, CANCELLED_RUNNING))
    expect("body of a cancelled call", body if status == OK else b"", reply)
    again = check_echo(connection, contents(200))
    expect("slot", call.slot, again.slot)
    connection.finish()


def contents(length, seed=0):
    """Bytes that differ from place to place and from seed to seed."""
    words = ((i * 2_654_435_761 + seed * 40_503) % 2**32 for i in range(length // 4 + 1))
    return b"".join(word.to_bytes(4, "little") for word in words)[:length]


def check_echo(connection, body):
    call = connection.call(ECHO, body)
    expect_echo(connection.wait(call), body)
    return call


def expect_echo(answer, body):
    status, reply = answer
    expect(f"status for {len(body)} bytes", hex(OK), hex(status))
    expect(f"length of the reply to {len(body)} bytes", len(body), len(reply))
    different = next((i for i, (a, b) in enumerate(zip(body, reply)) if a != b), None)
    expect(f"first different byte of the reply to {len(body)} bytes", None, different)


def expect_status(connection, status, call):
    expect("status", hex(status), hex(connection.wait(call)[0]))


def expect(what, expected, came):
    if expected != came:
        raise Failure(f"{what}: expected {str(expected)[:300]}, came {str(came)[:300]}")


# ---------------------------------------------------------------------------------------------------
# The connection


class Connection:
    """The client's end of a connection. Nothing happens behind the caller's back: whoever waits for
    something pumps frames until it is there."""

    def __init__(self, host, port):
        self.accepted = None  # what GOAWAY said, if it came
        self._peer = None  # the server's HELLO, if it came; changed by LIMITS
        self._preface_seen = False
        self._ended = False  # the server has ended its stream
        self._may_write = True
        self._inbox = bytearray()
        self._outbox = bytearray(PREFACE)
        self._waiting = deque()  # calls without a slot or without credit yet
        self._calls = {}  # calls in flight, by message id
        self._uploads = deque()  # those of them whose body is not sent completely
        self._bodies = {}  # what arrives in parts, replies and calls of the server, by message id
        self._requests_sent = 0
        self._requests_taken = 0
        self._limits = None  # LIMITS without an answer yet
        self._pong = None  # the PONG to be sent
        self._last_pong = None  # the one that came
        self._credit = {}  # what may be sent, by pool
        self._windows = {
            CALLS_POOL: Window(OUR_HELLO.calls_window),
            REPLIES_POOL: Window(OUR_HELLO.replies_window),
        }
        self._ignored = Budget(1 << 20, 18, "too much that had to be ignored")
        self._stray_replies = Budget(64, 17, "too many replies to calls that do not exist")
        self._handlers = {
            REQUEST: self._on_request,
            REPLY: self._on_reply,
            DATA: self._on_data,
            CREDIT: self._on_credit,
            CANCEL: self._on_cancel,
            PING: self._on_ping,
            PONG: self._on_pong,
            GOAWAY: self._on_goaway,
            LIMITS: self._on_limits,
        }

        self._opened = self._last_progress = time.monotonic()
        self._socket = socket.create_connection((host, port), timeout=SILENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._send(Frame(HELLO, OUR_HELLO))
        self._pump_until(lambda: self._peer is not None)

    # What a scenario uses

    def call(self, name, body=b"", in_signature=0, codec=RAW, deadline=30.0):
        """Begins a call. The deadline is in seconds; 0 is sent as it is and expires there, not here."""
        if self.accepted is not None:
            raise GoingAway("no calls after GOAWAY")
        call = Call(Request(method_id(name), in_signature, codec=codec), body, deadline)
        self._waiting.append(call)
        self._start_waiting_calls()
        return call

    def wait(self, call):
        """Status and body of the reply, whatever the status is."""
        self._pump_until(call.done)
        if call.error is not None:
            raise call.error
        return call.reply.first.header.status, bytes(call.reply.data)

    def cancel(self, call, reason=NOT_WANTED):
        """Gives a call up that was begun. It is still to be waited for: the server may have been faster."""
        if call.id in self._calls and not call.cancelled:
            call.cancelled = True
            self._stop_upload(call)
            self._send(Frame(CANCEL, Cancel(reason), call.id))

    def ping(self, payload):
        """Returns when the PONG with these 16 bytes is here."""
        self._send(Frame(PING, Probe(payload)))
        self._pump_until(lambda: self._last_pong == payload)

    def wait_for_goaway(self):
        self._pump_until(lambda: self.accepted is not None)

    def wait_for_end(self):
        """Returns when the server has ended its stream between two frames."""
        self._pump_until(lambda: self._ended)
        self._socket.close()

    def finish(self):
        """Ends this side's stream and waits for the server's end."""
        self._pump_until(lambda: not (self._outbox or self._pong or self._limits))
        self._socket.shutdown(socket.SHUT_WR)
        self._may_write = False
        self.wait_for_end()

    # Reading and writing

    def _pump_until(self, done):
        while not done():
            if self._ended:
                raise Failure("the server closed the connection")
            try:
                self._pump()
            except ProtocolError as error:
                self._close(error.code)
                raise

    def _pump(self):
        """Sends what may be sent, waits for the socket, and handles what has arrived."""
        self._expire_calls()
        self._fill_outbox()
        writers = [self._socket] if self._outbox else []
        readable, writable, _ = select.select([self._socket], writers, [], 0.5)
        if readable or writable:
            self._last_progress = time.monotonic()
        if readable:
            self._read()
        if writable:
            self._write()
        self._check_time()

    def _read(self):
        data = self._socket.recv(1 << 18)
        if not data:
            if self._inbox or self._bodies:
                raise ProtocolError(20, "the stream ended inside a frame or a body")
            self._ended = True
            return
        self._inbox += data
        if not self._preface_seen and not self._take_preface():
            return
        while True:
            # The first frame is HELLO, and has a limit of its own.
            largest = None if self._peer is None else OUR_HELLO.largest_message
            decoded = decode_frame(self._inbox, largest)
            if decoded is None:
                return
            frame, size = decoded
            del self._inbox[:size]
            self._handle(frame, size)

    def _take_preface(self):
        preface = bytes(self._inbox[: len(PREFACE)])
        magic = preface[:7]
        if magic != PREFACE[: len(magic)]:
            raise Failure(f"not a ringcall server: {magic.hex()}")
        if len(preface) < len(PREFACE):
            return False
        self._preface_seen = True
        if preface != PREFACE:
            raise ProtocolError(2, f"version {preface[7]}")
        del self._inbox[: len(PREFACE)]
        return True

    def _write(self):
        try:
            del self._outbox[: self._socket.send(self._outbox)]
        except (BrokenPipeError, ConnectionResetError):
            # A GOAWAY that says why may still be there to be read.
            self._may_write = False
            self._outbox.clear()

    def _send(self, frame):
        if self._may_write:
            self._outbox += frame.encode()

    def _check_time(self):
        now = time.monotonic()
        if self._peer is None and now > self._opened + HANDSHAKE_SECONDS:
            raise ProtocolError(21, "no HELLO in time")
        if now > self._last_progress + SILENCE_SECONDS:
            if self._inbox or self._bodies:
                raise ProtocolError(22, "a frame or body stopped arriving")
            raise Failure("nothing more came from the server")

    def _close(self, code):
        """Says why, if the other side speaks the protocol and as far as the socket takes it, and closes."""
        if self._preface_seen:
            self._send(Frame(GOAWAY, GoAway(self._requests_taken, code)))
        try:
            self._socket.settimeout(1.0)
            self._socket.sendall(self._outbox)
        except OSError:
            pass
        self._socket.close()

    # Calls on their way out

    def _expire_calls(self):
        now = time.monotonic()
        for call in list(self._calls.values()):
            if call.expires is not None and now > call.expires:
                self.cancel(call, TOO_LATE)

    def _fill_outbox(self):
        """Begins the calls that can begin. What may be late follows when nothing else is to be sent: only the
        last PONG and the last answer to LIMITS, and large bodies part by part, so that small calls pass."""
        self._start_waiting_calls()
        if self._outbox:
            return
        if self._pong:
            self._send(Frame(PONG, self._pong))
            self._pong = None
        if self._limits and not self._uploads:
            # Behind the calls that had begun; further ones wait and have the new limits.
            self._send(Frame(LIMITS, self._limits, flags=ACKNOWLEDGES))
            self._peer = self._peer._replace(**self._limits._asdict())
            self._limits = None
        if self._uploads:
            call = self._uploads.popleft()
            part = call.body[call.sent : call.sent + PART]
            self._send(Frame(DATA, Data(call.sent), call.id, body=part))
            self._count_sent(call, part)

    def _start_waiting_calls(self):
        while self._waiting and not self._limits:
            call = self._waiting[0]
            size = len(call.body)
            slot = self._free_slot()
            if size > self._peer.largest_message:
                call.error = Failure(f"the server takes at most {self._peer.largest_message} bytes")
            elif slot is None or size > self._credit[CALLS_POOL]:
                return
            else:
                self._start(call, slot)
            self._waiting.popleft()

    def _free_slot(self):
        used = {call.slot for call in self._calls.values()}
        return next((slot for slot in range(self._peer.in_flight) if slot not in used), None)

    def _start(self, call, slot):
        # All of the body is charged now, also if the rest is never sent.
        self._credit[CALLS_POOL] -= len(call.body)
        self._requests_sent += 1
        call.number = self._requests_sent
        # Counted for all slots together, so it differs for each of them, too.
        generation = call.number % 2**31
        call.slot = slot
        call.id = generation << 32 | slot
        self._calls[call.id] = call

        part = call.body[:PART]
        flags, extensions = 0, ()
        if len(part) < len(call.body):
            flags = MORE
            extensions = ((CRITICAL | TOTAL_LENGTH, len(call.body).to_bytes(8, "little")),)
        request = call.request._replace(deadline=call.left())
        self._send(Frame(REQUEST, request, call.id, flags, extensions, part))
        self._count_sent(call, part)

    def _count_sent(self, call, part):
        call.sent += len(part)
        if call.sent < len(call.body):
            self._uploads.append(call)

    def _stop_upload(self, call):
        if call in self._uploads:
            self._uploads.remove(call)

    # Frames that arrive

    def _handle(self, frame, size):
        if self._peer is None:
            self._on_hello(frame)
            return
        check_message_id(frame)
        if frame.kind == HELLO:
            raise ProtocolError(9, "a second HELLO")
        if frame.kind in self._handlers:
            self._handlers[frame.kind](frame)
        else:
            # A kind of the future, or ITEM or END.
            self._ignored.spend(size + 16)

    def _on_hello(self, frame):
        if frame.kind != HELLO:
            raise ProtocolError(9, f"kind {frame.kind} before HELLO")
        check_message_id(frame)
        hello = frame.header
        if not hello.lowest_version <= VERSION <= hello.highest_version:
            raise ProtocolError(2, f"versions {hello.lowest_version} to {hello.highest_version}")
        windows = (hello.calls_window, hello.replies_window)
        if not hello.in_flight or not hello.largest_message:
            raise ProtocolError(9, f"a limit of zero: {hello}")
        if min(windows) < 2 * hello.largest_message or max(windows) > MAX_CREDIT:
            raise ProtocolError(9, f"windows {windows} for messages of {hello.largest_message}")
        self._peer = hello
        self._credit = {CALLS_POOL: hello.calls_window, REPLIES_POOL: hello.replies_window}

    def _on_reply(self, frame):
        if frame.flags & ITEMS_OUT:
            raise ProtocolError(19, "REPLY with items")
        body = self._begin_body(frame, REPLIES_POOL)
        call = self._calls.get(frame.id)
        if call is None or frame.id in self._bodies:
            self._stray_replies.spend(1)
            self._give_back(body)
            return
        if body.total and is_refused_or_unknown(frame.header.status):
            raise ProtocolError(8, f"status {frame.header.status:#x} with a body")
        self._stop_upload(call)
        self._bodies[frame.id] = body
        self._end_body_if_complete(body)

    def _on_request(self, frame):
        slot = frame.id & 0xFFFF_FFFF
        if slot >= OUR_HELLO.in_flight:
            raise ProtocolError(12, f"slot {slot}")
        if any(id & SERVER_BIT and id & 0xFFFF_FFFF == slot for id in self._bodies):
            raise ProtocolError(13, f"slot {slot}")
        body = self._begin_body(frame, CALLS_POOL)
        self._requests_taken += 1
        self._bodies[frame.id] = body
        self._end_body_if_complete(body)

    def _on_data(self, frame):
        if frame.id in self._bodies:
            body = self._bodies[frame.id]
            body.add(frame)
            self._end_body_if_complete(body)
        elif frame.id in self._calls:
            raise ProtocolError(14, f"DATA before the REPLY to {frame.id:#x}")
        else:
            self._ignored.spend(len(frame.body) + 16)

    def _begin_body(self, frame, pool):
        body = IncomingBody(frame, OUR_HELLO.largest_message, pool)
        self._windows[pool].take(body.total)
        return body

    def _end_body_if_complete(self, body):
        if not body.complete():
            return
        id = body.first.id
        del self._bodies[id]
        if not id & SERVER_BIT:
            call = self._calls.pop(id)
            call.reply = body
            call.error = unreadable(body.first)
        elif not body.first.flags & ONE_WAY:
            self._send(Frame(REPLY, Reply(status=UNKNOWN_METHOD), id))
        self._give_back(body)

    def _on_cancel(self, frame):
        """All but calls whose body is not complete were answered already."""
        if frame.id in self._bodies:
            self._send(Frame(REPLY, Reply(status=CANCELLED), frame.id))
            self._give_back(self._bodies.pop(frame.id))

    def _give_back(self, body):
        granted = self._windows[body.pool].give_back(body.total)
        if granted:
            self._send(Frame(CREDIT, Credit(granted, body.pool)))

    def _on_credit(self, frame):
        credit = frame.header
        if credit.pool not in self._credit or credit.unit != 0:
            raise ProtocolError(19, f"credit without the feature: {credit}")
        self._credit[credit.pool] += credit.amount
        if credit.amount == 0 or self._credit[credit.pool] > MAX_CREDIT:
            raise ProtocolError(16, f"{credit}, now {self._credit[credit.pool]}")

    def _on_ping(self, frame):
        self._pong = frame.header

    def _on_pong(self, frame):
        self._last_pong = frame.header.payload

    def _on_goaway(self, frame):
        if frame.header.code != 0:
            raise Failure(f"the server closes with code {frame.header.code}")
        accepted = frame.header.accepted
        self.accepted = accepted if self.accepted is None else min(accepted, self.accepted)
        for call in self._waiting:
            call.error = GoingAway("going away before the call was sent")
        self._waiting.clear()
        for call in list(self._calls.values()):
            if call.number > self.accepted and call.id not in self._bodies:
                self._stop_upload(call)
                call.error = GoingAway(f"request {call.number} was not taken")
                del self._calls[call.id]

    def _on_limits(self, frame):
        if frame.flags & ACKNOWLEDGES:
            return
        limits = frame.header
        smallest_window = min(self._peer.calls_window, self._peer.replies_window)
        if not limits.in_flight or not 0 < 2 * limits.largest_message <= smallest_window:
            raise ProtocolError(8, f"senseless limits: {limits}")
        self._limits = limits


class Call:
    """A call of this side: waiting to be sent, in flight (it has an id then), or done."""

    def __init__(self, request, body, deadline):
        self.request = request
        self.body = body
        self.expires = time.monotonic() + deadline if deadline else None
        self.slot = None
        self.id = None
        self.number = None
        self.sent = 0
        self.cancelled = False
        self.reply = None
        self.error = None

    def done(self):
        return self.error is not None or self.reply is not None

    def left(self):
        """What is left of the deadline, as the wire has it."""
        if self.expires is None:
            return 0
        return max(0, min(int((self.expires - time.monotonic()) * 1e6), MAX_DEADLINE))


class Window:
    """What the other side may still send into a pool of ours, and what it gets back."""

    def __init__(self, size):
        self.size = size
        self.left = size
        self.kept = 0

    def take(self, amount):
        self.left -= amount
        if self.left < 0:
            raise ProtocolError(15, f"{-self.left} bytes more than there was credit for")

    def give_back(self, amount):
        """How much credit to grant now: 0 as long as less than a quarter of the window is kept back."""
        self.kept += amount
        if self.kept * 4 < self.size:
            return 0
        granted, self.kept = self.kept, 0
        self.left += granted
        return granted


class Budget:
    """At most `limit` within 10 s."""

    def __init__(self, limit, code, what):
        self.limit = limit
        self.code = code
        self.what = what
        self.spent = deque()

    def spend(self, amount):
        now = time.monotonic()
        while self.spent and self.spent[0][0] < now - 10:
            self.spent.popleft()
        self.spent.append((now, amount))
        if sum(spent for _, spent in self.spent) > self.limit:
            raise ProtocolError(self.code, self.what)


class IncomingBody:
    """A body that arrives in one frame or in several, and is charged to `pool`."""

    def __init__(self, first, largest, pool):
        self.first = first
        self.pool = pool
        self.data = bytearray(first.body)
        total = next((value for tag, value in first.extensions if tag & ~CRITICAL == TOTAL_LENGTH), None)
        if total is None and first.flags & MORE:
            raise ProtocolError(8, "more DATA follows, but no total length")
        self.total = len(first.body) if total is None else int.from_bytes(total, "little")
        if self.total < len(first.body) or self.complete() == bool(first.flags & MORE):
            raise ProtocolError(8, f"total length {self.total}, {len(first.body)} bytes are here")
        if self.total > largest:
            raise ProtocolError(3, f"a body of {self.total} bytes, at most {largest} are allowed")
        self._check_cut()

    def add(self, frame):
        """Appends what a DATA frame has."""
        if frame.header.offset != len(self.data):
            raise ProtocolError(14, f"DATA for {frame.header.offset}, not {len(self.data)}")
        self.data += frame.body
        if not frame.body or len(self.data) > self.total:
            raise ProtocolError(8, f"{len(frame.body)} more make {len(self.data)} bytes of {self.total}")
        self._check_cut()

    def complete(self):
        return len(self.data) == self.total

    def _check_cut(self):
        if not self.complete() and len(self.data) % 16:
            raise ProtocolError(8, f"a body is cut at {len(self.data)}")


def check_message_id(frame):
    """Whether the server may use this message id in this frame."""
    if frame.kind in (REQUEST, CANCEL):
        fits = frame.id & SERVER_BIT
    elif frame.kind == REPLY:
        fits = not frame.id & SERVER_BIT
    elif frame.kind in (HELLO, PING, PONG, GOAWAY, LIMITS):
        fits = frame.id == 0
    elif frame.kind == CREDIT:
        fits = frame.id == 0 or frame.header.pool not in (CALLS_POOL, REPLIES_POOL)
    else:
        fits = True
    if not fits:
        raise ProtocolError(11, f"kind {frame.kind} with message id {frame.id:#x}")


def is_refused_or_unknown(status):
    return status >> 14 in (1, 3)


def unreadable(frame):
    """Why this client cannot read a REPLY that the protocol allows; None if it can."""
    reply = frame.header
    if critical_tags(frame.extensions):
        return Failure(f"critical extensions {critical_tags(frame.extensions)} of a REPLY")
    if (reply.codec, reply.compression, reply.signature) != (RAW, 0, 0):
        return Failure(f"codec, compression or signature of {reply}")
    return None


def method_id(name):
    """FNV-1a, 64 bits, of `Service/method`."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


# ---------------------------------------------------------------------------------------------------
# Frames

Hello = namedtuple(
    "Hello",
    "lowest_version highest_version archive_format in_flight features codecs largest_message"
    " calls_window replies_window stream_window digest instance",
)
Request = namedtuple(
    "Request",
    "method in_signature out_signature deadline codec compression priority attempt",
    defaults=[0] * 7,
)
Reply = namedtuple(
    "Reply",
    "signature status codec compression waited took load retry_after admission",
    defaults=[0] * 9,
)
Data = namedtuple("Data", "offset")
Item = namedtuple("Item", "signature codec compression")
Credit = namedtuple("Credit", "amount pool unit", defaults=[0])
Cancel = namedtuple("Cancel", "reason")
Probe = namedtuple("Probe", "payload")
GoAway = namedtuple("GoAway", "accepted code")
Limits = namedtuple("Limits", "in_flight largest_message")

MIB = 1 << 20
OUR_HELLO = Hello(VERSION, VERSION, 2, 16, 0, 1 << RAW, 3 * MIB, 6 * MIB, 6 * MIB, MIB, 0, bytes(16))


class Kind(NamedTuple):
    header: type
    fixed: struct.Struct
    flags: int = 0
    has_body: bool = False


KINDS = {
    HELLO: Kind(Hello, struct.Struct("<BBBxI7Q16s")),
    REQUEST: Kind(Request, struct.Struct("<QQQIBBBB"), flags=63, has_body=True),
    REPLY: Kind(Reply, struct.Struct("<QHBBIIHHB7x"), flags=ITEMS_OUT | MORE, has_body=True),
    DATA: Kind(Data, struct.Struct("<Q8x"), has_body=True),
    ITEM: Kind(Item, struct.Struct("<QBB6x"), flags=MORE, has_body=True),
    END: Kind(Reply, struct.Struct("<QHBBIIHHB7x"), flags=MORE, has_body=True),
    CREDIT: Kind(Credit, struct.Struct("<QBB6x")),
    CANCEL: Kind(Cancel, struct.Struct("<B15x")),
    PING: Kind(Probe, struct.Struct("<16s")),
    PONG: Kind(Probe, struct.Struct("<16s")),
    GOAWAY: Kind(GoAway, struct.Struct("<QH6x")),
    LIMITS: Kind(Limits, struct.Struct("<I4xQ"), flags=ACKNOWLEDGES),
}
HEAD = struct.Struct("<IBBHQ")
TLV_START = struct.Struct("<HH")


class Frame(NamedTuple):
    """One frame; `header` is one of the tuples above, or None for a kind that is ignored."""

    kind: int
    header: tuple
    id: int = 0
    flags: int = 0
    extensions: tuple = ()
    body: bytes = b""

    def encode(self):
        header = KINDS[self.kind].fixed.pack(*self.header) + encode_extensions(self.extensions)
        length = len(header) + len(self.body)
        head = HEAD.pack(length, self.kind, self.flags, len(header), self.id)
        return b"".join((head, header, self.body, padding(length, 16)))


def decode_frame(data, largest):
    """The frame at the start of `data` and its size; None if it has not arrived completely. `largest` is our
    largest message, or None before HELLO."""
    if len(data) < HEAD.size:
        return None
    length, kind_number, flags, header_length, message_id = HEAD.unpack_from(data)
    if header_length % 16 or header_length > min(MAX_HEADER, length):
        raise ProtocolError(4, f"header length {header_length} in a frame of length {length}")
    kind = KINDS.get(kind_number)
    if kind is None and kind_number < FIRST_IGNORABLE_KIND:
        raise ProtocolError(6, f"unknown kind {kind_number}")
    if kind is not None and flags & ~kind.flags:
        raise ProtocolError(7, f"flags {flags:#x} of kind {kind_number}")
    if largest is None:
        too_long = HEAD.size + length > MAX_HANDSHAKE_FRAME
    else:
        too_long = length > largest + MAX_HEADER or length - header_length > largest
    if too_long:
        raise ProtocolError(3, f"a frame of length {length} with a header of {header_length}")
    if kind is not None and header_length < kind.fixed.size:
        raise ProtocolError(4, f"header length {header_length} of kind {kind_number}")
    if kind is not None and length > header_length and not kind.has_body:
        raise ProtocolError(8, f"kind {kind_number} with a body")

    header_end = HEAD.size + header_length
    body_end = HEAD.size + length
    size = body_end + len(padding(length, 16))
    if len(data) < size:
        return None
    if any(data[body_end:size]):
        raise ProtocolError(5, "padding that is not zero")
    if kind is None:
        return Frame(kind_number, None, message_id, flags), size
    header = kind.header(*kind.fixed.unpack_from(data, HEAD.size))
    extensions = decode_extensions(bytes(data[HEAD.size + kind.fixed.size : header_end]))
    if kind_number not in (REQUEST, REPLY) and critical_tags(extensions):
        raise ProtocolError(10, f"critical extensions {critical_tags(extensions)} of kind {kind_number}")
    return Frame(kind_number, header, message_id, flags, extensions, bytes(data[header_end:body_end])), size


def encode_extensions(extensions):
    encoded = b"".join(
        TLV_START.pack(tag, len(value)) + value + padding(len(value), 4) for tag, value in extensions
    )
    return encoded + padding(len(encoded), 16)


def decode_extensions(data):
    """The TLVs behind a fixed part as (tag, value); `data` is a multiple of 16 long."""
    found = []
    at = 0
    while at < len(data):
        tag, length = TLV_START.unpack_from(data, at)
        start = at + TLV_START.size
        at = start + length + len(padding(length, 4))
        if at > len(data):
            raise ProtocolError(4, f"extension {tag:#x} is cut off")
        if any(data[start + length : at]) or (tag == 0 and length != 0):
            raise ProtocolError(4, f"dirty padding at extension {tag:#x}")
        if tag != 0:
            found.append((tag, data[start : start + length]))
    if [len(value) for tag, value in found if tag & ~CRITICAL == TOTAL_LENGTH] not in ([], [8]):
        raise ProtocolError(4, "a total length that is not 8 bytes or comes twice")
    return tuple(found)


def critical_tags(extensions):
    """The tags that may not be ignored."""
    return [tag for tag, _ in extensions if tag & CRITICAL and tag & ~CRITICAL != TOTAL_LENGTH]


def padding(length, multiple):
    return bytes(-length % multiple)


# ---------------------------------------------------------------------------------------------------
# Self-test: the vectors of the page


def self_test(path):
    """Decodes every vector of the page and encodes it again; checks what the page says about them."""
    with open(path, encoding="utf-8") as page:
        blocks = re.findall(r"^```vector (\S+)\n(.*?)^```", page.read(), re.MULTILINE | re.DOTALL)
    vectors = {name: bytes.fromhex(digits) for name, digits in blocks}
    expect("number of different vectors", len(blocks), len(vectors))
    expect("preface", PREFACE, vectors.pop("preface"))
    extensions_all = vectors.pop("extensions-all")
    extensions = decode_extensions(extensions_all)
    expect("extensions-all", extensions_all, encode_extensions(extensions))
    expect("tags of extensions-all", list(range(1, 16)), [tag & ~CRITICAL for tag, _ in extensions])

    echo_id = method_id("demo.Echo/echo")
    expect("method id of demo.Echo/echo", 0x0AA4EACC3C830123, echo_id)
    frames = described_vectors(echo_id)
    expect("names of the vectors", sorted(frames), sorted(vectors))
    for name, data in vectors.items():
        expect(name, (frames[name], len(data)), decode_frame(data, largest=len(data)))
        expect(f"{name}, encoded", data.hex(), frames[name].encode().hex())
    body = IncomingBody(frames["request-more"], 20, CALLS_POOL)
    expect("request-more is complete", False, body.complete())
    body.add(frames["data"])
    expect("request-more with data", (True, b"front of a body tail"), (body.complete(), bytes(body.data)))


def described_vectors(echo_id):
    """What the text beside the vectors says."""
    call = 3 << 32 | 7
    first = Request(echo_id, deadline=1_000_000)
    pattern = bytes(range(16))
    digest = 0x1122334455667788
    hello = Hello(1, 1, 2, 1024, 0, 3, 4 * MIB, 8 * MIB, 8 * MIB, MIB, digest, pattern)
    reply = Reply(waited=5, took=42, load=100, retry_after=250, admission=2)
    asked_group, metadata = (6, b"blu"), (14, b"\x03key++")
    total = (CRITICAL | TOTAL_LENGTH, (20).to_bytes(8, "little"))
    return {
        "hello": Frame(HELLO, hello),
        "request": Frame(REQUEST, first._replace(attempt=1), call, IDEMPOTENT, body=b"hello"),
        "request-one-way": Frame(REQUEST, first, 1 << 32, ONE_WAY),
        "request-more": Frame(REQUEST, first, call, MORE, (total,), b"front of a body "),
        "request-extensions": Frame(REQUEST, first, 2 << 32, extensions=(asked_group, metadata)),
        "reply": Frame(REPLY, reply, call, body=b"hello"),
        "data": Frame(DATA, Data(16), call, body=b"tail"),
        "item": Frame(ITEM, Item(0x0807060504030201, 1, 0), call, body=b"item"),
        "end": Frame(END, Reply(), call),
        "credit": Frame(CREDIT, Credit(2 * MIB, CALLS_POOL)),
        "cancel": Frame(CANCEL, Cancel(TOO_LATE), call),
        "ping": Frame(PING, Probe(pattern)),
        "pong": Frame(PONG, Probe(pattern)),
        "goaway": Frame(GOAWAY, GoAway(41, 0)),
        "limits": Frame(LIMITS, Limits(64, 65536)),
        "limits-ack": Frame(LIMITS, Limits(64, 65536), flags=ACKNOWLEDGES),
    }


if __name__ == "__main__":
    sys.exit(main())
