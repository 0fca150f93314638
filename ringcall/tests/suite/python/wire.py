"""Frames of docs/PROTOCOL.md: from bytes to tuples and back, and the vectors of the page."""

import hashlib
import re
import struct
import unicodedata
from collections import namedtuple

VERSION = 1
PREFACE = b"\xf7RING\r\n" + bytes([VERSION])
MIB = 1 << 20
MAX_HEADER, MAX_HANDSHAKE, MAX_CREDIT = 16_384, 4096, 2**48
SERVER_BIT, SLOT_BITS = 1 << 63, 2**32 - 1

HELLO, REQUEST, REPLY, DATA, ITEM, END, CREDIT, CANCEL, PING, PONG, GOAWAY, LIMITS = range(1, 13)
FIRST_IGNORABLE_KIND = 128
ONE_WAY, ITEMS_IN, ITEMS_OUT, MORE, IDEMPOTENT, CONFIRM, ANY_OF_REQUEST, ACKNOWLEDGES = 1, 2, 4, 8, 32, 64, 127, 1
CRITICAL, TOTAL_LENGTH, ATTACHMENT_LENGTH, METADATA, IDENTITY = 0x8000, 1, 2, 14, 16
STREAMS = 2  # of the features in HELLO
STREAM, CALLS_POOL, REPLIES_POOL = 0, 1, 2
BYTES, ITEMS = 0, 1  # units of credit
RAW, MESSAGEPACK, JSON = 0, 2, 3  # codecs
NO_DEADLINE = 2**32 - 1

OK, UNSUPPORTED, UNKNOWN_METHOD, SHAPE_MISMATCH, UNKNOWN_CODEC = 0, 0x4001, 0x4002, 0x4003, 0x4004
BAD_BODY = 0x4005
EXPIRED, CANCELLED, BAD_REQUEST, APPLICATION_ERROR = 0x4006, 0x4009, 0x400A, 0x8000
TOO_MUCH_METADATA, CANCELLED_RUNNING, BAD_ITEM = 0x400E, 0xC002, 0xC006
REFUSED_CLASS, UNKNOWN_CLASS = 1, 3  # the top two bits of a status


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


# ---- Frames ----


def header(layout, fields):
    """A tuple for the fixed part of a header. Fields are 0 if not said."""
    header_type = namedtuple("Header", fields, defaults=[0] * len(fields.split()))
    header_type.LAYOUT = struct.Struct(layout)
    return header_type


Hello = header(
    "<BBBBI7Q16s",
    "lowest_version highest_version archive_format compressions in_flight features codecs largest_message calls_window"
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
    REPLY: Kind("REPLY", Reply, ITEMS_OUT | MORE | CONFIRM, True),
    DATA: Kind("DATA", Data, 0, True),
    ITEM: Kind("ITEM", Item, MORE | CONFIRM, True),
    END: Kind("END", Reply, MORE | CONFIRM, True),
    CREDIT: Kind("CREDIT", Credit),
    CANCEL: Kind("CANCEL", Cancel),
    PING: Kind("PING", Probe),
    PONG: Kind("PONG", Probe),
    GOAWAY: Kind("GOAWAY", GoAway),
    LIMITS: Kind("LIMITS", Limits, ACKNOWLEDGES),
}
HEAD, TLV = struct.Struct("<IBBHQ"), struct.Struct("<HH")


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


def encode_entry(key, value):
    """An entry of metadata as an extension."""
    return METADATA, bytes([len(key)]) + key.encode() + value


def decode_metadata(extensions):
    """The entries among the extensions, in their order."""
    entries = []
    for tag, data in extensions:
        if tag & ~CRITICAL == METADATA:
            key, value = data[1 : 1 + data[0]], data[1 + data[0] :]
            if len(key) != data[0] or not re.fullmatch(rb"[a-z0-9._-]+", key):
                raise Failure(f"an entry of metadata that is none: {data}")
            entries.append((key.decode(), value))
    return entries


def decode_identity(extensions):
    """Who the sender of a HELLO says it is, or None."""
    said = [value for tag, value in extensions if tag == IDENTITY]
    must(len(said) <= 1, 9, f"several identities: {said}")
    for value in said:
        must(1 <= len(value) <= 256, 9, f"an identity of {len(value)} bytes")
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = "\0"
        must(not any(unicodedata.category(c) == "Cc" for c in text), 9, f"an identity that is no text: {value}")
        return text
    return None


def critical_tags(extensions):
    """The tags that may not be ignored."""
    known = (CRITICAL | TOTAL_LENGTH, CRITICAL | ATTACHMENT_LENGTH)
    return [tag for tag, _ in extensions if tag & CRITICAL and tag not in known]


class IncomingBody:
    """A body that arrives in one frame or in several. One that is to be confirmed counts when that has come."""

    def __init__(self, first, largest):
        self.first = first
        self.data = bytearray(first.body)
        self.total = len(first.body)
        self.attached = 0
        self.awaits_confirmation = bool(first.flags & CONFIRM)
        for tag, value in first.extensions:
            if tag & ~CRITICAL == TOTAL_LENGTH:
                self.total = int.from_bytes(value, "little")
            if tag & ~CRITICAL == ATTACHMENT_LENGTH:
                self.attached = int.from_bytes(value, "little")
        must(self.total <= largest, 3, f"a body of {self.total} bytes")
        must(self.is_complete() == (not first.flags & MORE), 8, f"'more' contradicts a total of {self.total}")
        self._check()

    def add(self, frame):
        """Appends what a DATA frame has."""
        must(frame.header.offset == len(self.data), 14, f"{frame.header}, not {len(self.data)}")
        if self.awaits_confirmation and len(self.data) == self.total:
            must(not frame.body, 8, "more than the body has")
            self.awaits_confirmation = False
            return
        must(frame.body, 8, "DATA without data")
        self.data += frame.body
        self._check()

    def is_complete(self):
        return len(self.data) == self.total and not self.awaits_confirmation

    def _check(self):
        must(self.attached <= self.total, 8, f"{self.attached} bytes attached to a body of {self.total}")
        cut = len(self.data) < self.total and len(self.data) % 16 == 0
        must(cut or len(self.data) == self.total, 8, f"{len(self.data)} bytes of a body of {self.total}")


