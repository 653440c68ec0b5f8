"""What cannot be read, where, and why."""


class ReadFault(ValueError):
    """Bytes of a shard that did not come or are not what they should be.

    A ValueError because what reads shards has always raised that; the message alone makes one too,
    which is all that torch's reader processes hand on.

    url: of the shard. key: of the portrait. start, size: bytes of the shard, where they are known.
    cause: what happened, in a line.
    """

    def __init__(
        self,
        message: str,
        *,
        url: str = "",
        key: str = "",
        start: int | None = None,
        size: int | None = None,
        cause: str = "",
    ) -> None:
        super().__init__(message)
        self.url, self.key, self.start, self.size, self.cause = url, key, start, size, cause

    @classmethod
    def at(
        cls,
        url: str,
        cause: str | BaseException,
        *,
        key: str = "",
        start: int | None = None,
        size: int | None = None,
    ) -> "ReadFault":
        """The fault with a message made of its parts, in one line."""
        said = " ".join(str(cause).split()).removeprefix(f"{url}: ")
        said = said or type(cause).__name__
        parts = [url]
        if key:
            parts.append(f"portrait {key!r}")
        if start is not None and size is not None:
            parts.append(f"bytes {start} to {start + size}")
        return cls(": ".join((*parts, said)), url=url, key=key, start=start, size=size, cause=said)

    def of(self, key: str) -> "ReadFault":
        """The same, naming the portrait that was wanted."""
        return self.at(self.url, self.cause, key=key, start=self.start, size=self.size)


def cause_of(error: BaseException) -> str:
    """What an error says; torch hands on that of a reader process as its whole traceback."""
    return str(error).rsplit("\nValueError: ", 1)[-1].strip()
