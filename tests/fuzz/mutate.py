"""Seeded mutations of a file: bits, cuts, repeats, swapped fields, huge numbers, odd encodings, and the same inside JSON and archives."""

import gzip
import io
import json
import re
import struct
import zipfile
from random import Random

NUMBERS = ["0", "-1", "1e999", "1e-999", "NaN", "-Infinity", "0x7fffffff", "18446744073709551616", "1_0", "010", "1,5", "٣"] + ["9" * 5000]
WORDS = ["", "null", "true", "~", "..", "/etc/passwd", "é", "\x1b[2J", "\0", "\u202e", "\ud800", "%s", "{0}", "\n", "|", '"', "a" * 300]
VALUES = [None, True, -1, 0, 1.5, 1e300, float("nan"), 10**30, "", "\0", "\ud800", "/", "1", [], {}, [[]], {"name": {}}, ["results"]]
NUMBERS_OF_BYTES = [struct.pack("<q", number) for number in (0, -1, -2, 2**31, 2**32 - 1, 2**40, 2**63 - 1)]
BYTES = [*NUMBERS_OF_BYTES, *(each[::-1] for each in NUMBERS_OF_BYTES), b"\xef\xbb\xbf", b"\r\n", b"\xc0\x80", b"\xed\xa0\x80"]


def mutated(content: bytes, others: list[bytes], random: Random) -> bytes:
    """A changed ``content``; ``others`` are valid files whose pieces may get into it."""
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        content = random.choice((*CHANGES, pieces, pieces, pieces, encoded, in_json, inside, inside))(content, others, random)
    return content


def span(content, random, longest=64):
    """A short piece, half the time in the head, which decides more than what follows."""
    start = random.randrange(min(len(content), random.choice((128, len(content)))) + 1)
    return start, min(len(content), start + random.choice((1, 2, 4, 8, random.randint(1, longest))))


def pieces(content, others, random):
    other = random.choice(others)
    (start, end), (a, b), (c, d) = span(content, random), span(content, random), span(other, random, 4096)
    flipped = bytes(byte ^ 1 << random.randrange(8) for byte in content[start:end])
    news = [flipped, b"", content[a:b], other[c:d], content[start:end] * random.choice((2, 3, 50)), random.choice(BYTES)]
    return random.choice((content[:start], content[start:], *(content[:start] + new + content[end:] for new in news)))


def field(pattern, news):
    """Puts one of ``news``, or another match in the same file, in the place of a match of ``pattern``."""

    def change(content, others, random):
        found = [match.span() for match in re.finditer(pattern, content[:100_000])]
        if not found:
            return pieces(content, others, random)
        (a, b), (c, d) = random.choice(found), random.choice(found)
        return content[:a] + random.choice((content[c:d], random.choice(news).encode("utf-8", "surrogatepass"))) + content[b:]

    return change


CHANGES = [field(rb"\d+", NUMBERS), field(rb"\w+", WORDS), field(rb"[^\n]*\n", ["\n", " ", "a,b,c\n"]), field(rb'[:,|"{}\[\]]', ':,|"{}[]')]


def encoded(content, others, random):
    try:
        text = content.decode()
    except ValueError:
        return pieces(content, others, random)
    encoding = random.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32-be", "utf-7", "latin-1"))
    return (text.replace("\n", random.choice(("\n", "\r\n", "\r"))) + random.choice(("", "é", "\0"))).encode(encoding, "replace")


def in_json(content, others, random):
    """Another value, no value, or the value of another key."""
    try:
        value = inner = json.loads(content)
    except (ValueError, RecursionError):
        return pieces(content, others, random)
    while isinstance(inner, dict | list) and inner:
        keys = list(inner) if isinstance(inner, dict) else range(len(inner))
        key = random.choice(keys)
        if not isinstance(inner[key], dict | list) or not inner[key] or random.random() < 0.2:
            inner[key] = random.choice((*VALUES, json.loads(json.dumps(inner[random.choice(keys)]))))
            if random.random() < 0.25:
                del inner[key]
            break
        inner = inner[key]
    return (json.dumps(value, indent=1) + "\n").encode()


def inside(content, others, random):
    """A mutation of what an archive holds, packed again, so that its checksums are right."""
    try:
        if content[:2] == b"\x1f\x8b":
            return gzip.compress(mutated(gzip.decompress(content), others, random), 1)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = random.choice((*members, *[name for name in members if name.endswith("data.pkl")] * 3))
    except Exception:
        return in_json(content, others, random)
    members[name] = mutated(members[name], others, random)
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        for member, inner in members.items():
            archive.writestr(member, inner)
    return buffer.getvalue()