def method_id(name):
    """FNV-1a, 64 bits, of `Service/method`."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def signature(text):
    """The signature of a text that describes types, see docs/SHAPES.md."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def has_no_body(status):
    """Whether a status is of a class that never has one."""
    return status >> 14 in (REFUSED_CLASS, UNKNOWN_CLASS)


# ---- Self-test: the vectors of the page ----


def self_test(path):
    """Decodes every vector of the page and encodes it again; checks what the page says about them."""
    with open(path, encoding="utf-8") as page:
        blocks = re.findall(r"^```vector (\S+)\n(.*?)^```", page.read(), re.MULTILINE | re.DOTALL)
    vectors = {name: bytes.fromhex(digits) for name, digits in blocks}
    frames = described_vectors()
    expect("vectors", sorted([*frames, "preface", "extensions-all"]), sorted(name for name, _ in blocks))
    expect("method id", 0x0AA4EACC3C830123, method_id("demo.Echo/echo"))
    expect("preface", PREFACE.hex(), vectors["preface"].hex())
    for name, frame in frames.items():
        data = vectors[name]
        expect(name, (frame, len(data)), decode_frame(data, longest=len(data)))
        expect(f"{name}, encoded", data.hex(), frame.encode().hex())

    extensions = decode_extensions(vectors["extensions-all"])
    expect("extensions-all", vectors["extensions-all"].hex(), encode_extensions(extensions).hex())
    entry = frames["request-extensions"].extensions[1]
    expect("metadata of request-extensions", entry, encode_entry("key", b"++"))
    expect("metadata of request-extensions, decoded", [("key", b"++")], decode_metadata([entry]))
    expect("tags of extensions-all", list(range(1, 18)), [tag & ~CRITICAL for tag, _ in extensions])
    body = IncomingBody(frames["request-more"], largest=20)
    body.add(frames["data"])
    expect("request-more with data", (True, b"front of a body tail"), (body.is_complete(), bytes(body.data)))
    body = IncomingBody(frames["request-confirm"], largest=5)
    expect("request-confirm", False, body.is_complete())
    body.add(frames["data-confirm"])
    expect("request-confirm, confirmed", (True, b"hello"), (body.is_complete(), bytes(body.data)))
    expect("request-attachment", 2, IncomingBody(frames["request-attachment"], largest=7).attached)


def described_vectors():
    """What the text beside the vectors says."""
    call = 3 << 32 | 7
    total = (CRITICAL | TOTAL_LENGTH, (20).to_bytes(8, "little"))
    five = (CRITICAL | TOTAL_LENGTH, (5).to_bytes(8, "little"))
    two = (CRITICAL | ATTACHMENT_LENGTH, (2).to_bytes(8, "little"))
    first = Request(method_id("demo.Echo/echo"), deadline=1_000_000)
    pattern = bytes(range(16))
    hello = Hello(1, 1, 2, 0b110, 1024, 0, 3, 4 * MIB, 8 * MIB, 8 * MIB, MIB, 0x1122334455667788, pattern)
    reply = Reply(waited=5, took=42, load=100, retry_after=250, admission=2)
    return {
        "hello": Frame(HELLO, hello),
        "hello-identity": Frame(HELLO, hello, extensions=((IDENTITY, b"quotes-1"),)),
        "request": Frame(REQUEST, first._replace(attempt=1), call, IDEMPOTENT, body=b"hello"),
        "request-one-way": Frame(REQUEST, first, 1 << 32, ONE_WAY),
        "request-more": Frame(REQUEST, first, call, MORE, (total,), b"front of a body "),
        "request-confirm": Frame(REQUEST, first, call, MORE | CONFIRM, (five,), b"hello"),
        "request-attachment": Frame(REQUEST, first, call, extensions=(two,), body=b"hello++"),
        "request-extensions": Frame(REQUEST, first, 2 << 32, extensions=((6, b"blu"), (14, b"\x03key++"))),
        "reply": Frame(REPLY, reply, call, body=b"hello"),
        "reply-void": Frame(REPLY, Reply(status=0xC004), call),
        "reply-items": Frame(REPLY, Reply(0x0807060504030201, waited=5, took=42), call, ITEMS_OUT),
        "data": Frame(DATA, Data(16), call, body=b"tail"),
        "data-confirm": Frame(DATA, Data(5), call),
        "item": Frame(ITEM, Item(0x0807060504030201, 1, 0), call, body=b"item"),
        "end": Frame(END, Reply(), call),
        "credit": Frame(CREDIT, Credit(2 * MIB, CALLS_POOL)),
        "credit-stream": Frame(CREDIT, Credit(256, STREAM, ITEMS), call),
        "cancel": Frame(CANCEL, Cancel(reason=1), call),
        "ping": Frame(PING, Probe(pattern)),
        "pong": Frame(PONG, Probe(pattern)),
        "goaway": Frame(GOAWAY, GoAway(41, 0)),
        "limits": Frame(LIMITS, Limits(64, 65536)),
        "limits-ack": Frame(LIMITS, Limits(64, 65536), flags=ACKNOWLEDGES),
    }
