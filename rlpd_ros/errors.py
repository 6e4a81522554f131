# SPDX-License-Identifier: Apache-2.0
"""The two ways in which a user's input can be wrong. Anything else that is raised is a bug."""

USER_ERROR = 2
"""Exit status of a process whose input is wrong: starting it again would not help."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


BROKEN_PIPE = 141
"""Exit status if nobody reads any more what is printed, as shells have it."""


class RlpdError(Exception):
    """One line for the user: what is wrong, what was expected, what was found, what to do."""


class ConfigError(RlpdError):
    """A parameter, a configuration file or a command line is wrong."""


class DataError(RlpdError):
    """A bag, a checkpoint, a message or a run directory is wrong."""
