"""Flags for s3:// URLs, the same for every command."""

import argparse

from relightx.storage.folder import S3Options


def add_storage_flags(group: argparse._ActionsContainer, reads: bool) -> None:
    """Add them; reads: whether the command only reads, so that it may go without credentials."""
    group.add_argument(
        "--endpoint-url", metavar="URL", help="of a storage that is not AWS's (MinIO, Ceph, ...)"
    )
    group.add_argument("--profile", metavar="NAME", help="of the AWS configuration files")
    group.add_argument("--region", metavar="NAME", help="of the bucket")
    if reads:
        group.add_argument(
            "--unsigned", action="store_true", help="read a public bucket without credentials"
        )


def storage_options(args: argparse.Namespace) -> S3Options:
    """What the flags give."""
    return S3Options(
        endpoint_url=args.endpoint_url,
        profile=args.profile,
        region=args.region,
        unsigned="unsigned" in args and args.unsigned,
    )
