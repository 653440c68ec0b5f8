"""A build, from the groups that a source finds to a published data set."""
