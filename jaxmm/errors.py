"""The one exception that means the user can fix it."""


class UserError(Exception):
    """Something a user got wrong, said in one line.

    The message names the thing, what was found, what was expected and what to do. Launchers
    print it without a traceback and exit with code 2.
    """
