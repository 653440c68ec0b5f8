"""The subcommands of `relightx-shards`: flags, calls and what is printed."""
