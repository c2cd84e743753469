"""The Merkle tree over the entries of a log: proves that one is in it without showing the others.

The tree of RFC 6962: a leaf is SHA-256(0x00 || hash of an entry), a node SHA-256(0x01 || left ||
right), and the left part of n entries is the largest power of two below n. Whoever has noted the
root checks a proof with SHA-256 alone, as service/README.md says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from realdamage.claims.log import canonical
from realdamage.errors import RealDamageError, UsageError

FORMAT = "realdamage-log-proof/1"
_BYTES = 32  # of a hash
Node = Callable[[int, int], bytes]
"""(level, last): the hash of the 2**level entries that end with number `last`."""


def grow(node: Node, index: int, entry_hash: str) -> bytes:
    """The hashes of all full subtrees that end with entry `index`, from its leaf up, joined."""
    found = [_leaf(entry_hash)]
    while index >> (len(found) - 1) & 1:
        level = len(found) - 1
        found.append(_join(node(level, index - 2**level), found[-1]))
    return b"".join(found)


def cut(nodes: bytes, level: int) -> bytes:
    """One of the hashes that `grow` joined."""
    return nodes[_BYTES * level : _BYTES * (level + 1)]


def tree_hash(node: Node, size: int, start: int = 0) -> bytes:
    """The root over `size` entries from number `start`, 32 bytes."""
    if size == 0:
        return hashlib.sha256().digest()
    if size & (size - 1) == 0:
        return node(size.bit_length() - 1, start + size - 1)
    left = _left(size)
    return _join(tree_hash(node, left, start), tree_hash(node, size - left, start + left))


def path_to(node: Node, index: int, size: int, start: int = 0) -> list[dict[str, str]]:
    """The hashes, by their side, that lead from leaf `start` + `index` to the root over `size`
    entries."""
    if size == 1:
        return []
    left = _left(size)
    if index < left:
        other = tree_hash(node, size - left, start + left)
        return [*path_to(node, index, left, start), {"right": other.hex()}]
    other = tree_hash(node, left, start)
    return [*path_to(node, index - left, size - left, start + left), {"left": other.hex()}]


def root_from(entry_hash: str, path: Iterable[Mapping[str, str]]) -> bytes:
    """The root to which a path leads from an entry. Raises ValueError or KeyError."""
    found = _leaf(entry_hash)
    for step in path:
        ((side, other),) = step.items()
        pair = {"left": (bytes.fromhex(other), found), "right": (found, bytes.fromhex(other))}
        found = _join(*pair[side])
    return found


def prove(
    entries: Iterable[Mapping[str, Any]], node: Node, total: int, size: int | None = None
) -> dict[str, Any]:
    """The proof, as JSON, that these entries are in a log; later ones than `size` are left out.

    node: the log's tree. total: how many entries it has. size: how many the root covers; default:
    all. Raises UsageError when the log has fewer.
    """
    size = total if size is None else size
    if not 0 < size <= total:
        raise UsageError(f"the log has {total} entries, not {size}", code="log_size")
    proofs = [
        {
            "header": canonical(_header(entry)),
            "payload": canonical(entry["payload"]),
            "path": path_to(node, entry["index"], size),
        }
        for entry in entries
        if entry["index"] < size
    ]
    root = tree_hash(node, size).hex()
    return {"format": FORMAT, "size": size, "root": root, "entries": proofs}


def check_proof(proof: Any, root: str) -> list[dict[str, Any]]:
    """The entries that a proof shows to be in the log with this root.

    Raises RealDamageError with the code proof_wrong when it does not show that.
    """
    try:
        if proof["format"] != FORMAT:
            raise _wrong(f"its format is {str(proof['format'])[:40]!r}, not {FORMAT}")
        found = [_check_entry(one, root.lower()) for one in proof["entries"]]
    except (TypeError, KeyError, ValueError, AttributeError, RecursionError) as error:
        raise _wrong(f"it is not complete ({type(error).__name__}: {error})") from error
    if not found:
        raise _wrong("it has no entry")
    return found


def nodes_of(hashes: Iterable[str]) -> Node:
    """The tree over entries with these hashes, kept in memory."""
    rows: list[bytes] = []

    def node(level: int, last: int) -> bytes:
        return cut(rows[last], level)

    for entry_hash in hashes:
        rows.append(grow(node, len(rows), entry_hash))
    return node


def _check_entry(given: Mapping[str, Any], root: str) -> dict[str, Any]:
    header, payload = str(given["header"]), str(given["payload"])
    values = json.loads(header)
    name = f"entry {values['index']}"
    if hashlib.sha256(payload.encode()).hexdigest() != values["payload_sha256"]:
        raise _wrong(f"the payload of {name} was changed")
    entry_hash = hashlib.sha256(header.encode()).hexdigest()
    if root_from(entry_hash, given["path"]).hex() != root:
        raise _wrong(f"{name} does not lead to the root {root[:16]}…")
    return {**values, "hash": entry_hash, "payload": json.loads(payload)}


def _header(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in ("hash", "payload")}


def _leaf(entry_hash: str) -> bytes:
    return hashlib.sha256(b"\x00" + bytes.fromhex(entry_hash)).digest()


def _join(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _left(size: int) -> int:
    """The largest power of two below the size."""
    return 1 << ((size - 1).bit_length() - 1)


def _wrong(why: str) -> RealDamageError:
    return RealDamageError(f"The proof shows nothing: {why}.", code="proof_wrong")
