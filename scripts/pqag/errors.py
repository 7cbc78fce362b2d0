"""The error a user can mend."""


class UserError(Exception):
    """A mistake in a config, a file or an option, told in one sentence: what is wrong, where, and what is allowed.

    Steps print its message alone; any other exception is a defect of ours and keeps its traceback in the log.
    """
