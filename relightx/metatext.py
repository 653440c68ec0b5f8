"""A meta.json taken apart as text, so that only the lights that are wanted are parsed.

The numbers of the lights are nearly all of it: of 64 lights, parsing takes 0.4 ms, as long as it
takes to decode the pictures that are wanted. Text as `relightx.sample.encode` writes it is cut
where its lights begin; these places cannot be inside a name, where a quotation mark is escaped.
Any other text is parsed whole, and gives the same.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

_KEY, _LAST_KEY = b'"direction"', b'"sh"'
_DIRECTION = b"{" + _KEY + b": "
_BETWEEN = b"}, " + _DIRECTION
_AFTER = (b'}], "provenance": {', b'}], "pose_deg": [')
_BEFORE = re.compile(rb'\{"height": \d+, "lights": \[' + re.escape(_DIRECTION))


def split_meta(data: bytes) -> tuple[dict[str, Any], Sequence[Any]]:
    """What a meta.json says but for its lights, and one value for each light, for `light_record`.

    Raises ValueError, KeyError or TypeError for what is no such JSON.
    """
    before, end = _BEFORE.match(data), max(map(data.find, _AFTER))
    if before is not None and end >= before.end():
        records = data[before.end() : end].split(_BETWEEN)
        if data.count(_KEY) == data.count(_LAST_KEY) == len(records):  # nothing else looks so
            rest = data[: before.end() - len(_DIRECTION)] + data[end + 1 :]
            return json.loads(rest), records
    meta = json.loads(data)
    return meta, meta["lights"]


def light_record(light: Any) -> dict[str, Any]:
    """A light's values. Raises ValueError for what is no JSON."""
    return json.loads(_DIRECTION + light + b"}") if isinstance(light, bytes) else light
