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
BYTES = [b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\xff" * 7 + b"\x7f", b"\xef\xbb\xbf", b"\r\n", b"\xc0\x80", b"\xed\xa0\x80"]


def mutated(content: bytes, others: list[bytes], random: Random) -> bytes:
    """A changed ``content``; ``others`` are valid files whose pieces may get into it."""
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        content = random.choice(MUTATIONS)(content, others, random)
    return content


def _span(content, random, longest=64):
    start = random.randrange(len(content) + 1)
    return start, min(len(content), start + random.choice((1, 2, 4, 8, random.randint(1, longest))))


def _bits(content, others, random):
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 16)) if content else 0):
        near = random.random() < 0.5  # headers decide more than what follows
        changed[random.randrange(min(len(changed), 128) if near else len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(content, others, random):
    start, end = _span(content, random)
    return random.choice((content[:start], content[start:], content[:start] + content[end:]))


def _repeat(content, others, random):
    start, end = _span(content, random)
    return content[:end] + content[start:end] * random.choice((1, 2, 50)) + content[end:]


def _swap(content, others, random):
    (a, b), (c, d) = sorted(_span(content, random) for _ in range(2))
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:] if b <= c else content


def _of_another(content, others, random):
    other = random.choice(others)
    (start, end), (a, b) = _span(content, random, 4096), _span(other, random, 4096)
    return content[:start] + other[a:b] + content[end:]


def _binary(content, others, random):
    start, _ = _span(content, random)
    value = random.choice((*BYTES, struct.pack("<q", random.choice((2**31, 2**32 - 1, 2**40, -2)))))[: random.choice((1, 2, 4, 8))]
    return content[:start] + value + content[start + random.choice((0, len(value))) :]


def _field(pattern, news):
    """Puts one of ``news``, or another match in the same file, in the place of a match of ``pattern``."""

    def change(content, others, random):
        found = [match.span() for match in re.finditer(pattern, content[:100_000])]
        if not found:
            return _bits(content, others, random)
        (a, b), (c, d) = random.choice(found), random.choice(found)
        return content[:a] + random.choice((content[c:d], random.choice(news).encode("utf-8", "surrogatepass"))) + content[b:]

    return change


def _encoding(content, others, random):
    try:
        text = content.decode()
    except ValueError:
        return _binary(content, others, random)
    changes = [("utf-16", text), ("utf-8-sig", text), ("latin-1", text + "é"), ("utf-8", text.replace("\n", "\r\n")), ("utf-7", text)]
    encoding, text = random.choice([*changes, ("utf-8", text.replace("\n", "\r")), ("utf-8", text + "\0"), ("utf-32-be", text)])
    return text.encode(encoding, "replace")


def _in_json(content, others, random):
    """Another value, no value, or a key's value at another key."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return _field(rb"\w+", WORDS)(content, others, random)
    inner = value
    while isinstance(inner, dict | list) and inner:
        keys = list(inner) if isinstance(inner, dict) else range(len(inner))
        key = random.choice(keys)
        if not isinstance(inner[key], dict | list) or not inner[key] or random.random() < 0.2:
            match random.randrange(4):
                case 0:
                    del inner[key]
                case 1:
                    inner[key] = inner[random.choice(keys)]
                case _:
                    inner[key] = random.choice(VALUES)
            break
        inner = inner[key]
    try:
        return (json.dumps(value, indent=1) + "\n").encode()
    except ValueError:  # it now holds itself
        return content


def _inside(content, others, random):
    """A mutation of what an archive holds, packed again, so that its checksums are right."""
    try:
        if content[:2] == b"\x1f\x8b":
            return gzip.compress(mutated(gzip.decompress(content), others, random), 1)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:
        return _in_json(content, others, random)
    name = random.choice(sorted(members, key=len)) if random.random() < 0.5 else min(members, key=lambda one: not one.endswith("data.pkl"))
    members[name] = mutated(members[name], others, random)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, inner in members.items():
            archive.writestr(member, inner)
    return buffer.getvalue()


MUTATIONS = [_bits, _cut, _repeat, _swap, _of_another, _binary, _encoding, _in_json, _inside, _inside]
MUTATIONS += [_field(rb"\d+", NUMBERS), _field(rb"\w+", WORDS), _field(rb"[^\n]*\n", ["\n", " ", "a,b,c\n"])]
MUTATIONS.append(_field(rb"[:,|\"\[\]{}]", ":,|\"[]{}'"))
