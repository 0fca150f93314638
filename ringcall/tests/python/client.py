#!/usr/bin/env python3
"""A ringcall client for Python 3.9+, written from docs/PROTOCOL.md alone.

    client.py HOST:PORT [--spec PATH] SCENARIO

It makes RAW calls (codec 0) over one TCP connection: many at once, large bodies cut and put together,
credit in both directions. Streams and the other codecs are left out, and calls that the server makes are
refused. `--spec` checks the encoding against the vectors of the specification first.
"""

import argparse
import re
import select
import socket
import struct
import sys
import time
from collections import deque
from typing import NamedTuple

# ---------------------------------------------------------------------------------------------------
# Numbers of the specification

VERSION = 1
PREFACE = b"\xf7RING\r\n" + bytes([VERSION])
ALIGN = 16
MAX_HEADER = 16_384
MAX_HANDSHAKE_FRAME = 4096
MAX_CREDIT = 2**48
NO_DEADLINE = 2**32 - 1
SERVER_BIT = 1 << 63
GENERATIONS = 2**31

HELLO, REQUEST, REPLY, DATA, ITEM, END, CREDIT, CANCEL, PING, PONG, GOAWAY, LIMITS = range(1, 13)
FIRST_IGNORABLE_KIND = 128

ONE_WAY, ITEMS_IN, ITEMS_OUT, MORE, RETRIED, IDEMPOTENT = 1, 2, 4, 8, 16, 32
ACKNOWLEDGES = 1

CRITICAL = 0x8000
TOTAL_LENGTH = CRITICAL | 1

RAW = 0
STREAM_POOL, CALLS_POOL, REPLIES_POOL = 0, 1, 2
NOT_WANTED, TOO_LATE = 0, 1

OK = 0x0000
UNKNOWN_METHOD = 0x4002
SHAPE_MISMATCH = 0x4003
UNKNOWN_CODEC = 0x4004
EXPIRED = 0x4006
CANCELLED = 0x4009
APPLICATION_ERROR = 0x8000
CANCELLED_RUNNING = 0xC002

STATUS_NAMES = {
    OK: "OK",
    0x4001: "UNSUPPORTED",
    UNKNOWN_METHOD: "UNKNOWN_METHOD",
    SHAPE_MISMATCH: "SHAPE_MISMATCH",
    UNKNOWN_CODEC: "UNKNOWN_CODEC",
    0x4005: "BAD_BODY",
    EXPIRED: "EXPIRED",
    0x4007: "OVERLOADED",
    0x4008: "DRAINING",
    CANCELLED: "CANCELLED",
    0x400A: "BAD_REQUEST",
    0x400B: "UNAUTHENTICATED",
    0x400C: "FORBIDDEN",
    0x400D: "WRONG_GROUP",
    0x400E: "TOO_MUCH_METADATA",
    APPLICATION_ERROR: "APPLICATION_ERROR",
    0xC001: "INTERNAL",
    CANCELLED_RUNNING: "CANCELLED_RUNNING",
    0xC003: "EXPIRED_RUNNING",
    0xC004: "REPLY_FAILED",
    0xC005: "ABORTED",
}
SUCCESS, REFUSED, APPLICATION, UNKNOWN = range(4)
CLASS_NAMES = ("success", "refused", "application", "unknown")


def status_class(status):
    """SUCCESS, REFUSED, APPLICATION or UNKNOWN: defined for statuses without a name, too."""
    return status >> 14


def status_text(status):
    name = STATUS_NAMES.get(status, f"{status:#06x}")
    return f"{name} ({CLASS_NAMES[status_class(status)]})"


