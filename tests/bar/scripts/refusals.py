"""What scripts of clients say of acts that a server must not let through."""

# mypy: ignore-errors
from mlflow.exceptions import MlflowException


def refused(code, act, *words, **named):
    """Say that something must be refused with a code."""
    try:
        act(*words, **named)
    except MlflowException as error:
        assert error.error_code == code, (error.error_code, error.message)
        return error.message
    raise AssertionError(f"{act} was not refused")
