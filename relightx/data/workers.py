"""What a reader process does before its first batch."""

import ctypes
import signal

import cv2
import torch

from relightx.parent import signal_when_parent_ends

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # of glibc's malloc.h
_TRIM_BYTES, _MMAP_BYTES = 1 << 29, 1 << 25
_LAST_S = 60


def prepare_reader(_worker: int) -> None:
    """For each reader process, as DataLoader's worker_init_fn."""
    use_one_thread()
    keep_memory()
    outlive_signals()


def outlive_signals() -> None:
    """Go on reading while the training process, asked to stop, finishes its step.

    A cluster asks all processes of a job at once, a terminal all of a group. Who is told to end is
    ended a minute later; without its parent at once.
    """
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_LAST_S))
    signal_when_parent_ends(signal.SIGKILL)


def use_one_thread() -> None:
    """In this process."""
    # OpenCV's own threads would fight the training process for cores, and hang after a fork: to ask
    # for one waits for those of the parent, so none is asked for.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def keep_memory(any_size: bool = False) -> None:
    """Use memory again instead of giving it back, where the C library is glibc.

    It gives back the pixels of each batch and gets new pages, zeroed, for the next: a tenth of the
    time that a reader takes. any_size: pieces of 32 MiB and more too, such as a network's
    activations: a step of sfsnet on two cores spent 7 % of its time in the kernel, then 1 %.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
        if any_size:
            mallopt(_M_MMAP_MAX, 0)