def method_id(name):
    """FNV-1a, 64 bits, of `Service/method`."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


# ---------------------------------------------------------------------------------------------------
# Errors


class ProtocolError(Exception):
    """The other side broke the protocol; `code` is what the GOAWAY frame says about it."""

    def __init__(self, code, text):
        super().__init__(f"protocol error {code}: {text}")
        self.code = code


class ConnectionEnded(Exception):
    """The other side closed the connection, or said that it does."""


class NotSent(Exception):
    """A call that was given up before a byte of it was sent."""


class GoingAway(Exception):
    """A call that was not and will not be run, since the server takes no further ones."""


class BadReply(Exception):
    """A reply that the protocol allows but that this client cannot read."""


# ---------------------------------------------------------------------------------------------------
# Frames


class Hello(NamedTuple):
    LAYOUT = struct.Struct("<BBBxI7Q16s")
    lowest_version: int = VERSION
    highest_version: int = VERSION
    archive_format: int = 2
    in_flight: int = 16
    features: int = 0
    codecs: int = 1 << RAW
    largest_message: int = 3 << 20
    calls_window: int = 6 << 20
    replies_window: int = 6 << 20
    stream_window: int = 1 << 20
    digest: int = 0
    instance: bytes = bytes(16)


class Request(NamedTuple):
    LAYOUT = struct.Struct("<QQQIBBBB")
    method: int
    in_signature: int = 0
    out_signature: int = 0
    deadline: int = NO_DEADLINE
    codec: int = RAW
    compression: int = 0
    priority: int = 0
    attempt: int = 0


class Reply(NamedTuple):
    """The header of REPLY and of END."""

    LAYOUT = struct.Struct("<QHBBIIHHB7x")
    signature: int = 0
    status: int = OK
    codec: int = RAW
    compression: int = 0
    waited: int = 0
    took: int = 0
    load: int = 0
    retry_after: int = 0
    admission: int = 0


class Data(NamedTuple):
    LAYOUT = struct.Struct("<Q8x")
    offset: int


class Item(NamedTuple):
    LAYOUT = struct.Struct("<QBB6x")
    signature: int
    codec: int = RAW
    compression: int = 0


class Credit(NamedTuple):
    LAYOUT = struct.Struct("<QBB6x")
    amount: int
    pool: int
    unit: int = 0


class Cancel(NamedTuple):
    LAYOUT = struct.Struct("<B15x")
    reason: int


class Probe(NamedTuple):
    """The header of PING and of PONG."""

    LAYOUT = struct.Struct("<16s")
    payload: bytes


class GoAway(NamedTuple):
    LAYOUT = struct.Struct("<QH6x")
    accepted: int
    code: int


class Limits(NamedTuple):
    LAYOUT = struct.Struct("<I4xQ")
    in_flight: int
    largest_message: int


class Kind(NamedTuple):
    name: str
    header: type
    flags: int = 0
    has_body: bool = False


KINDS = {
    HELLO: Kind("HELLO", Hello),
    REQUEST: Kind("REQUEST", Request, ONE_WAY | ITEMS_IN | ITEMS_OUT | MORE | RETRIED | IDEMPOTENT, True),
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
CALL_KINDS = (REQUEST, REPLY, DATA, ITEM, END, CANCEL)
FRAME_START = struct.Struct("<IBBHQ")
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
        header = self.header.LAYOUT.pack(*self.header) + encode_extensions(self.extensions)
        length = len(header) + len(self.body)
        start = FRAME_START.pack(length, self.kind, self.flags, len(header), self.id)
        return b"".join((start, header, self.body, padding(length, ALIGN)))

    def extension(self, wanted):
        return next((value for tag, value in self.extensions if tag == wanted), None)


def padding(length, multiple):
    return bytes(-length % multiple)


def decode_frame(data, longest):
    """The frame at the start of `data` and its size; None if it has not arrived completely."""
    if len(data) < FRAME_START.size:
        return None
    length, kind_number, flags, header_length, message_id = FRAME_START.unpack_from(data)
    if length > longest:
        raise ProtocolError(3, f"a frame of length {length}, at most {longest} is allowed")
    if header_length % ALIGN or header_length > MAX_HEADER or header_length > length:
        raise ProtocolError(4, f"header length {header_length} in a frame of length {length}")
    kind = KINDS.get(kind_number)
    if kind is None and kind_number < FIRST_IGNORABLE_KIND:
        raise ProtocolError(6, f"unknown kind {kind_number}")
    if kind is not None:
        if flags & ~kind.flags:
            raise ProtocolError(7, f"flags {flags:#x} of {kind.name}")
        if header_length < kind.header.LAYOUT.size:
            raise ProtocolError(4, f"header length {header_length} of {kind.name}")
        if length > header_length and not kind.has_body:
            raise ProtocolError(8, f"{kind.name} with a body")

    header_end = FRAME_START.size + header_length
    body_end = FRAME_START.size + length
    size = body_end + len(padding(length, ALIGN))
    if len(data) < size:
        return None
    if any(data[body_end:size]):
        raise ProtocolError(5, "padding that is not zero")
    if kind is None:
        return Frame(kind_number, None, message_id, flags), size
    fixed = kind.header.LAYOUT
    header = kind.header(*fixed.unpack_from(data, FRAME_START.size))
    extensions = decode_extensions(bytes(data[FRAME_START.size + fixed.size : header_end]))
    body = bytes(data[header_end:body_end])
    return Frame(kind_number, header, message_id, flags, extensions, body), size


def encode_extensions(extensions):
    encoded = b"".join(
        TLV_START.pack(tag, len(value)) + value + padding(len(value), 4) for tag, value in extensions
    )
    return encoded + padding(len(encoded), ALIGN)


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
    return tuple(found)


class IncomingBody:
    """A body that arrives in one frame or in several."""

    def __init__(self, first, largest):
        total = first.extension(TOTAL_LENGTH)
        if (total is None) == bool(first.flags & MORE):
            raise ProtocolError(8, "only one of the flag 'more' and the total length")
        if total is None:
            self.total = len(first.body)
        elif len(total) != 8:
            raise ProtocolError(4, f"a total length of {len(total)} bytes")
        else:
            self.total = int.from_bytes(total, "little")
            if self.total <= len(first.body):
                raise ProtocolError(8, f"total length {self.total}, {len(first.body)} bytes are here")
        if self.total > largest:
            raise ProtocolError(3, f"a body of {self.total} bytes, at most {largest} are allowed")
        self.data = bytearray(first.body)
        self._check_cut()

    def add(self, frame):
        """Appends what a DATA frame has."""
        if frame.header.offset != len(self.data):
            raise ProtocolError(14, f"DATA for {frame.header.offset}, not {len(self.data)}")
        self.data += frame.body
        if len(self.data) > self.total:
            raise ProtocolError(8, f"{len(self.data)} bytes of a body of {self.total}")
        self._check_cut()

    def complete(self):
        return len(self.data) == self.total

    def _check_cut(self):
        if not self.complete() and len(self.data) % ALIGN:
            raise ProtocolError(8, f"a body is cut at {len(self.data)}")


# ---------------------------------------------------------------------------------------------------
# The connection


class Call:
    """A call of this side: waiting to be sent, in flight (it has an id then), or done."""

    def __init__(self, request, body, expires):
        self.request = request
        self.body = body
        self.expires = expires
        self.id = None
        self.number = None
        self.sent = 0
        self.cancelled = False
        self.header = None
        self.incoming = None
        self.error = None

    @property
    def slot(self):
        return self.id & 0xFFFF_FFFF

    @property
    def generation(self):
        return self.id >> 32

    def done(self):
        return self.error is not None or (self.incoming is not None and self.incoming.complete())

    def left(self):
        """What is left of the deadline, as the wire has it."""
        if self.expires is None:
            return 0
        left = int((self.expires - time.monotonic()) * 1e6)
        return max(0, min(left, NO_DEADLINE - 1))


class Answer(NamedTuple):
    header: Reply
    body: bytes

    @property
    def status(self):
        return self.header.status


class ReceivePool:
    """What the other side may still send into a pool of ours, and what it gets back."""

    def __init__(self, window):
        self.window = window
        self.left = window
        self.kept = 0

    def take(self, amount):
        self.left -= amount
        if self.left < 0:
            raise ProtocolError(15, f"{-self.left} bytes more than there was credit for")

    def give_back(self, amount):
        """How much credit to grant now: 0 as long as less than a quarter of the window is kept back."""
        self.kept += amount
        if self.kept * 4 < self.window:
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


class Connection:
    """The client's end of a connection. Nothing happens behind the caller's back: whoever waits for
    something pumps frames until it is there."""

    SILENCE = 10.0
    PART = 256 * 1024

    def __init__(self, host, port, hello=Hello()):
        self.goaway = None
        self.ended = False
        self._hello = hello
        self._peer = None
        self._preface_seen = False
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._may_write = True
        self._waiting = deque()  # calls without a slot or without credit yet
        self._calls = {}  # calls in flight, by message id
        self._uploads = deque()  # those of them whose body is not sent completely
        self._generations = {}  # the last one of each slot that was ever used
        self._requests_sent = 0
        self._requests_taken = 0
        self._last_pong = None
        self._credit = {}
        self._pools = {
            CALLS_POOL: ReceivePool(hello.calls_window),
            REPLIES_POOL: ReceivePool(hello.replies_window),
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

        self._socket = socket.create_connection((host, port), timeout=self.SILENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._outbox += PREFACE
        self._send(Frame(HELLO, hello))
        self._pump_until(lambda: self._peer is not None)

    # What a caller uses

    def call(self, name, body=b"", in_signature=0, out_signature=0, codec=RAW, deadline=30.0):
        """Begins a call. The deadline is in seconds; 0 is sent as it is and expires there, not here."""
        if self.goaway is not None:
            raise GoingAway("going away")
        request = Request(method_id(name), in_signature, out_signature, codec=codec)
        call = Call(request, body, time.monotonic() + deadline if deadline else None)
        self._waiting.append(call)
        self._start_waiting_calls()
        return call

    def wait(self, call):
        """The answer of a call, whatever its status is."""
        self._pump_until(call.done)
        if call.error is not None:
            raise call.error
        return Answer(call.header, bytes(call.incoming.data))

    def cancel(self, call, reason=NOT_WANTED):
        """Gives a call up. It is still to be waited for: the server may have been faster."""
        if call.done() or call.cancelled:
            return
        call.cancelled = True
        if call.id is None:
            self._waiting.remove(call)
            call.error = NotSent("cancelled before it was sent")
            return
        self._stop_upload(call)
        self._send(Frame(CANCEL, Cancel(reason), call.id))

    def ping(self, payload):
        """Returns when the PONG with these 16 bytes is here."""
        self._last_pong = None
        self._send(Frame(PING, Probe(payload)))
        self._pump_until(lambda: self._last_pong == payload)

    def wait_for_goaway(self):
        self._pump_until(lambda: self.goaway is not None)

    def wait_for_end(self):
        """Returns when the server has ended its stream between two frames."""
        self._pump_until(lambda: self.ended)
        self._socket.close()

    def finish(self):
        """Ends this side's stream and waits for the server's end."""
        self._pump_until(lambda: not self._outbox)
        self._socket.shutdown(socket.SHUT_WR)
        self._may_write = False
        self.wait_for_end()

    # Reading and writing

    def _pump_until(self, done):
        while not done():
            if self.ended:
                raise ConnectionEnded("the server closed the connection")
            try:
                self._pump()
            except ProtocolError as error:
                self._close(error.code)
                raise
            except ConnectionEnded:
                self._socket.close()
                raise

    def _pump(self):
        """Sends what may be sent, waits for the socket, and handles what has arrived."""
        seconds = self._expire_calls()
        self._fill_outbox()
        writers = [self._socket] if self._outbox else []
        readable, writable, _ = select.select([self._socket], writers, [], seconds)
        if readable:
            self._read()
        if writable:
            self._write()
        if not readable and not writable and seconds == self.SILENCE:
            raise TimeoutError(f"nothing came from the server for {seconds:g} s")

    def _read(self):
        data = self._socket.recv(1 << 18)
        if not data:
            if self._inbox:
                raise ProtocolError(20, f"the stream ended inside a frame: {bytes(self._inbox[:16]).hex()}")
            self.ended = True
            return
        self._inbox += data
        if not self._preface_seen and not self._take_preface():
            return
        while True:
            # The limit depends on the frames before: HELLO raises it.
            decoded = decode_frame(self._inbox, self._longest_frame())
            if decoded is None:
                return
            frame, size = decoded
            del self._inbox[:size]
            self._handle(frame, size)

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

    def _close(self, code):
        """Says why, as far as the socket takes it, and closes."""
        self._send(Frame(GOAWAY, GoAway(self._requests_taken, code)))
        try:
            self._socket.settimeout(1.0)
            self._socket.sendall(self._outbox)
        except OSError:
            pass
        self._socket.close()

    def _longest_frame(self):
        return MAX_HANDSHAKE_FRAME if self._peer is None else self._hello.largest_message + MAX_HEADER

    # Calls on their way out

    def _expire_calls(self):
        """Cancels what is too late, and returns after how many seconds to look again."""
        seconds = self.SILENCE
        for call in [*self._waiting, *self._calls.values()]:
            if call.expires is None or call.cancelled:
                continue
            left = call.expires - time.monotonic()
            if left <= 0:
                self.cancel(call, TOO_LATE)
            else:
                seconds = min(seconds, left)
        return seconds

    def _fill_outbox(self):
        """Begins the calls that can begin; a part of a large body follows when nothing else is to be
        sent, so that small calls pass it."""
        self._start_waiting_calls()
        if self._outbox or not self._uploads:
            return
        call = self._uploads.popleft()
        part = call.body[call.sent : call.sent + self.PART]
        self._send(Frame(DATA, Data(call.sent), call.id, body=part))
        self._count_sent(call, part)

    def _start_waiting_calls(self):
        while self._waiting:
            call = self._waiting[0]
            if len(call.body) > self._peer.largest_message:
                call.error = NotSent(f"the server takes at most {self._peer.largest_message} bytes")
                self._waiting.popleft()
                continue
            slot = self._free_slot()
            if slot is None or len(call.body) > self._credit[CALLS_POOL]:
                return
            self._waiting.popleft()
            self._start(call, slot)

    def _start(self, call, slot):
        # The whole body is charged before its first byte is sent.
        self._credit[CALLS_POOL] -= len(call.body)
        # From 1, since slot 0 with generation 0 would be the id of the frames without a call.
        generation = (self._generations.get(slot, 0) + 1) % GENERATIONS
        self._generations[slot] = generation
        self._requests_sent += 1
        call.number = self._requests_sent
        call.id = generation << 32 | slot
        self._calls[call.id] = call

        part = call.body[: self.PART]
        flags, extensions = 0, ()
        if len(part) < len(call.body):
            flags = MORE
            extensions = ((TOTAL_LENGTH, len(call.body).to_bytes(8, "little")),)
        header = call.request._replace(deadline=call.left())
        self._send(Frame(REQUEST, header, call.id, flags, extensions, part))
        self._count_sent(call, part)

    def _free_slot(self):
        used = {call.slot for call in self._calls.values()}
        return next((slot for slot in range(self._peer.in_flight) if slot not in used), None)

    def _count_sent(self, call, part):
        call.sent += len(part)
        if call.sent < len(call.body):
            self._uploads.append(call)

    def _stop_upload(self, call):
        """Sends no more of a body; the rest was charged but never sent."""
        if call in self._uploads:
            self._uploads.remove(call)
            self._credit[CALLS_POOL] += len(call.body) - call.sent

    # Frames that arrive

    def _take_preface(self):
        preface = bytes(self._inbox[: len(PREFACE)])
        if preface != PREFACE[: len(preface)]:
            raise ConnectionEnded(f"not a ringcall server of version {VERSION}: {preface.hex()}")
        if len(preface) < len(PREFACE):
            return False
        del self._inbox[: len(PREFACE)]
        self._preface_seen = True
        return True

    def _handle(self, frame, size):
        if self._peer is None:
            self._on_hello(frame)
        elif frame.header is None:
            self._ignored.spend(size)
        else:
            if frame.kind not in CALL_KINDS:
                refuse_critical(frame)
            if frame.kind == HELLO:
                raise ProtocolError(9, "a second HELLO")
            if frame.kind not in self._handlers:
                raise ProtocolError(19, f"{KINDS[frame.kind].name} without the feature streams")
            self._handlers[frame.kind](frame)

    def _on_hello(self, frame):
        if frame.kind != HELLO:
            raise ProtocolError(9, f"kind {frame.kind} before HELLO")
        refuse_critical(frame)
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
        if frame.id & SERVER_BIT:
            raise ProtocolError(11, f"REPLY to a call of its sender: {frame.id:#x}")
        if frame.flags & ITEMS_OUT:
            raise ProtocolError(19, "REPLY with items")
        self._pools[REPLIES_POOL].take(len(frame.body))
        call = self._calls.get(frame.id)
        if call is None:
            self._stray_replies.spend(1)
            self._grant(REPLIES_POOL, len(frame.body))
            return
        if call.incoming is not None:
            raise ProtocolError(11, f"a second REPLY to {frame.id:#x}")
        body = IncomingBody(frame, self._hello.largest_message)
        if body.total and status_class(frame.header.status) in (REFUSED, UNKNOWN):
            raise ProtocolError(8, f"{status_text(frame.header.status)} with a body")
        self._stop_upload(call)
        call.header = frame.header
        call.incoming = body
        self._finish_if_complete(call, unread_because(call.request, frame))

    def _on_data(self, frame):
        if frame.id & SERVER_BIT:
            # The call was refused when its REQUEST came.
            self._pools[CALLS_POOL].take(len(frame.body))
            self._grant(CALLS_POOL, len(frame.body))
            return
        self._pools[REPLIES_POOL].take(len(frame.body))
        call = self._calls.get(frame.id)
        if call is None:
            self._grant(REPLIES_POOL, len(frame.body))
            return
        if call.incoming is None:
            raise ProtocolError(14, f"DATA before the REPLY to {frame.id:#x}")
        call.incoming.add(frame)
        self._finish_if_complete(call)

    def _finish_if_complete(self, call, trouble=None):
        if trouble is not None:
            call.error = BadReply(trouble)
        if call.incoming.complete():
            del self._calls[call.id]
            # Delivered is when the call has it: were it when somebody asks, a caller that waits for
            # another reply could block the server.
            self._grant(REPLIES_POOL, call.incoming.total)

    def _grant(self, pool, amount):
        granted = self._pools[pool].give_back(amount)
        if granted:
            self._send(Frame(CREDIT, Credit(granted, pool)))

    def _on_request(self, frame):
        """This side has no methods."""
        if not frame.id & SERVER_BIT:
            raise ProtocolError(11, f"REQUEST of the server with {frame.id:#x}")
        if frame.id & 0xFFFF_FFFF >= self._hello.in_flight:
            raise ProtocolError(12, f"slot {frame.id & 0xFFFF_FFFF}")
        IncomingBody(frame, self._hello.largest_message)
        self._pools[CALLS_POOL].take(len(frame.body))
        self._requests_taken += 1
        if not frame.flags & ONE_WAY:
            self._send(Frame(REPLY, Reply(status=UNKNOWN_METHOD), frame.id))
        self._grant(CALLS_POOL, len(frame.body))

    def _on_cancel(self, frame):
        """Calls of the server are answered as soon as they arrive: the two crossed."""

    def _on_credit(self, frame):
        credit = frame.header
        if credit.pool not in self._credit or credit.unit != 0:
            raise ProtocolError(19, f"credit without the feature: {credit}")
        self._credit[credit.pool] += credit.amount
        if credit.amount == 0 or self._credit[credit.pool] > MAX_CREDIT:
            raise ProtocolError(16, f"{credit}, now {self._credit[credit.pool]}")

    def _on_ping(self, frame):
        self._send(Frame(PONG, frame.header))

    def _on_pong(self, frame):
        self._last_pong = frame.header.payload

    def _on_goaway(self, frame):
        if frame.header.code != 0:
            raise ConnectionEnded(f"the server closes with code {frame.header.code}")
        self.goaway = frame.header
        for call in self._waiting:
            call.error = GoingAway("going away before the call was sent")
        self._waiting.clear()
        for call in list(self._calls.values()):
            if call.number > frame.header.accepted:
                self._stop_upload(call)
                call.error = GoingAway(f"request {call.number} was not taken")
                del self._calls[call.id]

    def _on_limits(self, frame):
        limits = frame.header
        if not limits.in_flight or not limits.largest_message:
            raise ProtocolError(4, f"a limit of zero: {limits}")
        if frame.flags & ACKNOWLEDGES:
            return
        # A higher limit holds now and a lower one after the answer: with the answer queued, both do.
        self._send(Frame(LIMITS, limits, flags=ACKNOWLEDGES))
        self._peer = self._peer._replace(**limits._asdict())


def critical_unknown(frame):
    """The tags that may not be ignored."""
    return [tag for tag, _ in frame.extensions if tag & CRITICAL and tag != TOTAL_LENGTH]


def refuse_critical(frame):
    unknown = critical_unknown(frame)
    if unknown:
        raise ProtocolError(10, f"critical extensions {unknown} of {KINDS[frame.kind].name}")


def unread_because(request, frame):
    """Why this client cannot read a reply, or None."""
    reply = frame.header
    if critical_unknown(frame):
        return f"critical extensions {critical_unknown(frame)}"
    if reply.compression != 0:
        return f"compression {reply.compression}"
    if status_class(reply.status) != SUCCESS:
        return None
    if (reply.codec, reply.signature) != (RAW, request.out_signature):
        return f"codec {reply.codec} and signature {reply.signature:#x}"
    return None


# ---------------------------------------------------------------------------------------------------
# Self-test: the vectors of the specification


class Mismatch(Exception):
    """Something else came than was expected."""


def expect(what, expected, came):
    if expected != came:
        raise Mismatch(f"{what}: expected {shorten(expected)}, came {shorten(came)}")


def shorten(value):
    text = value.hex() if isinstance(value, (bytes, bytearray)) else repr(value)
    if len(text) <= 200:
        return text
    return f"{text[:200]}… ({len(value) if hasattr(value, '__len__') else len(text)} long)"


def self_test(path):
    """Decodes every vector of the page and encodes it again; checks what the page says about them."""
    with open(path, encoding="utf-8") as page:
        blocks = re.findall(r"^```vector (\S+)\n(.*?)^```", page.read(), re.MULTILINE | re.DOTALL)
    vectors = {name: bytes.fromhex(digits) for name, digits in blocks}
    expect("the page has vectors with different names", True, 0 < len(vectors) == len(blocks))
    frames = {}
    for name, data in vectors.items():
        if name == "preface":
            expect(name, data, PREFACE)
        elif name == "extensions-all":
            expect(name, data, encode_extensions(decode_extensions(data)))
        else:
            decoded = decode_frame(data, longest=len(data))
            expect(f"{name} is complete", True, decoded is not None)
            frames[name], size = decoded
            expect(f"size of {name}", len(data), size)
            expect(name, data, frames[name].encode())

    echo = method_id("demo.Echo/echo")
    expect("method id of demo.Echo/echo", 0x0AA4EACC3C830123, echo)
    for name, frame in described_vectors(echo).items():
        expect(name, frame, frames[name])
    extensions = decode_extensions(vectors["extensions-all"])
    expect("tags of extensions-all", list(range(1, 16)), [tag & ~CRITICAL for tag, _ in extensions])
    body = IncomingBody(frames["request-more"], 20)
    expect("request-more is complete", False, body.complete())
    body.add(frames["data"])
    expect("request-more with data", (True, b"front of a body tail"), (body.complete(), bytes(body.data)))


def described_vectors(echo):
    """What the text beside the vectors says."""
    call = 3 << 32 | 7
    mib = 1 << 20
    second = Request(echo, deadline=1_000_000, attempt=1)
    first = second._replace(attempt=0)
    pattern = bytes(range(16))
    instance = 0x1122334455667788
    hello = Hello(1, 1, 2, 1024, 0, 3, 4 * mib, 8 * mib, 8 * mib, mib, instance, pattern)
    reply = Reply(waited=5, took=42, load=100, retry_after=250, admission=2)
    asked_group, metadata = (6, b"blu"), (14, b"\x03key++")
    total = (TOTAL_LENGTH, (20).to_bytes(8, "little"))
    return {
        "hello": Frame(HELLO, hello),
        "request": Frame(REQUEST, second, call, IDEMPOTENT, body=b"hello"),
        "request-one-way": Frame(REQUEST, first, 1 << 32, ONE_WAY),
        "request-more": Frame(REQUEST, first, call, MORE, (total,), b"front of a body "),
        "request-extensions": Frame(REQUEST, first, 2 << 32, extensions=(asked_group, metadata)),
        "reply": Frame(REPLY, reply, call, body=b"hello"),
        "data": Frame(DATA, Data(16), call, body=b"tail"),
        "item": Frame(ITEM, Item(0x0807060504030201, codec=1), call, body=b"item"),
        "end": Frame(END, Reply(), call),
        "credit": Frame(CREDIT, Credit(2 * mib, CALLS_POOL)),
        "cancel": Frame(CANCEL, Cancel(TOO_LATE), call),
        "ping": Frame(PING, Probe(pattern)),
        "pong": Frame(PONG, Probe(pattern)),
        "goaway": Frame(GOAWAY, GoAway(41, 0)),
        "limits": Frame(LIMITS, Limits(64, 65536)),
        "limits-ack": Frame(LIMITS, Limits(64, 65536), flags=ACKNOWLEDGES),
    }


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
    expect("code of GOAWAY", 0, connection.goaway.code)
    expect("GOAWAY accepts both calls", True, connection.goaway.accepted >= max(slow.number, leave.number))
    try:
        connection.call(ECHO, b"too late")
    except GoingAway as refusal:
        expect("why no call is sent after GOAWAY", "going away", str(refusal))
    else:
        raise Mismatch("a call after GOAWAY: expected a refusal of the client, came none")
    expect_echo(connection.wait(slow), slow_body)
    expect_echo(connection.wait(leave), b"")
    connection.wait_for_end()


def cancel(connection):
    """A cancelled call ends properly, and its slot is used again."""
    body = contents(100)
    call = connection.call(SLOW, body)
    connection.cancel(call)
    answer = connection.wait(call)
    allowed = (OK, CANCELLED, CANCELLED_RUNNING)
    if answer.status not in allowed:
        names = " or ".join(map(status_text, allowed))
        raise Mismatch(f"status of a cancelled call: expected {names}, came {status_text(answer.status)}")
    expect("body of a cancelled call", body if answer.status == OK else b"", answer.body)

    again = check_echo(connection, contents(200))
    expect("slot and generation", (call.slot, call.generation + 1), (again.slot, again.generation))
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
    expect(f"status for {len(body)} bytes", status_text(OK), status_text(answer.status))
    expect(f"length of the reply to {len(body)} bytes", len(body), len(answer.body))
    different = next((i for i, (a, b) in enumerate(zip(body, answer.body)) if a != b), None)
    expect(f"first different byte of the reply to {len(body)} bytes", None, different)


def expect_status(connection, status, call):
    expect("status", status_text(status), status_text(connection.wait(call).status))


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
    except (Mismatch, ProtocolError, ConnectionEnded, NotSent, GoingAway, BadReply, OSError) as error:
        print(f"{arguments.scenario}: {type(error).__name__}: {error}")
        return 1
    print(f"ok {arguments.scenario}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
