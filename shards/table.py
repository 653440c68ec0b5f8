"""Tables and sizes as text."""


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns under their headings, the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return "\n".join(lines)


def size_text(size: int) -> str:
    """Bytes as people read them."""
    for unit, bytes_of_unit in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= bytes_of_unit:
            return f"{size / bytes_of_unit:.{2 if unit == 'GiB' else 1}f} {unit}"
    return f"{size} B"
