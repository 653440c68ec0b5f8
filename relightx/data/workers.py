"""What a reader process does before its first batch."""

import cv2
import torch


def use_one_thread(_worker: int) -> None:
    """For each reader process, as DataLoader's worker_init_fn."""
    # OpenCV's own threads would fight the training process for cores, and hang after a fork: to ask
    # for one waits for those of the parent, so none is asked for.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
