"""Exit statuses of storectl: one table, for scripts to rely on."""

OK = 0
FAILED = 1  # the command was understood and could not be carried out
USAGE = 2  # the command line is wrong (click's own status)
CONFIG = 3  # a setting, a folder, a key or a policy cannot be used; the message says what to do
UNREACHABLE = 4  # no node answers at that state folder
NOT_FOUND = 5  # what was asked for does not exist
UNAVAILABLE = 6  # the cluster cannot answer now: quorum lost
