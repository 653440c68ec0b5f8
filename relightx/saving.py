"""Checkpoints written beside the training: to the run's directory, then to S3.

The training gives away a copy in memory and goes on; a thread stages it, commits it and prunes what
is older, then sends it up, the record that makes it whole last. The next checkpoint waits for the
one before, so that there is one copy in memory at most. What went wrong in the thread is raised at
the next call.
"""

import json
import os
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from relightx.checkpoint import (
    RECORD,
    WEIGHTS,
    Checkpoint,
    check_record,
    committed,
    fetched_checkpoint,
    save_checkpoint,
    step_of,
)
from relightx.storage import Folder
from relightx.storage.folder import sha256_of

_NAME = "checkpoints"


class Saver:
    """Writes the checkpoints of a run, each whole or not at all.

    directory: of the run. keep: newest ones to be kept, on disk and in `upload` alike. upload:
    where they are copied to; None: nowhere. Raises OSError, from `save` and `close`, for what did
    not fit on the disk; a failed upload is told and the next one tried.
    """

    def __init__(self, directory: Path, keep: int, upload: Folder | None = None) -> None:
        self.directory, self.keep = directory / _NAME, keep
        self.upload = None if upload is None else upload.child(_NAME)
        self._pool = ThreadPoolExecutor(1, "relightx-save")
        self._writing: Future | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Begin to write a checkpoint, whose tensors are nobody else's."""
        self.wait()
        self._writing = self._pool.submit(self._write, checkpoint)

    def wait(self) -> None:
        """Until what was begun is written."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def close(self) -> None:
        self.wait()
        self._pool.shutdown()

    def _write(self, checkpoint: Checkpoint) -> None:
        path = save_checkpoint(self.directory, checkpoint, self.keep)
        if self.upload is None:
            return
        try:
            send_checkpoint(path, self.upload)
            for old in sent_checkpoints(self.upload)[: -self.keep]:
                _forget(old, self.upload)
        except OSError as error:
            print(
                f"relightx train: step {checkpoint.step}: not uploaded: {error}; it is in {path}",
                file=sys.stderr,
            )


def send_checkpoint(path: Path, folder: Folder) -> None:
    """Copy a committed checkpoint to a folder, its record last."""
    record = json.loads((path / RECORD).read_text())
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".sending-") as staged:
        for name, (_, digest) in record["files"].items():
            link = Path(staged) / name
            os.link(path / name, link)  # `put` takes away what it sends
            folder.put(f"{path.name}/{name}", link, digest)
    folder.write(f"{path.name}/{RECORD}", (path / RECORD).read_bytes())


def sent_checkpoints(folder: Folder) -> list[str]:
    """Names of the whole checkpoints of a folder, oldest first."""
    ending = f"/{RECORD}"
    names = (name.removesuffix(ending) for name in folder.names() if name.endswith(ending))
    return sorted(name for name in names if step_of(name) is not None)


def fetch_newest(folder: Folder, directory: Path) -> list[str]:
    """Copy the newest whole checkpoint of a folder to DIRECTORY, where it appears whole; what was
    passed over, and why. Nothing is copied where DIRECTORY has one as new.
    """
    held = committed(directory)
    newest = step_of(held[-1].name) if held else -1
    passed_over = []
    for name in reversed(sent_checkpoints(folder.child(_NAME))):
        if step_of(name) <= newest:
            break
        try:
            fetched_checkpoint(folder.child(_NAME).child(name), directory / name)
            break
        except (ValueError, OSError) as error:
            passed_over.append(str(error))
    return passed_over


def _forget(name: str, folder: Folder) -> None:
    """Remove a sent checkpoint; its record first, so that it is never half a whole one."""
    record = check_record(folder.read(f"{name}/{RECORD}"), folder.url_of(name))
    for file in (RECORD, *record["files"]):
        folder.delete(f"{name}/{file}")


def send_model(path: Path, folder: Folder) -> None:
    """Copy a model directory to a folder, its config.json, without which it is none, last."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".sending-") as staged:
        link = Path(staged) / WEIGHTS
        os.link(path / WEIGHTS, link)
        folder.put(f"{path.name}/{WEIGHTS}", link, sha256_of(link))
    folder.write(f"{path.name}/config.json", (path / "config.json").read_bytes())
