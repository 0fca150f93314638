"""Rules of docs/PROTOCOL.md, each broken once: what is done, the close code, the bytes that do it."""

from peer import *

MINUTE = (60_000).to_bytes(4, "little")  # the argument of `hold`
PING_FRAME = Frame(PING, Probe(bytes(16))).encode()
WHOLE_BODY = (CRITICAL | TOTAL_LENGTH, (100).to_bytes(8, "little"))


def head(length, kind, flags=0, header_length=32, id=0):
    return HEAD.pack(length, kind, flags, header_length, id)


# In place of a handshake.
RULES_UNGREETED = [
    ("no HELLO", 9, PREFACE + PING_FRAME),
    ("a HELLO of 8 KiB", 3, PREFACE + head(8192, HELLO, header_length=80)),
    ("a HELLO without slots", 9, PREFACE + Frame(HELLO, GREEDY._replace(in_flight=0)).encode()),
    ("a HELLO with windows too small", 9, PREFACE + Frame(HELLO, GREEDY._replace(calls_window=100)).encode()),
    ("a HELLO without a common version", 2, PREFACE + Frame(HELLO, GREEDY._replace(lowest_version=9, highest_version=9)).encode()),
]
# Behind a handshake.
RULES = [
    ("HELLO twice", 9, Frame(HELLO, GREEDY).encode()),
    ("the longest of all frames", 3, head(2**32 - 1, REQUEST)),
    # With its header, since kind and flags are looked at before the length of a body.
    ("a byte above the largest message", 3, head(4 * MIB + 33, REQUEST) + bytes(32)),
    ("a total of 5 MiB", 3, begun("echo", 5 * MIB, bytes(16))),
    ("a header of 17 bytes", 4, head(64, REQUEST, header_length=17)),
    ("a header longer than its frame", 4, head(16, REQUEST, header_length=32)),
    ("a header shorter than its fixed part", 4, head(16, REQUEST, header_length=16) + bytes(16)),
    ("an extension that is cut off", 4, request("echo", extensions=((15, b"why"),))[:60] + b"\xff" * 4),
    ("dirty padding", 5, request("echo", b"1")[:-1] + b"!"),
    ("kind 13", 6, head(16, 13, header_length=16) + bytes(16)),
    ("a flag of DATA", 7, head(32, DATA, flags=1, header_length=16) + bytes(32)),
    ("a PING with a body", 8, head(32, PING, header_length=16) + bytes(32)),
    ("a total above the body", 8, request("echo", b"short", extensions=(WHOLE_BODY,))),
    ("DATA beyond its body", 8, begun("echo", 32, bytes(16)) + data(16, bytes(32))),
    ("empty DATA", 8, begun("echo", 32, bytes(16)) + data(16, b"")),
    ("a critical extension of PING", 10, Frame(PING, Probe(bytes(16)), 0, 0, ((CRITICAL | 4000, b""),)).encode()),
    ("a PING with an id", 11, Frame(PING, Probe(bytes(16)), 7).encode()),
    ("a call with the server's id", 11, request("echo", slot=0, generation=1 << 31)),
    ("slot 1024", 12, request("echo", slot=1024)),
    ("a slot in use", 13, request("hold", MINUTE) + request("hold", MINUTE, generation=1)),
    ("DATA out of order", 14, begun("echo", 64, bytes(16)) + data(32, bytes(16))),
    ("more than the window", 15, b"".join(begun("measure", 4 * MIB, bytes(16), slot) for slot in range(3))),
    ("credit of nothing", 16, Frame(CREDIT, Credit(0, REPLIES_POOL)).encode()),
    ("credit without bounds", 16, Frame(CREDIT, Credit(2**63, REPLIES_POOL)).encode()),
    ("credit in requests", 19, Frame(CREDIT, Credit(1, REPLIES_POOL, 2)).encode()),
    ("an item for a call without stream", 30, request("hold", MINUTE) + Frame(ITEM, Item(), 0).encode()),
]
