"""Writer of a small MaxMind database: https://maxmind.github.io/MaxMind-DB/, version 2.0, IPv6 tree, 24-bit records."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any

_STRING, _UINT16, _UINT32, _MAP, _UINT64, _ARRAY = 2, 5, 6, 7, 9, 11
_MARKER = b"\xab\xcd\xefMaxMind.com"


def write_mmdb(path: Path, records: dict[str, Any], database_type: str = "Test-Country") -> Path:
    """Write a database of `records` by network in CIDR notation; no network may contain another."""
    nodes: list[list[int | None]] = [[None, None]]
    data, offsets = b"", []
    for number, (text, record) in enumerate(records.items()):
        offsets.append(len(data))
        data += _encoded(record)
        _insert(nodes, text, -1 - number)
    empty, data_starts_at = len(nodes), len(nodes) + 16
    tree = b""
    for node in nodes:
        for child in node:
            value = empty if child is None else child if child >= 0 else data_starts_at + offsets[-1 - child]
            tree += value.to_bytes(3, "big")
    metadata = {
        "binary_format_major_version": (_UINT16, 2),
        "binary_format_minor_version": (_UINT16, 0),
        "build_epoch": (_UINT64, 1_700_000_000),
        "database_type": database_type,
        "description": {"en": "written by a test"},
        "ip_version": (_UINT16, 6),
        "languages": ["en"],
        "node_count": (_UINT32, len(nodes)),
        "record_size": (_UINT16, 24),
    }
    path.write_bytes(tree + bytes(16) + data + _MARKER + _encoded(metadata))
    return path


def _insert(nodes: list[list[int | None]], text: str, leaf: int) -> None:
    """Children: a node's index, a leaf below 0, None for nothing."""
    network = ip_network(text)
    bits, length = int(network.network_address), network.prefixlen
    if isinstance(network, IPv4Network):
        length += 96  # IPv4 lies in ::/96
    node = 0
    for position in range(length):
        bit = bits >> (127 - position) & 1
        if position == length - 1:
            assert nodes[node][bit] is None, "no network contains another"
            nodes[node][bit] = leaf
            return
        child = nodes[node][bit]
        if child is None:
            nodes.append([None, None])
            child = nodes[node][bit] = len(nodes) - 1
        assert child >= 0, "no network contains another"
        node = child


def _encoded(value: Any) -> bytes:
    if isinstance(value, str):
        return _control(_STRING, len(value.encode())) + value.encode()
    if isinstance(value, dict):
        return _control(_MAP, len(value)) + b"".join(_encoded(key) + _encoded(item) for key, item in value.items())
    if isinstance(value, list):
        return _control(_ARRAY, len(value)) + b"".join(_encoded(item) for item in value)
    kind, number = value
    size = (number.bit_length() + 7) // 8
    return _control(kind, size) + number.to_bytes(size, "big")


def _control(kind: int, size: int) -> bytes:
    """The type in three bits, or 0 and then the type less 7; the size in five."""
    assert size < 29, "longer ones have another form"
    return bytes([kind << 5 | size]) if kind < 8 else bytes([size, kind - 7])
