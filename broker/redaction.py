"""What a log may say of an error that a message caused: nothing from the message."""


def wordless(error: BaseException) -> BaseException:
    """Return what a log may say of an error over a message: its type, frames and origin.

    Not its text: «'Ann' is not …», «could not convert string …» repeat what a sender wrote, who
    they are, or where they are.
    """
    name, of = type(error).__name__, {"__module__": type(error).__module__}
    plain: BaseException
    if isinstance(error, BaseExceptionGroup):
        parts = [wordless(one) for one in error.exceptions]
        plain = BaseExceptionGroup("several", parts)
    else:
        plain = type(name, (Exception,), of)()
    plain.__traceback__ = error.__traceback__
    plain.__cause__ = wordless(error.__cause__) if error.__cause__ else None
    plain.__context__ = wordless(error.__context__) if error.__context__ else None
    plain.__suppress_context__ = error.__suppress_context__
    return plain
